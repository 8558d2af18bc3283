"""Recordings become the numbers that transformers' own feature extractors make of them, and are counted unread."""

import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ASTFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from graftwork.errors import CheckpointError
from graftwork.models.serving.config import SPECTROGRAM, SoundConfig
from graftwork.models.serving.inference import canonical_length
from graftwork.models.serving.recordings import Sound, UnusableSound, resample, resampled_length
from graftwork.models.serving.sounds import FittedSound, SoundEncoder
from graftwork.models.sound_settings import SECONDS, read_sound_settings

RATE = 16_000
TOKEN = 320


def speech(samples: int, seed: int = 0) -> np.ndarray:
    """Noise that swells, float32."""
    generator = np.random.default_rng(seed)
    return (generator.normal(0.01, 0.1, samples) * np.linspace(0.1, 1, samples)).astype(np.float32)


def save(samples: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str = "FLOAT") -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=kind, subtype=subtype)
    return stream.getvalue()


def waveform(seconds: float = 2.0, **how: bool) -> SoundConfig:
    return SoundConfig(RATE, round(seconds * RATE), **how)


def pictured(frames: int = 200) -> SoundConfig:
    return SoundConfig(RATE, 400 + (frames - 1) * 160, SPECTROGRAM, bins=128, frames=frames, mean=-4.27, std=4.57)


def pad(config: SoundConfig, *recordings: bytes) -> tuple[torch.Tensor, torch.Tensor]:
    encoder = SoundEncoder(config)
    rows = encoder.encode(recordings)
    return encoder.pad(rows, min(canonical_length(max(map(len, rows))), encoder.max_tokens))


@pytest.mark.parametrize("is_normalized", [True, False])
def test_waveforms_are_those_of_the_feature_extractor(is_normalized: bool) -> None:
    """Each row by itself, zeros where it is padded, and the mask of its samples."""
    written = [speech(n, n) for n in (16_000, 9_999, 400)]
    extractor = Wav2Vec2FeatureExtractor(do_normalize=is_normalized, return_attention_mask=True)
    samples, mask = pad(waveform(is_normalized=is_normalized), *map(save, written))
    wanted = extractor(
        written, sampling_rate=RATE, padding="max_length", max_length=samples.shape[1], return_tensors="pt"
    )
    assert samples.dtype == torch.float32 and mask.dtype == torch.int64
    assert samples.shape == mask.shape == (3, 64 * TOKEN)
    assert torch.allclose(samples, wanted["input_values"], atol=1e-5)
    assert (mask == wanted["attention_mask"]).all()


@pytest.mark.parametrize("seconds", [0.025, 0.7, 1.0, 3.0])
def test_spectrograms_are_those_of_the_feature_extractor(seconds: float) -> None:
    """Bit for bit, shorter and longer than there is room for; what is too long is cut to its middle."""
    config, written = pictured(100), speech(round(seconds * RATE))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an empty band
        extractor = ASTFeatureExtractor(max_length=100, mean=config.mean, std=config.std)
    start = max(0, len(written) - config.max_samples) // 2
    read = written[start : start + config.max_samples]
    found, mask = pad(config, save(written))
    wanted = extractor(read, sampling_rate=RATE, return_tensors="pt")["input_values"]
    assert found.dtype == torch.float32 and found.shape == (1, 100, 128)
    assert (found == wanted).all()
    assert mask.shape == (1, 100) and mask.all()


def test_a_row_is_the_same_whatever_is_beside_it() -> None:
    """Bit for bit, as far as it reaches."""
    alone, _ = pad(waveform(), save(speech(9_000)))
    beside, _ = pad(waveform(), save(speech(9_000)), save(speech(30_000, 1)))
    assert (beside[0, : alone.shape[1]] == alone[0]).all() and not beside[0, alone.shape[1] :].any()


