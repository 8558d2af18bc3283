"""From the bytes of a sound file to the samples that are trained on and predicted, or to why there are none.

Several channels become their mean, any rate becomes the checkpoint's, and of a long recording the middle is taken.
Sounds are decoded when a batch is made of them, so that a set of any size fits into memory.
"""

import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, SupportsBytes

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from .config import SoundConfig

MIN_SECONDS, MAX_SECONDS = 0.01, 600
RATES = (1_000, 768_000)
MAX_CHANNELS = 8
# Of the samples, so many at full scale are heard as distortion.
CLIPPED_SHARE, FULL_SCALE = 1e-3, 0.999
EXPECTED = "expected WAV, FLAC, OGG or MP3"
# What arrives in the place of sounds, by how it starts.
LOOKS = {
    b"\xff\xd8\xff": "a picture (JPEG)",
    b"\x89PNG": "a picture (PNG)",
    b"GIF8": "a picture (GIF)",
    b"%PDF": "PDF",
    b"PK\x03\x04": "zip",
    b"\x1f\x8b": "gzip",
    b"7z\xbc\xaf": "7z",
    b"FORM": "AIFF or another IFF file",
    b".snd": "a Sun AU file",
    b"\x30\x26\xb2\x75": "Windows Media",
    b"\x1aE\xdf\xa3": "Matroska or WebM",
    b"version https://git-lfs": "a pointer of Git LFS (git lfs pull brings the file)",
}
SHOWN_BYTES = 80
# How ASTFeatureExtractor takes sounds apart, in samples whatever their rate.
WINDOW, HOP, FFT, EMPHASIS, FLOOR = 400, 160, 512, 0.97, 1.192092955078125e-07
LOWEST_HZ = 20

log = logging.getLogger(__name__)


class UnusableSound(ValueError):
    """Why the bytes can't be trained on; the reason is one of few and can be counted, the value says more."""

    def __init__(self, reason: str, value: str = "") -> None:
        super().__init__(f"{reason}: {value}" if value else reason)
        self.reason = reason
        self.value = value


@dataclass(frozen=True)
class Sound:
    """(samples,) float32 between -1 and 1, so many a second. channels: that it had."""

    samples: np.ndarray
    rate: int
    channels: int


@dataclass(frozen=True)
class SoundHeader:
    """What a file says of itself before it is decoded. frames: samples of each channel."""

    frames: int
    rate: int
    channels: int


def read_sound(data: bytes) -> tuple[Sound, set[str]]:
    """The recording in these bytes, and the rules that changed something. Raises UnusableSound."""
    _check_kind(data)
    with _opened(data) as file:
        header = _checked_header(file)
        channels = _decoded(file, header)
    if not np.isfinite(channels).all():
        raise UnusableSound("samples that are no numbers (NaN or infinite)")
    samples = channels.mean(axis=1, dtype=np.float32)
    if np.ptp(channels) == 0:
        raise UnusableSound("silence: all samples are the same")
    if np.ptp(samples) == 0:
        raise UnusableSound("its channels cancel each other out", f"{header.channels} channels")
    words = {"several channels"} if header.channels > 1 else set()
    if (abs(channels) >= FULL_SCALE).mean() > CLIPPED_SHARE:
        words.add("clipped")  # heard as it is: nobody knows what was there
    return Sound(samples, header.rate, header.channels), words


def read_header(data: bytes) -> SoundHeader:
    """What the file says of itself. Raises UnusableSound if it can't be a recording that is read here."""
    _check_kind(data)
    with _opened(data) as file:
        return _checked_header(file)


def resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """(samples,) float32 of `rate` a second as those of another rate; the same where that is no other."""
    return samples if rate == wanted else soxr.resample(samples, rate, wanted, quality="HQ")


class SoundRow:
    """A recording that is read when it is needed, or what augmentation has made of it. tokens: what it counts."""

    def __init__(self, data: SupportsBytes, tokens: int, samples: np.ndarray | None = None) -> None:
        self.data, self.tokens, self.samples = data, tokens, samples

    def __len__(self) -> int:
        return self.tokens


