"""What is told of a landed recording, and whether it can be trained on.

Not here: how a recording is read, which the models' part knows, and how likenesses are compared, see `images`.
"""

import hashlib
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from graftwork.data.images import DIGEST_BYTES, LIKENESS_BITS
from graftwork.data.quarantine import BadRow
from graftwork.models.serving.sounds import UnusableSound, read_sound, resample

RATE = 8_000  # that likenesses are told at
WINDOW = 256
TIMES, BANDS = 17, 17
LOWEST_HZ, HIGHEST_HZ = 150.0, 3_400.0
# Of the loudest cell, what is no louder than this tells nothing; a rise must be so large to be one. Of 112 words that
# espeak-ng says in 14 voices, copies at 8 and 16 kHz, 26 dB softer, in OGG, MP3 and u-law agree in 0.95 of the bits
# or more, other words in 0.86 at most, the same word in another of its voices in up to 0.98.
FLOOR, RISE = 1e-3, 0.05


@dataclass(frozen=True)
class SoundFacts:
    """What a manifest keeps of a recording. rate, channels: as it landed.

    reference: names it, equal for equal files. likeness: 256 bits that nearly agree for nearly the same recording.
    converted: what the rules did to it, sorted.
    """

    reference: str
    seconds: float
    rate: int
    channels: int
    likeness: bytes
    converted: tuple[str, ...]


def inspect_sound(data: bytes, column: str) -> SoundFacts | BadRow:
    """The facts about the recording in these bytes, or why it can't be trained on; all of it is decoded."""
    try:
        sound, converted = read_sound(data)
    except UnusableSound as error:
        return BadRow(column, error.reason, error.value)
    return SoundFacts(
        reference=hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest(),
        seconds=len(sound.samples) / sound.rate,
        rate=sound.rate,
        channels=sound.channels,
        likeness=_likeness(resample(sound.samples, sound.rate, RATE)),
        converted=tuple(sorted(converted)),
    )


def _likeness(samples: np.ndarray) -> bytes:
    """A bit for each two neighbours in time and pitch: does the energy rise more in the higher band than in the lower?

    Method: robust audio hashing (Haitsma and Kalker 2002), over the whole of the recording in 16 steps.
    """
    cells = np.log(_energies(samples) + FLOOR)
    rises = np.diff(np.diff(cells, axis=0), axis=1)
    bits = np.packbits(rises > RISE)
    assert 8 * len(bits) == LIKENESS_BITS
    return bits.tobytes()


def _energies(samples: np.ndarray) -> np.ndarray:
    """(times, bands): energy in equal parts of the recording, in bands of equal width to the ear; the largest is 1."""
    starts = np.linspace(0, max(0, len(samples) - WINDOW), 4 * TIMES).astype(int)
    padded = np.pad(samples, (0, max(0, WINDOW - len(samples))))
    frames = np.stack([padded[start : start + WINDOW] for start in starts]) * np.hanning(WINDOW)
    power = abs(np.fft.rfft(frames, axis=1)) ** 2
    power = power.reshape(TIMES, 4, -1).mean(axis=1)
    edges = np.geomspace(LOWEST_HZ, HIGHEST_HZ, BANDS + 1) * WINDOW / RATE
    places = np.arange(power.shape[1])
    bands = [power[:, (places >= low - 0.5) & (places <= high + 0.5)].mean(axis=1) for low, high in pairwise(edges)]
    energies = np.stack(bands, axis=1)
    return energies / energies.max()