def test_what_is_too_long_is_cut_to_its_middle() -> None:
    """As many samples left out before as behind, but for one."""
    written = speech(50_001)
    encoder = SoundEncoder(waveform(1.0))
    (row,) = encoder.encode([save(written)])
    assert (encoder.fit(row) == written[17_000:33_000]).all()
    assert len(row) == encoder.max_tokens == 50


@pytest.mark.parametrize("rate", [1_000, 8_000, 11_025, 22_050, 44_100, 48_000, 192_000])
def test_another_rate_is_the_same_sound(rate: int) -> None:
    """A tone below both limits is that tone at the model's rate; so does scipy have it, but for its own filter."""
    frequency = 200
    time_s, wanted_s = np.arange(rate) / rate, np.arange(RATE) / RATE
    tone = Sound(np.sin(2 * np.pi * frequency * time_s).astype(np.float32), rate)
    found = resample(tone, RATE)
    middle = slice(RATE // 4, -RATE // 4)
    assert found.dtype == np.float32 and found.shape == (RATE,)
    assert np.abs(found - np.sin(2 * np.pi * frequency * wanted_s))[middle].max() < 2e-3
    assert np.abs(found - scipy.signal.resample(tone.samples, RATE))[middle].max() < 5e-3
    assert (found == resample(tone, RATE)).all() and resample(tone, rate) is tone.samples


@settings(max_examples=60, deadline=None)
@given(st.integers(1_200, 30_000), st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100]), st.data())
def test_a_row_counts_what_its_samples_fill(frames: int, rate: int, draw: st.DataObject) -> None:
    """Its tokens, told by the header alone, hold exactly the samples that decoding gives, whatever format and rate."""
    how = draw.draw(
        st.sampled_from([("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")])
    )
    encoder = SoundEncoder(waveform(1.0))
    (row,) = encoder.encode([save(speech(frames), rate, *how)])
    samples = encoder.fit(row)
    assert len(samples) == min(resampled_length(frames, rate, RATE), RATE)
    assert len(row) == -(-len(samples) // TOKEN) <= encoder.max_tokens
    padded, mask = encoder.pad([row], len(row))
    assert padded.shape == (1, len(row) * TOKEN) and int(mask.sum()) == len(samples)


def test_nothing_is_decoded_before_a_batch_is_made() -> None:
    """A row of a WAV with a NaN within is counted; it is refused when it is read."""
    spoiled = speech(8_000)
    spoiled[100] = np.nan
    encoder = SoundEncoder(waveform())
    (row,) = encoder.encode([save(spoiled)])
    assert len(row) == 25
    with pytest.raises(UnusableSound, match="no numbers"):
        encoder.pad([row], 32)
    with pytest.raises(UnusableSound, match="HTML"):
        encoder.encode([b"<html>"])


def test_augmented_rows_are_padded_as_others_are() -> None:
    """Samples, as an array or with their tokens, and a spectrogram that was made of them."""
    encoder = SoundEncoder(waveform())
    (row,) = encoder.encode([save(speech(5_000))])
    samples = encoder.fit(row)
    for other in (samples, FittedSound(samples, len(row))):
        assert all((a == b).all() for a, b in zip(encoder.pad([row], 16), encoder.pad([other], 16), strict=True))
    pictures = SoundEncoder(pictured())
    assert (pictures.pad([samples], 0)[0] == pictures.pad(pictures.encode([save(speech(5_000))]), 0)[0]).all()


def test_what_rows_have_in_common_is_their_bytes_and_the_settings() -> None:
    data = save(speech(5_000))
    encoder = SoundEncoder(waveform())
    assert encoder.content(encoder.encode([data])[0]) == data
    assert encoder.facts == SoundEncoder(waveform()).facts != SoundEncoder(waveform(1.0)).facts
    assert json.loads(json.dumps(encoder.facts)) == encoder.facts


def test_a_silent_middle_is_zeros() -> None:
    """Nothing is divided by a variance of zero."""
    written = np.concatenate([speech(20_000), np.zeros(20_000), speech(20_000)]).astype(np.float32)
    samples, mask = pad(waveform(1.0), save(written))
    assert not samples.any() and mask.all()


@pytest.fixture
def checkpoint(tmp_path: Path):
    def write(**said: object) -> Path:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
        return tmp_path

    return write


def test_settings_of_saved_feature_extractors_are_read(tmp_path: Path) -> None:
    """What transformers itself writes."""
    Wav2Vec2FeatureExtractor(sampling_rate=8_000, do_normalize=False).save_pretrained(tmp_path)
    assert read_sound_settings(tmp_path, {}) == SoundConfig(8_000, round(SECONDS * 8_000), "waveform", False, False)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(tmp_path)
    assert read_sound_settings(tmp_path, {}, 1.5) == SoundConfig(16_000, 24_000, "waveform", True, True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        ASTFeatureExtractor(num_mel_bins=64, max_length=128, mean=-6.8, std=5.5).save_pretrained(tmp_path)
    found = read_sound_settings(tmp_path, {})
    assert found == SoundConfig(16_000, 400 + 127 * 160, "spectrogram", False, False, 64, 128, -6.8, 5.5)
    assert read_sound_settings(tmp_path, {}, 0.5).max_samples == 8_000
    WhisperFeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="WhisperFeatureExtractor"):
        read_sound_settings(tmp_path, {})


def test_a_spectrogram_that_is_not_normalised_is_left_as_it_is(checkpoint) -> None:
    folder = checkpoint(feature_extractor_type="ASTFeatureExtractor", max_length=50, do_normalize=False)
    config = read_sound_settings(folder, {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        extractor = ASTFeatureExtractor(max_length=50, do_normalize=False)
    written = speech(6_000)
    assert (pad(config, save(written))[0] == extractor(written, RATE, "pt")["input_values"]).all()


def test_without_a_file_the_model_decides(tmp_path: Path) -> None:
    """A waveform at 16 kHz, with a mask where the first layers are normalised each; a spectrogram for its model."""
    assert read_sound_settings(tmp_path, {}) == SoundConfig(RATE, round(SECONDS * RATE), has_mask=False)
    assert read_sound_settings(tmp_path, {"feat_extract_norm": "layer"}).has_mask
    found = read_sound_settings(tmp_path, {"model_type": "audio-spectrogram-transformer"})
    assert (found.kind, found.bins, found.frames) == ("spectrogram", 128, 1024)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sampling_rate", 0),
        ("sampling_rate", "16000"),
        ("sampling_rate", True),
        ("feature_size", 2),
        ("padding_value", 1.0),
        ("do_normalize", "yes"),
        ("return_attention_mask", 1),
        ("num_mel_bins", 0),
        ("max_length", -1),
        ("mean", "low"),
        ("std", 0),
        ("std", float("nan")),
    ],
)
def test_odd_settings_are_refused_by_name(checkpoint, key: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=f"preprocessor_config.json: {key} is "):
        read_sound_settings(checkpoint(**{"feature_extractor_type": "ASTFeatureExtractor", key: value}), {})


def test_odd_settings_are_told_together(checkpoint) -> None:
    """Every one of them, and a length that can't be; a spectrogram at another rate; what is no JSON."""
    with pytest.raises(CheckpointError) as found:
        read_sound_settings(checkpoint(sampling_rate=5, feature_size=2), {}, seconds=0.001)
    assert len(found.value.problems) == 3
    with pytest.raises(CheckpointError, match="sampling_rate is 8000, expected 16000"):
        read_sound_settings(checkpoint(num_mel_bins=64, sampling_rate=8_000), {})
    folder = checkpoint()
    for text in ("{", "[]"):
        (folder / "preprocessor_config.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"preprocessor_config.json: (no JSON|expected names)"):
            read_sound_settings(folder, {})
