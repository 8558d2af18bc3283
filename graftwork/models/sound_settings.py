"""How a checkpoint wants its sounds: what its preprocessor_config.json says, in our terms."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftwork.errors import CheckpointError, Problem
from graftwork.models.pixels import PREPROCESSOR
from graftwork.models.serving.config import SoundConfig

RATE = 16_000  # of nearly all speech models
SECONDS = 5.0  # longer than most commands and words; attention takes four times as long for twice as much
# How ASTFeatureExtractor takes sounds apart, in samples.
WINDOW, HOP = 400, 160
# What it has where its file does not say, and of AudioSet, which it was made for.
BINS, FRAMES, MEAN, STD = 128, 1024, -4.2677393, 4.5689974


def read_sound_settings(folder: Path, seconds: float | None = None) -> SoundConfig:
    """What sounds become for the checkpoint in a verified folder. seconds: the most that is heard of one.

    Raises CheckpointError if the files say something that can't be followed.
    """
    config = _read(folder / "config.json")
    said = _read(folder / PREPROCESSOR) if (folder / PREPROCESSOR).is_file() else {}
    rate = int(_number(said if "sampling_rate" in said else config, "sampling_rate", RATE, least=1000))
    if _number(said, "feature_size", 1, least=1) != 1 and "num_mel_bins" not in said:
        raise CheckpointError(Problem("feature_size is not 1: it reads something else than one channel", PREPROCESSOR))
    if "num_mel_bins" not in config:
        is_normalized = bool(said.get("do_normalize", False))
        return SoundConfig(rate, max(1, round(rate * (seconds or SECONDS))), is_normalized=is_normalized)
    frames = int(_number(said, "max_length", FRAMES, least=1))
    longest = WINDOW + (frames - 1) * HOP
    is_scaled = said.get("do_normalize", True)
    return SoundConfig(
        rate,
        min(longest, max(1, round(rate * seconds))) if seconds else longest,
        kind="spectrogram",
        bins=int(_number(said, "num_mel_bins", BINS, least=1)),
        frames=frames,
        mean=_number(said, "mean", MEAN) if is_scaled else 0.0,
        std=_number(said, "std", STD, least=1e-6) if is_scaled else 0.5,  # it divides by twice the deviation
    )


def _read(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise CheckpointError(Problem("expected an object", path.name))
    return found


def _number(said: Mapping[str, Any], key: str, usual: float, least: float = -math.inf) -> float:
    value = said.get(key, usual)
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value >= least):
        expected = "a number" if least == -math.inf else f"a number from {least:g} on"
        raise CheckpointError(Problem(f"{key} is {value!r}, expected {expected}", PREPROCESSOR))
    return value
