"""What a recording is, is settled by rule, what can't be trained on is refused, and copies are found."""

import io
import struct
import time
import wave
import zipfile
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from graftwork.data.images import similar_images
from graftwork.data.quarantine import BadRow
from graftwork.data.sounds import COPY_SHARE, SoundFacts, inspect_sound
from graftwork.models.serving.recordings import MAX_CHANNELS, UnusableSound, read_header, read_sound
from graftwork.models.serving.sound_files import check_file

VOICES = Path(__file__).parents[2] / "examples/voices"
RATE = 16_000


def tone(seconds: float = 0.5, rate: int = RATE, channels: int = 1, seed: int = 0) -> np.ndarray:
    """(samples, channels) of a gliding tone and a little noise, other in each channel."""
    generator = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * rate)) / rate
    glide = 0.4 * np.sin(2 * np.pi * 300 * time_s * (1 + time_s))
    return glide[:, None] + generator.normal(0, 0.02, (len(time_s), channels))


def save(samples: np.ndarray, kind: str = "WAV", subtype: str | None = None, rate: int = RATE) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=kind, subtype=subtype)
    return stream.getvalue()


def changed(data: bytes, place: int, value: bytes) -> bytes:
    return data[:place] + value + data[place + len(value) :]


def without_page(data: bytes, number: int) -> bytes:
    """An Ogg file that lacks a page."""
    starts = [place for place in range(len(data)) if data.startswith(b"OggS", place)]
    return data[: starts[number]] + data[starts[number + 1] :]


def picture(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, kind)
    return stream.getvalue()


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("a.wav", b"RIFF")
    return stream.getvalue()


FORMATS = {
    "WAV": ("WAV", "PCM_16"),
    "FLAC": ("FLAC", "PCM_16"),
    "Vorbis": ("OGG", "VORBIS"),
    "Opus": ("OGG", "OPUS"),
    "MP3": ("MP3", "MPEG_LAYER_III"),
}
FILES = {name: save(tone(), *how) for name, how in FORMATS.items()}
WAV, FLAC, OGG, MP3 = FILES["WAV"], FILES["FLAC"], FILES["Vorbis"], FILES["MP3"]
LONG = save(tone(5), "OGG", "VORBIS")
DATA = WAV.index(b"data") + 4  # the place of that part's length
SPOILED = {name: tone() for name in ("nan", "infinite", "loud")}
SPOILED["nan"][100] = np.nan
SPOILED["infinite"][-1] = -np.inf
SPOILED["loud"][:] *= 32768
STEREO = tone(channels=2)
OPPOSITE = np.hstack([tone(), -tone()])
UNTOLD = "header doesn't tell its length"

