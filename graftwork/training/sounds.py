"""Augmentation of sounds: with noise, louder or softer, moved in time, with a part silenced, anew in each epoch."""

from dataclasses import dataclass

import numpy as np

from graftwork.models.serving.sounds import SoundEncoder, SoundRow


@dataclass(frozen=True)
class SoundChange:
    """A recording heard another way, as long as it was.

    noise: the loudest noise, as a share of the recording's own loudness. gain: the most that it becomes louder or
    softer, in decibels. shift: the most that it is moved in time, and mask: the largest part that is silenced, as
    shares of its length. Method: the latter as of SpecAugment's time masks (Park et al. 2019).
    """

    encoder: SoundEncoder
    noise: float = 0.0
    gain: float = 0.0
    shift: float = 0.0
    mask: float = 0.0

    def __call__(self, index: int, row: SoundRow, generator: np.random.Generator) -> SoundRow:  # noqa: ARG002
        """A row that holds its samples."""
        # All is drawn whatever is asked for, so that one option does not change what another one does.
        loudness, decibels, places, share, start = generator.random(5)
        samples = self.encoder.fit(row)
        hiss = generator.standard_normal(len(samples), dtype=np.float32)
        size = len(samples)
        changed = _moved(samples, round(self.shift * size * (2 * places - 1)))
        hidden = round(self.mask * share * size)
        changed[round(start * (size - hidden)) :][:hidden] = 0
        changed += self.noise * loudness * np.sqrt(np.mean(samples**2)) * hiss
        changed *= 10 ** (self.gain * (2 * decibels - 1) / 20)
        return SoundRow(row.data, row.tokens, changed)


def _moved(samples: np.ndarray, places: int) -> np.ndarray:
    """A copy that begins so many samples later, or earlier; silence comes in where nothing was."""
    moved = np.zeros_like(samples)
    if places >= 0:
        moved[places:] = samples[: len(samples) - places]
    else:
        moved[:places] = samples[-places:]
    return moved
