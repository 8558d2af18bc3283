"""Recordings, as numbers. They are decoded when a batch is made of them, so that a set of any size fits into memory."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, SupportsBytes

import numpy as np
import torch
from torch import Tensor

from .config import SPECTROGRAM, SoundConfig
from .recordings import Sound, UnusableSound, read_header, read_sound, resample, resampled_length

__all__ = ["FittedSound", "Sound", "SoundEncoder", "SoundRow", "UnusableSound", "log_mel", "read_sound", "resample"]

# The spectrogram of Audio Spectrogram Transformers (Gong et al. 2021), who took it from Kaldi: windows of 25 ms each
# 10 ms, at 16 kHz.
WINDOW, STEP, FFT = 400, 160, 512
LOWEST_HZ = 20
SMALLEST = 1.192092955078125e-07
EPSILON = 1e-7  # what Wav2Vec2FeatureExtractor adds to the variance


class SoundRow:
    """A recording that is read when it is needed. tokens: what it counts in a batch."""

    def __init__(self, data: SupportsBytes, tokens: int) -> None:
        self.data, self.tokens = data, tokens

    def __len__(self) -> int:
        return self.tokens


@dataclass(frozen=True, eq=False)
class FittedSound:
    """What augmentation has made of a row: samples, or (frames, bins) of a spectrogram. tokens: as of the row."""

    values: np.ndarray
    tokens: int

    def __len__(self) -> int:
        return self.tokens


class SoundEncoder:
    """Encoded recordings (WAV, FLAC, …) to rows, and rows to batches of samples or of spectrograms."""

    def __init__(self, sound: SoundConfig) -> None:
        self.sound = sound
        self.max_tokens = sound.tokens

    @property
    def facts(self) -> dict[str, Any]:
        """What decides, beside a row's own content, what the body is given of it."""
        return {"sound": asdict(self.sound)}

    def encode(self, inputs: Sequence[SupportsBytes]) -> list[SoundRow]:
        """A row for each encoded recording, of which only the header is read. Raises UnusableSound."""
        return [SoundRow(data, self._tokens(bytes(data))) for data in inputs]

    def content(self, row: SoundRow) -> bytes:
        """What rows that are the same have in common: their bytes."""
        return bytes(row.data)

    def fit(self, row: SoundRow) -> np.ndarray:
        """The samples of a row at the model's rate, float32, no more than it reads; not yet normalised."""
        return fit_sound(bytes(row.data), self.sound)

    def pad(self, rows: Sequence[SoundRow | FittedSound | np.ndarray], length: int) -> tuple[Tensor, Tensor]:
        """(rows, samples) of `length` tokens or (rows, frames, bins), float32, and the mask of what is no padding.

        rows: recordings, or the samples or spectrograms that augmentation has made of them.
        """
        values = [self._values(row) for row in rows]
        if self.sound.kind == SPECTROGRAM:
            shown = [log_mel(each, self.sound) if each.ndim == 1 else each for each in values]
            spectrograms = torch.from_numpy(np.stack(shown)).sub_(self.sound.mean).div_(2 * self.sound.std)
            return spectrograms, torch.ones(len(rows), self.sound.frames, dtype=torch.long)
        samples = torch.zeros(len(rows), length * self.sound.token_samples)
        mask = torch.zeros(samples.shape, dtype=torch.long)
        for number, each in enumerate(values):
            samples[number, : len(each)] = torch.from_numpy(normalize(each) if self.sound.is_normalized else each)
            mask[number, : len(each)] = 1
        return samples, mask

    def _tokens(self, data: bytes) -> int:
        header = read_header(data)
        return self.sound.tokens_of(resampled_length(header.frames, header.rate, self.sound.rate))

    def _values(self, row: SoundRow | FittedSound | np.ndarray) -> np.ndarray:
        if isinstance(row, np.ndarray):
            return row
        return row.values if isinstance(row, FittedSound) else self.fit(row)


def fit_sound(data: bytes, sound: SoundConfig) -> np.ndarray:
    """The samples of an encoded recording at the model's rate, and of more than it reads the middle."""
    samples = resample(read_sound(data)[0], sound.rate)
    start = max(0, len(samples) - sound.max_samples) // 2
    return samples[start : start + sound.max_samples]


def normalize(samples: np.ndarray) -> np.ndarray:
    """The samples with a mean of 0 and a variance of 1."""
    return (samples - samples.mean()) / np.sqrt(samples.var() + EPSILON)


def log_mel(samples: np.ndarray, sound: SoundConfig) -> np.ndarray:
    """(frames, bins) float32, the logarithm of each band's power; what is missing at the end is 0."""
    from transformers.audio_utils import spectrogram, window_function

    found = spectrogram(
        samples,
        window_function(WINDOW, "hann", periodic=False),
        frame_length=WINDOW,
        hop_length=STEP,
        fft_length=FFT,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=_filters(sound.rate, sound.bins),
        log_mel="log",
        mel_floor=SMALLEST,
        remove_dc_offset=True,
    ).T[: sound.frames]
    return np.pad(found.astype(np.float32), ((0, sound.frames - len(found)), (0, 0)))


def heard_frames(samples: int, sound: SoundConfig) -> int:
    """How many frames of a spectrogram so many samples fill."""
    return min(sound.frames, 1 + (samples - WINDOW) // STEP)


@lru_cache(maxsize=4)
def _filters(rate: int, bins: int) -> np.ndarray:
    from transformers.audio_utils import mel_filter_bank

    with warnings.catch_warnings():  # the narrowest of 128 bands holds no frequency, as in the checkpoints' training
        warnings.simplefilter("ignore", UserWarning)
        return mel_filter_bank(
            FFT // 2 + 1, bins, LOWEST_HZ, rate // 2, rate, mel_scale="kaldi", triangularize_in_mel_space=True
        )