class SoundEncoder:
    """Encoded recordings to rows, and rows to batches of samples or spectrograms."""

    def __init__(self, sound: SoundConfig) -> None:
        self.sound = sound
        self.max_tokens = sound.tokens

    @property
    def facts(self) -> dict[str, Any]:
        """What decides, beside a row's own content, what the body is given of it."""
        return {"sound": asdict(self.sound)}

    def encode(self, inputs: Sequence[SupportsBytes]) -> list[SoundRow]:
        """A row for each encoded recording; nothing but its header is read yet."""
        headers = [read_header(bytes(data)) for data in inputs]
        changed = sum(header.rate != self.sound.rate for header in headers)
        if changed:
            log.info("%d of %d sounds are brought to %d Hz", changed, len(headers), self.sound.rate)
        return [SoundRow(data, self._tokens(header)) for data, header in zip(inputs, headers, strict=True)]

    def _tokens(self, header: SoundHeader) -> int:
        samples = -(-header.frames * self.sound.rate // header.rate)
        return max(1, -(-min(samples, self.sound.max_samples) // self.sound.token_samples))

    def content(self, row: SoundRow) -> bytes:
        """What rows that are the same have in common: their bytes."""
        return bytes(row.data)

    def fit(self, row: SoundRow) -> np.ndarray:
        """(samples,) float32 at the checkpoint's rate: of a long recording the middle."""
        if row.samples is not None:
            return row.samples
        sound, _ = read_sound(bytes(row.data))
        samples = resample(sound.samples, sound.rate, self.sound.rate)
        most = min(self.sound.max_samples, row.tokens * self.sound.token_samples)
        start = max(0, len(samples) - most) // 2
        return samples[start : start + most]

    def pad(self, rows: Sequence[SoundRow], length: int) -> tuple[Tensor, Tensor]:
        """(rows, samples) float32 and their mask; or (rows, frames, bins) and a mask that means nothing, (rows, 1)."""
        recordings = [self.fit(row) for row in rows]
        if self.sound.kind == "spectrogram":
            spectra = np.stack([self.spectrogram(each) for each in recordings])
            return torch.from_numpy(spectra), torch.ones(len(rows), 1, dtype=torch.long)
        values = torch.zeros(len(rows), length * self.sound.token_samples)
        mask = torch.zeros_like(values, dtype=torch.long)
        for index, each in enumerate(recordings):
            values[index, : len(each)] = torch.from_numpy(self._normalised(each))
            mask[index, : len(each)] = 1
        return values, mask

    def _normalised(self, samples: np.ndarray) -> np.ndarray:
        """As Wav2Vec2FeatureExtractor does it, where the checkpoint wants it."""
        if not self.sound.is_normalized:
            return samples
        return (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)

    def spectrogram(self, samples: np.ndarray) -> np.ndarray:
        """(frames, bins) float32. Method: as ASTFeatureExtractor of transformers where torchaudio is not installed."""
        from transformers.audio_utils import spectrogram

        if len(samples) < WINDOW:
            samples = np.pad(samples, (0, WINDOW - len(samples)))
        mels = spectrogram(
            samples,
            self._window,
            frame_length=WINDOW,
            hop_length=HOP,
            fft_length=FFT,
            power=2.0,
            center=False,
            preemphasis=EMPHASIS,
            mel_filters=self._filters,
            log_mel="log",
            mel_floor=FLOOR,
            remove_dc_offset=True,
        ).T[: self.sound.frames]
        padded = np.pad(mels, ((0, self.sound.frames - len(mels)), (0, 0)))
        return ((padded - self.sound.mean) / (2 * self.sound.std)).astype(np.float32)

    @cached_property
    def _window(self) -> np.ndarray:
        from transformers.audio_utils import window_function

        return np.asarray(window_function(WINDOW, "hann", periodic=False))

    @cached_property
    def _filters(self) -> np.ndarray:
        from transformers.audio_utils import mel_filter_bank

        return np.asarray(
            mel_filter_bank(
                num_frequency_bins=FFT // 2 + 1,
                num_mel_filters=self.sound.bins,
                min_frequency=LOWEST_HZ,
                max_frequency=self.sound.rate // 2,
                sampling_rate=self.sound.rate,
                norm=None,
                mel_scale="kaldi",
                triangularize_in_mel_space=True,
            )
        )


def _check_kind(data: bytes) -> None:
    """Raises UnusableSound for bytes that are no sound of a kind that is read here, or not whole."""
    if not data:
        raise UnusableSound("the file is empty")
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        _check_lengths(data)
    elif data[:4] == b"OggS":
        _check_last_page(data)
    elif not (data[:4] == b"fLaC" or data[:3] == b"ID3" or (data[0] == 0xFF and data[1:2] >= b"\xe0")):
        raise UnusableSound(f"{_look(data)}, {EXPECTED}", data[:SHOWN_BYTES].decode("utf-8", "backslashreplace"))


def _look(data: bytes) -> str:
    """What bytes that are no sound look like."""
    if data[:4] == b"RIFF":
        return "a picture (WebP)" if data[8:12] == b"WEBP" else "a film"
    if data[4:8] == b"ftyp":
        return "MPEG-4 (AAC) or a film"
    known = next((look for magic, look in LOOKS.items() if data.startswith(magic)), None)
    if known or not any(data[:SHOWN_BYTES]):
        return known or "zero bytes"
    start = data[:SHOWN_BYTES].decode("utf-8", "replace")
    if start.lstrip("\ufeff \t\r\n").lower().startswith(("<!doctype html", "<html")):
        return "HTML"
    is_text = all(letter.isprintable() or letter.isspace() for letter in start.rstrip("\ufffd"))
    return "text" if is_text else "no known format"


def _check_lengths(data: bytes) -> None:
    """Compare what a WAV file says of its lengths with its bytes: decoders take either for granted."""
    said = 8 + int.from_bytes(data[4:8], "little")
    if said > len(data):
        raise UnusableSound("cut short", f"the header says {said:,} bytes, {len(data):,} are there")
    if len(data) > said + said % 2:
        raise UnusableSound("longer than its header says", f"{said:,} bytes, {len(data):,} are there")
    for name, start, size in _chunks(data):
        if start + size > len(data):
            there = max(0, len(data) - start)
            problem = f"the part {name.decode('ascii', 'replace')!r} says {size:,} bytes, {there:,} are there"
            raise UnusableSound("cut short", problem)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The parts of a RIFF file: name, where the content starts, and how many bytes it says that this has."""
    place = 12
    while place + 8 <= len(data):
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        yield data[place : place + 4], place + 8, size
        place += 8 + size + size % 2


def _check_last_page(data: bytes) -> None:
    """The last page of an Ogg stream says that it is; one that was cut short has lost it."""
    flags = data.rfind(b"OggS") + 5
    if not (flags < len(data) and data[flags] & 4):
        raise UnusableSound("cut short", "the last page of the stream is not there")


def _opened(data: bytes) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(io.BytesIO(data))
    except Exception as error:  # the library raises whatever damaged bytes lead it into
        raise UnusableSound("damaged: its header can't be read", str(error).partition(": ")[2]) from error


def _checked_header(file: soundfile.SoundFile) -> SoundHeader:
    header = SoundHeader(file.frames, file.samplerate, file.channels)
    lowest, highest = RATES
    if not lowest <= header.rate <= highest:
        raise UnusableSound(f"a rate below {lowest:,} or above {highest:,} Hz", f"{header.rate:,} Hz")
    if not 1 <= header.channels <= MAX_CHANNELS:
        raise UnusableSound(f"more than {MAX_CHANNELS} channels", f"{header.channels}")
    if header.frames <= 0:
        raise UnusableSound("no samples")
    seconds = header.frames / header.rate
    if seconds < MIN_SECONDS:
        raise UnusableSound(f"shorter than {1000 * MIN_SECONDS:g} ms", f"{header.frames} samples at {header.rate} Hz")
    if seconds > MAX_SECONDS:
        raise UnusableSound(f"longer than {MAX_SECONDS} seconds", f"{seconds:,.0f} seconds")
    return header


def _decoded(file: soundfile.SoundFile, header: SoundHeader) -> np.ndarray:
    """(samples, channels) float32, as many as the header says."""
    try:
        channels = file.read(dtype="float32", always_2d=True)
    except Exception as error:
        raise UnusableSound("damaged: it can't be decoded", str(error)) from error
    if len(channels) != header.frames:
        raise UnusableSound("cut short", f"the header says {header.frames:,} samples, {len(channels):,} are there")
    return np.asarray(channels)