# name, bytes of the file, what the reason says, what the value says
REFUSED = {
    "empty": (b"", "the file is empty", ""),
    "header only": (WAV[:44], "damaged or cut short WAV", "16,044 bytes, the file has 44"),
    "half a header": (WAV[:20], "damaged or cut short WAV", ""),
    "no samples": (save(np.zeros((0, 1))), "no samples", ""),
    "one sample": (save(np.full((1, 1), 0.5)), "shorter than 25 ms", "1 samples at 16,000 Hz"),
    "24 ms": (save(tone(0.024)), "shorter than 25 ms", "384 samples"),
    "not a number": (save(SPOILED["nan"], "WAV", "FLOAT"), "no numbers", "nan"),
    "infinite": (save(SPOILED["infinite"], "WAV", "DOUBLE"), "no numbers", "-inf"),
    "numbers of another scale": (save(SPOILED["loud"], "WAV", "FLOAT"), "numbers outside -1 to 1", ""),
    "all zero": (save(np.zeros((8000, 1))), "silence", "all samples are 0"),
    "all the same": (save(np.full((8000, 2), 0.25)), "silence", "0.25"),
    "FLAC of zeros": (save(np.zeros((8000, 1)), "FLAC"), "silence", ""),
    "MP3 of zeros": (save(np.zeros((8000, 1)), "MP3"), "silence", ""),
    "channels that cancel": (save(OPPOSITE), "the channels cancel each other out", "0.0%"),
    "channels that nearly cancel": (
        save(OPPOSITE * [1, 0.995], "WAV", "FLOAT"),
        "the channels cancel each other out",
        "0.5%",
    ),
    "WAV cut short": (WAV[:-2000], "damaged or cut short WAV", "16,044 bytes, the file has 14,044"),
    "WAV without its last byte": (WAV[:-1], "damaged or cut short WAV", "16,043"),
    "WAV with more behind": (WAV + b"more", "damaged or cut short WAV", "16,048"),
    "RIFF says too little": (changed(WAV, 4, struct.pack("<I", 9000)), "damaged or cut short WAV", "9,008"),
    "RIFF says too much": (changed(WAV, 4, struct.pack("<I", 90_000)), "damaged or cut short WAV", "90,008"),
    "data says too little": (changed(WAV, DATA, struct.pack("<I", 9000)), "damaged or cut short WAV", ""),
    "data says too much": (changed(WAV, DATA, struct.pack("<I", 16_002)), "damaged or cut short WAV", ""),
    "within a sample": (
        changed(changed(WAV, 4, struct.pack("<I", len(WAV) - 8 - 1)), DATA, struct.pack("<I", 15_999))[:-1],
        "damaged or cut short WAV",
        "ends within a sample",
    ),
    "from a pipe": (changed(changed(WAV, 4, b"\xff" * 4), DATA, b"\xff" * 4), UNTOLD, ""),
    "from espeak-ng": (changed(WAV, 4, struct.pack("<I", 0x7FFFF024)), UNTOLD, ""),
    "data from a pipe": (changed(WAV, DATA, struct.pack("<I", 0x7FFFF000)), UNTOLD, ""),
    "unset length": (changed(WAV, 4, bytes(4)), UNTOLD, ""),
    "FLAC of untold length": (changed(FLAC, 21, bytes([FLAC[21] & 0xF0]) + bytes(4)), UNTOLD, ""),
    "two parts of data": (
        changed(WAV + WAV[DATA - 4 :], 4, struct.pack("<I", 2 * len(WAV) - 8 - (DATA - 4))),
        "damaged or cut short WAV",
        "second part data",
    ),
    "block of another width": (changed(WAV, 32, struct.pack("<H", 4)), "damaged or cut short WAV", "1 x 16 bits are 4"),
    "FLAC cut short": (FLAC[: len(FLAC) // 2], "damaged or cut short FLAC", ""),
    "FLAC without its last byte": (FLAC[:-1], "damaged or cut short FLAC", ""),
    "Vorbis cut short": (OGG[: len(OGG) // 2], "damaged or cut short OGG", ""),
    "Vorbis without its last page": (LONG[: LONG.rindex(b"OggS")], "damaged or cut short OGG", "last page"),
    "Vorbis without a page": (without_page(LONG, 3), "damaged or cut short OGG", "page 3"),
    "Vorbis twice": (OGG + save(tone(), "OGG", "VORBIS"), "several streams|damaged or cut short OGG", ""),
    "MP3 cut short": (MP3[: len(MP3) // 2], "damaged or cut short MP3", ""),
    "MP3 without its last byte": (MP3[:-1], "damaged or cut short MP3", ""),
    "MP3 tag without frames": (b"ID3\4\0\0\0\0\0\7" + bytes(7), "damaged or cut short MP3", "no frame"),
    "HTML": (b"\n<!DOCTYPE html><title>404 Not Found</title>", "HTML, expected sound: WAV, FLAC", "404 Not Found"),
    "zip": (archive(), "zip, expected sound", "PK"),
    "text": (b"RIFF is how this text begins\n", "text, expected sound", "RIFF"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "git lfs pull", "version"),
    "JPEG": (picture("JPEG"), r"a picture \(JPEG\), expected sound", ""),
    "PNG": (picture("PNG"), r"a picture \(PNG\), expected sound", ""),
    "WEBP": (picture("WEBP"), r"a picture \(WEBP\), expected sound", ""),
    "film": (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", "a film, expected sound", ""),
    "M4A": (b"\0\0\0\x18ftypM4A \0\0\2\0isomiso2", "M4A, expected sound", ""),
    "AVI": (b"RIFF\x24\0\0\0AVI LIST", r"a film \(AVI\), expected sound", ""),
    "Matroska": (b"\x1a\x45\xdf\xa3\x01\0\0\0", "a film", ""),
    "AIFF": (save(tone(), "AIFF"), "AIFF, expected sound", ""),
    "AU": (save(tone(), "AU"), "AU, expected sound", ""),
    "CAF": (save(tone(), "CAF"), "Core Audio, expected sound", ""),
    "RF64": (save(tone(), "RF64"), "RF64, expected sound", ""),
    "zero bytes": (bytes(5000), "zero bytes, expected sound", ""),
    "anything": (bytes(range(130, 180)), "no known format, expected sound", ""),
    "ADPCM": (save(tone(), "WAV", "IMA_ADPCM"), "a codec that isn't read here", "0x0011"),
    "999 Hz": (save(tone(), rate=999), "a sample rate outside 1,000 to 768,000 Hz", "999 Hz"),
    "800 kHz": (save(tone(3), rate=800_000), "a sample rate outside 1,000 to 768,000 Hz", "800,000 Hz"),
    "9 channels": (save(tone(channels=9)), "more than 8 channels", "9"),
    "too long": (save(np.zeros((601_000, 1)), rate=1_000), "longer than 600 s", "601,000 samples"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_on_is_refused_with_its_reason(name: str) -> None:
    """A bad row of the column, the reason free of what differs from file to file; reading says the same."""
    data, reason, value = REFUSED[name]
    with pytest.raises(UnusableSound, match=reason):
        read_sound(data)
    found = inspect_sound(data, "speech")
    assert isinstance(found, BadRow) and found.column == "speech"
    assert value in found.value and " at 0x" not in found.value


def test_what_is_too_long_is_refused_before_it_is_decoded() -> None:
    """2 hours of FLAC silence, a file of some kilobytes, cost no more than its header."""
    data = save(np.zeros((7200 * 2000, 1)), "FLAC", rate=2000)
    start = time.process_time()
    found = inspect_sound(data, "speech")
    assert isinstance(found, BadRow) and found.reason == "longer than 600 s"
    assert time.process_time() - start < 0.1


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_each_format_is_read_as_it_was_written(name: str, channels: int, rate: int) -> None:
    """The samples where nothing is lost and nearly so elsewhere, their number, rate and channels."""
    written = tone(0.5, rate, channels)
    data = save(written, *FORMATS[name], rate=rate)
    facts, (sound, words) = inspect_sound(data, "speech"), read_sound(data)
    assert (facts.rate, facts.channels, facts.seconds) == (rate, channels, 0.5)
    assert facts.converted == tuple(words) == (("stereo",) if channels == 2 else ())
    assert sound.samples.dtype == np.float32 and sound.samples.shape == (rate // 2,)
    error = np.abs(sound.samples - written.mean(axis=1))
    assert error.max() < 2**-15 if name in ("WAV", "FLAC") else error.mean() < 0.03
    assert read_header(data).frames == len(sound.samples) and len(facts.likeness) == 32


@pytest.mark.parametrize(
    ("subtype", "word"),
    [
        ("PCM_U8", "8 bits"),
        ("PCM_24", "24 bits"),
        ("PCM_32", "32 bits"),
        ("FLOAT", "float"),
        ("DOUBLE", "float"),
        ("ULAW", "mu-law"),
        ("ALAW", "A-law"),
    ],
)
def test_samples_of_any_width_come_out_on_one_scale(subtype: str, word: str) -> None:
    sound, words = read_sound(save(tone(), "WAV", subtype))
    assert words == {word}
    assert np.abs(sound.samples - tone()[:, 0]).max() < (0.02 if word in ("8 bits", "mu-law", "A-law") else 1e-6)
    assert read_sound(save(tone(), "WAVEX", subtype))[1] == {word}


def test_channels_become_their_mean() -> None:
    """Of two to eight; one that is silent counts."""
    for channels in range(2, MAX_CHANNELS + 1):
        written = tone(channels=channels) * (np.arange(channels) != 1)
        sound, words = read_sound(save(written, "WAV", "FLOAT"))
        assert np.allclose(sound.samples, written.mean(axis=1), atol=1e-6)
        assert words == {"float", "stereo" if channels == 2 else f"{channels} channels"}


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8", "PCM_24", "FLOAT", "ULAW"])
def test_what_was_cut_off_at_full_scale_is_said(subtype: str) -> None:
    """A tone three times too loud is; one whose peaks just reach the limit is not; beyond 1 floats are cut off."""
    wave_ = tone() / np.abs(tone()).max()
    assert "clipped" in read_sound(save(np.clip(3 * wave_, -1, 1), "WAV", subtype))[1]
    assert "clipped" not in read_sound(save(wave_, "WAV", subtype))[1]
    if subtype == "FLOAT":
        sound, words = read_sound(save(3 * wave_, "WAV", subtype))
        assert "clipped" in words and np.abs(sound.samples).max() == 1


def test_what_other_programs_write_is_read() -> None:
    """An odd length without its filling byte, parts before and behind the samples, tags around the frames of an MP3."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setparams((1, 1, RATE, 0, "NONE", ""))
        file.writeframes(bytes(np.random.default_rng(0).integers(0, 256, 4001, dtype=np.uint8)))
    part = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    listed = changed(WAV[:12] + part + WAV[12:] + part, 4, struct.pack("<I", len(WAV) - 8 + 2 * len(part)))
    tagged = b"ID3\4\0\0\0\0\1\0" + bytes(128) + MP3 + b"TAG" + bytes(125)
    for data, frames in ((stream.getvalue(), 4001), (listed, 8000), (tagged, 8000), (MP3 + bytes(300), 8000)):
        assert len(read_sound(data)[0].samples) == frames


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.floats(0, 0.9999))
def test_no_part_of_a_file_passes_for_the_whole(name: str, share: float) -> None:
    """A file cut anywhere is refused, and named as what it is."""
    data = FILES[name]
    assert isinstance(inspect_sound(data[: int(share * len(data))], "speech"), BadRow)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["FLAC", "Vorbis", "Opus"]), st.integers(100, 2000), st.integers(0, 7))
def test_a_changed_bit_is_found_where_there_are_checksums(name: str, place: int, bit: int) -> None:
    data = bytearray(FILES[name])
    data[place % len(data)] ^= 1 << bit
    assert isinstance(inspect_sound(bytes(data), "speech"), BadRow)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([b"", b"RIFF\x30\0\0\0WAVEfmt ", *(data[:60] for data in FILES.values())]), st.binary())
def test_no_bytes_raise(start: bytes, rest: bytes) -> None:
    """Whatever they are, with or without the start of a recording, there are facts or a reason."""
    assert isinstance(inspect_sound(start + rest, "speech"), SoundFacts | BadRow)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_no_damage_raises(name: str, draw: st.DataObject) -> None:
    """Cut anywhere, with bytes changed, left out or put in, there are facts or a reason; and those who ask the header
    alone are told as many samples as there are."""
    damaged = bytearray(FILES[name])
    for _ in range(draw.draw(st.integers(1, 4))):
        place = draw.draw(st.integers(0, len(damaged)) | st.integers(0, 60))
        width = draw.draw(st.integers(0, 6))
        damaged[place : place + width] = draw.draw(st.binary(max_size=6))
    try:
        sound, _ = read_sound(bytes(damaged))
    except UnusableSound:
        return
    assert read_header(bytes(damaged)).frames == len(sound.samples)


def test_equal_files_have_equal_references() -> None:
    """The bytes name a recording, whatever it sounds like."""
    first, second = (inspect_sound(data, "speech") for data in (WAV, FLAC))
    assert first.reference != second.reference and len(first.reference) == 40
    assert first.reference == inspect_sound(bytes(bytearray(WAV)), "speech").reference
    assert first.likeness == second.likeness
    assert check_file(WAV) == "WAV" and check_file(FLAC) == "FLAC"


def voices() -> dict[Path, np.ndarray]:
    """A part of the recorded words."""
    return {path: soundfile.read(path)[0] for path in sorted(VOICES.glob("*/*.flac"))[::3]}


def share(a: bytes, b: bytes) -> float:
    """Of the bits of two likenesses, the share that is equal."""
    return 1 - sum((x ^ y).bit_count() for x, y in zip(a, b, strict=True)) / (8 * len(a))


def likeness(samples: np.ndarray, kind: str = "WAV", subtype: str | None = None, rate: int = RATE) -> bytes:
    return inspect_sound(save(samples, kind, subtype, rate), "speech").likeness


def test_copies_of_spoken_words_are_alike_and_other_words_and_voices_are_not() -> None:
    """Coded again, at other rates, quieter, with silence around it, cut a little: above, but for one in a hundred.
    Anything else: below."""
    found = {path: likeness(samples) for path, samples in voices().items()}
    shares: list[float] = []
    for path, samples in voices().items():
        copies = [
            *(likeness(samples, *how) for how in FORMATS.values()),
            *(likeness(soxr.resample(samples, RATE, rate), rate=rate) for rate in (8_000, 44_100)),
            likeness(samples / 5),
            likeness(np.concatenate([np.zeros(3000), samples, np.zeros(7000)])),
            likeness(samples[RATE // 100 : -RATE // 100]),
            likeness(samples, "WAV", "PCM_U8"),
        ]
        shares += [share(found[path], copy) for copy in copies]
    assert np.mean(np.array(shares) >= COPY_SHARE) >= 0.99
    pairs = {(a, b): share(found[a], found[b]) for a, b in combinations(found, 2)}
    assert max(pairs.values()) < COPY_SHARE
    assert max(value for (a, b), value in pairs.items() if a.parent != b.parent) < 0.82
    assert 0.5 < np.mean(list(pairs.values())) < 0.6


def test_copies_are_found_by_what_finds_those_of_pictures() -> None:
    """Each word and its MP3 are a pair, and nothing else is."""
    samples = list(voices().values())
    likenesses = [likeness(each) for each in samples] + [likeness(each, *FORMATS["MP3"]) for each in samples]
    count = len(samples)
    assert similar_images(likenesses, COPY_SHARE) == [(number, number + count) for number in range(count)]


def test_the_recorded_words_can_be_trained_on() -> None:
    """All 96 of them, and each voice says each of the four words."""
    paths = sorted(VOICES.glob("*/*.flac"))
    assert len(paths) == 96 and len({path.name for path in paths}) == 24
    for path in paths:
        facts = inspect_sound(path.read_bytes(), "speech")
        assert isinstance(facts, SoundFacts) and facts.rate == RATE and not facts.converted
