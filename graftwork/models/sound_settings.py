"""How a checkpoint wants its recordings: what its preprocessor_config.json says, in our terms."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftwork.errors import CheckpointError, Problem, raise_if
from graftwork.models.configs import PREPROCESSOR
from graftwork.models.serving.config import SPECTROGRAM, WAVEFORM, SoundConfig
from graftwork.models.serving.recordings import MAX_RATE, MAX_SECONDS, MIN_MS, MIN_RATE
from graftwork.models.serving.sounds import STEP, WINDOW

RATE = 16_000
# Commands last one second and most sentences two to four, so that few are cut; and it is 250 tokens, as a longer text.
SECONDS = 5.0
# What ASTFeatureExtractor takes where nothing is said: of AudioSet (Gemmeke et al. 2017).
BINS, FRAMES, MEAN, STD = 128, 1024, -4.2677393, 4.5689974
KINDS = {"Wav2Vec2FeatureExtractor": WAVEFORM, "ASTFeatureExtractor": SPECTROGRAM}
SPECTROGRAM_MODEL = "audio-spectrogram-transformer"


def read_sound_settings(folder: Path, config: Mapping[str, Any], seconds: float | None = None) -> SoundConfig:
    """What recordings become for the checkpoint in a verified folder.

    config: its config.json. seconds: how long a recording is read; for None SECONDS, or of a spectrogram all that it
    has room for. Raises CheckpointError if the file says something that can't be followed.
    """
    path = folder / PREPROCESSOR
    said = _read(path) if path.is_file() else {}
    kind = _kind(said, config)
    raise_if(_find_problems(said, kind, seconds), CheckpointError)
    rate = int(said.get("sampling_rate", config.get("sampling_rate", RATE)))
    if kind == SPECTROGRAM:
        return _spectrogram(said, rate, seconds)
    # Without a file, what transformers says of checkpoints whose first layers are normalised each by itself.
    is_wavenet = "quantization" in config  # which hears samples as they are
    is_layered = config.get("feat_extract_norm") == "layer"
    has_mask = said.get("return_attention_mask", is_wavenet or (not said and is_layered))
    is_normalized = said.get("do_normalize", not is_wavenet)
    return SoundConfig(rate, round((seconds or SECONDS) * rate), WAVEFORM, bool(is_normalized), bool(has_mask))


def _spectrogram(said: Mapping[str, Any], rate: int, seconds: float | None) -> SoundConfig:
    frames = int(said.get("max_length", FRAMES))
    room = WINDOW + (frames - 1) * STEP
    samples = room if seconds is None else min(room, round(seconds * rate))
    # Not normalised is brought to a mean of 0 and twice a deviation of a half.
    is_normalized = said.get("do_normalize", True)
    mean, std = (float(said.get("mean", MEAN)), float(said.get("std", STD))) if is_normalized else (0.0, 0.5)
    return SoundConfig(rate, samples, SPECTROGRAM, False, False, int(said.get("num_mel_bins", BINS)), frames, mean, std)


def _read(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(Problem(f"no JSON: {error}", PREPROCESSOR)) from error
    if not isinstance(said, dict):
        raise CheckpointError(Problem("expected names and values", PREPROCESSOR))
    return said


def _kind(said: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    if "feature_extractor_type" in said:
        name = said["feature_extractor_type"]
        if name not in KINDS:
            problem = f"feature_extractor_type {name!r} is not read here, expected {' or '.join(KINDS)}"
            raise CheckpointError(Problem(problem, PREPROCESSOR, "choose another checkpoint"))
        return KINDS[name]
    is_spectrogram = "num_mel_bins" in said or config.get("model_type") == SPECTROGRAM_MODEL
    return SPECTROGRAM if is_spectrogram else WAVEFORM


def _find_problems(said: Mapping[str, Any], kind: str, seconds: float | None) -> list[Problem]:
    wanted = [
        ("sampling_rate", f"a whole number from {MIN_RATE} to {MAX_RATE}", _is_whole(MIN_RATE, MAX_RATE)),
        ("feature_size", "1: one channel", lambda value: value == 1),
        ("padding_value", "0", lambda value: value == 0),
        *((name, "true or false", _is_flag) for name in ("do_normalize", "return_attention_mask")),
    ]
    if kind == SPECTROGRAM:
        wanted += [
            ("sampling_rate", f"{RATE}, of which its windows are 25 ms", lambda value: value == RATE),
            ("num_mel_bins", "a whole number from 1 to 512", _is_whole(1, 512)),
            ("max_length", "a whole number from 1 to 100000", _is_whole(1, 100_000)),
            ("mean", "a number", lambda value: _is_number(value)),
            ("std", "a number above 0", lambda value: _is_number(value) and value > 0),
        ]
    problems = [
        Problem(f"{name} is {said[name]!r}, expected {expected}", PREPROCESSOR)
        for name, expected, is_right in wanted
        if name in said and not is_right(said[name])
    ]
    if seconds is not None and not MIN_MS / 1000 <= seconds <= MAX_SECONDS:
        problems.append(Problem(f"{seconds:g} seconds of a recording, expected {MIN_MS / 1000} to {MAX_SECONDS}"))
    return problems


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(low: int, high: int) -> Any:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
