"""From the bytes of a sound file to the one channel that is trained on and predicted, or to why there is none.

What a recording becomes is settled by rule, once, and each rule that changed something is named: its channels' mean, as
numbers from -1 to 1, at its own rate; `resample` brings it to the model's. Nothing is guessed: a file whose length
differs from what its header says is refused, and so are channels that cancel each other out, of which the mean would
be silence. soundfile and soxr are imported where they are needed: nothing else of a bundle asks for them.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from .sound_files import UnusableSound, check_file, damaged, untold

# What both the filters of Wav2Vec2 and a frame of a spectrogram reach over: 400 samples at 16 kHz.
MIN_MS = 25
MAX_SECONDS = 600
# Of all channels together: ten minutes of stereo at 48 kHz, 230 MB while they are decoded.
MAX_SAMPLES = 60_000_000
MIN_RATE, MAX_RATE = 1_000, 768_000
MAX_CHANNELS = 8
# Decoders of lossy files go somewhat beyond 1, which is cut off; beyond this, the numbers were never of that scale.
MAX_LEVEL = 4.0
# Below one step of 16 bits from the lowest to the highest sample, there is nothing to hear.
SILENCE = 2.0**-15
# Of the level that the loudest channel alone would leave in the mean.
MIN_MEAN_LEVEL = 0.01
# A peak touches the limit; what was cut off there stays at it, three samples and more.
CLIPPED_RUN, CLIPPED_SHARE = 3, 0.001

# libsndfile reads some twenty formats, many with decoders that few eyes have seen; files reach these alone.
FORMATS = {"WAV": ("WAV", "WAVEX"), "FLAC": ("FLAC",), "OGG": ("OGG",), "MP3": ("MP3",)}
DEPTHS = {
    "PCM_S8": "8 bits",
    "PCM_U8": "8 bits",
    "PCM_24": "24 bits",
    "PCM_32": "32 bits",
    "FLOAT": "float",
    "DOUBLE": "float",
    "ULAW": "mu-law",
    "ALAW": "A-law",
}
PLAIN = ("PCM_16", "VORBIS", "OPUS", "MPEG_LAYER_III")
# The highest sample that there is, where it isn't that of 16 bits.
FULL_SCALE = {"8 bits": 127 / 128, "mu-law": 32124 / 32768, "A-law": 32256 / 32768}


@dataclass(frozen=True)
class SoundHeader:
    """What a file says before it is decoded. frames: samples of each channel."""

    kind: str
    frames: int
    rate: int
    channels: int


@dataclass(frozen=True, eq=False)
class Sound:
    """One channel of float32 from -1 to 1, and its rate in Hz. channels: how many its file has."""

    samples: np.ndarray
    rate: int
    channels: int = 1


def read_header(data: bytes) -> SoundHeader:
    """How long the recording is, without decoding it. Raises UnusableSound."""
    with _opened(data) as (header, _):
        return header


def read_sound(data: bytes) -> tuple[Sound, set[str]]:
    """The recording, and the words for what the rules did to it or found. Raises UnusableSound."""
    with _opened(data) as (header, file):
        try:
            samples = file.read(dtype="float32", always_2d=True)
        except Exception as error:  # whatever damaged bytes lead libsndfile into
            raise damaged(header.kind, _words(error)) from error
        subtype = str(file.subtype)
    if len(samples) != header.frames:
        message = f"its header says {header.frames:,} samples, the file has {len(samples):,}"
        raise damaged(header.kind, message)
    converted = {DEPTHS[subtype]} if subtype in DEPTHS else set()
    _check_samples(samples)
    np.clip(samples, -1, 1, out=samples)
    if _clipped_share(samples, FULL_SCALE.get(DEPTHS.get(subtype, ""), 32767 / 32768)) > CLIPPED_SHARE:
        converted.add("clipped")
    if header.channels > 1:
        converted.add("stereo" if header.channels == 2 else f"{header.channels} channels")
    return Sound(_mean(samples), header.rate, header.channels), converted


def resample(sound: Sound, rate: int) -> np.ndarray:
    """The samples at another rate, as many as `resampled_length` says; the same ones at the same rate."""
    import soxr

    if rate == sound.rate:
        return sound.samples
    wanted = resampled_length(len(sound.samples), sound.rate, rate)
    samples = soxr.resample(sound.samples, sound.rate, rate, quality="HQ")[:wanted]
    return np.pad(samples, (0, wanted - len(samples)))


def resampled_length(frames: int, rate: int, wanted: int) -> int:
    """How many samples those of one rate are at another one, rounded; none is left out of the reckoning by floats."""
    return (2 * frames * wanted + rate) // (2 * rate)


@contextmanager
def _opened(data: bytes) -> Iterator[tuple[SoundHeader, Any]]:
    import soundfile

    kind = check_file(data)
    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except Exception as error:  # whatever damaged bytes lead libsndfile into
        raise damaged(kind, _words(error)) from error
    with file:
        header = SoundHeader(kind, file.frames, file.samplerate, file.channels)
        if file.format not in FORMATS[kind] or file.subtype not in (*PLAIN, *DEPTHS):
            raise UnusableSound(f"a codec that isn't read here, in {kind}", f"{file.format}, {file.subtype}")
        _check_header(header)
        yield header, file


def _words(error: Exception) -> str:
    """What libsndfile says, without the object in memory that it names by its address."""
    return str(getattr(error, "error_string", "")) or f"its parts don't fit together ({type(error).__name__})"


def _check_header(header: SoundHeader) -> None:
    if not MIN_RATE <= header.rate <= MAX_RATE:
        raise UnusableSound(f"a sample rate outside {MIN_RATE:,} to {MAX_RATE:,} Hz", f"{header.rate:,} Hz")
    if not 1 <= header.channels <= MAX_CHANNELS:
        raise UnusableSound(f"more than {MAX_CHANNELS} channels", str(header.channels))
    if header.frames <= 0:
        raise UnusableSound("no samples")
    if header.frames >= 1 << 62:
        raise untold(header.kind)
    length = f"{header.frames:,} samples at {header.rate:,} Hz"
    if 1000 * header.frames < MIN_MS * header.rate:
        raise UnusableSound(f"shorter than {MIN_MS} ms", length)
    if header.frames > MAX_SECONDS * header.rate:
        raise UnusableSound(f"longer than {MAX_SECONDS} s", length)
    if header.frames * header.channels > MAX_SAMPLES:
        raise UnusableSound(f"more than {MAX_SAMPLES:,} samples", f"{length} in {header.channels} channels")


def _check_samples(samples: np.ndarray) -> None:
    """samples: (frames, channels)."""
    low, high = float(samples.min()), float(samples.max())
    if not np.isfinite([low, high]).all():
        raise UnusableSound("samples that are no numbers (NaN or infinite)", f"{low:g} to {high:g}")
    if max(-low, high) > MAX_LEVEL:
        raise UnusableSound("numbers outside -1 to 1", f"{low:g} to {high:g}")
    if np.ptp(samples, axis=0).max() < SILENCE:
        raise UnusableSound("silence", f"all samples are {low:g}" if low == high else f"{low:g} to {high:g}")


def _clipped_share(samples: np.ndarray, limit: float) -> float:
    """Of the samples of the worst channel, the share that stays at the limit."""
    worst = 0
    for side in (samples >= limit, samples <= -limit):
        runs = side[2:] & side[1:-1] & side[:-2]
        worst = max(worst, int(runs.sum(axis=0).max(initial=0)))
    return worst / len(samples)


def _mean(samples: np.ndarray) -> np.ndarray:
    if samples.shape[1] == 1:
        return np.ascontiguousarray(samples[:, 0])
    mean = samples.mean(axis=1, dtype=np.float32)
    alone = float(samples.std(axis=0).max()) / samples.shape[1]
    left = float(mean.std()) / alone
    if left < MIN_MEAN_LEVEL:
        raise UnusableSound("the channels cancel each other out", f"{left:.1%} of their level is left in their mean")
    return mean
