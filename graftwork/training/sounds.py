"""Augmentation of recordings: louder, noisier, moved and with gaps, anew in each epoch."""

from dataclasses import dataclass

import numpy as np

from graftwork.models.serving.config import SPECTROGRAM, SoundConfig
from graftwork.models.serving.sounds import FittedSound, SoundRow, fit_sound, heard_frames, log_mel


@dataclass(frozen=True)
class SoundChange:
    """A recording changed at random, as long as it was and as the model reads it.

    noise: the most white noise that is added, as a share of the recording's own level (root of the mean square). gain:
    the most decibels that it gets louder or quieter, of which a model that normalises hears nothing. shift: the largest
    share of its length by which it is moved; what enters is silence. mask: the largest share of its time that is
    blanked in one piece, and of a spectrogram of its bands. Method: SpecAugment (Park et al. 2019), without warping.
    """

    sound: SoundConfig
    noise: float = 0.0
    gain: float = 0.0
    shift: float = 0.0
    mask: float = 0.0

    def __call__(self, index: int, row: SoundRow, generator: np.random.Generator) -> FittedSound:  # noqa: ARG002
        # All is drawn whatever is asked for, so that one option does not change what another one does.
        level, decibels, moved, *gaps = generator.random(7)
        samples = fit_sound(bytes(row.data), self.sound)
        share = self.noise * level
        if self.shift:
            samples = shifted(samples, round(self.shift * (2 * moved - 1) * len(samples)))
        if share:
            strength = share * float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
            samples = samples + np.float32(strength) * generator.standard_normal(len(samples), dtype=np.float32)
        if self.gain:
            samples = samples * np.float32(10 ** (self.gain * (2 * decibels - 1) / 20))
        return FittedSound(self._masked(samples, gaps), len(row))

    def _masked(self, samples: np.ndarray, gaps: list[float]) -> np.ndarray:
        """gaps: how large and where, in time and then in frequency, each from 0 to 1."""
        if self.sound.kind == SPECTROGRAM:
            values, heard = log_mel(samples, self.sound), heard_frames(len(samples), self.sound)
        else:
            values, heard = samples, len(samples)
        if self.mask:
            values = np.array(values)
            blank = self.sound.mean if self.sound.kind == SPECTROGRAM else 0
            values[_gap(heard, self.mask * gaps[0], gaps[1])] = blank
            if self.sound.kind == SPECTROGRAM:
                values[:heard, _gap(self.sound.bins, self.mask * gaps[2], gaps[3])] = blank
        return values


def shifted(samples: np.ndarray, by: int) -> np.ndarray:
    """The samples `by` places later, or earlier where it is negative; what enters is silence."""
    moved = np.zeros_like(samples)
    if by >= 0:
        moved[by:] = samples[: len(samples) - by]
    else:
        moved[:by] = samples[-by:]
    return moved


def _gap(size: int, share: float, place: float) -> slice:
    width = round(share * size)
    start = round(place * (size - width))
    return slice(start, start + width)
