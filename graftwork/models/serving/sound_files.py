"""What a sound file says of itself against the bytes that it has: its format, and whether it is whole.

libsndfile decodes a WAV, an Ogg or an MP3 that was cut anywhere, as far as it goes, and says nothing. Here the parts of
such a file are counted before it is decoded. Not here: FLAC, whose own checksums libsndfile verifies, and the sound
itself. A byte changed within the samples of a WAV or a frame of an MP3 is found by no one; only a digest of the file
would tell.
"""

import struct
import zlib
from collections.abc import Iterator

from .unusable import COMMON, SNIFFED_BYTES, Unusable, fold, is_text, shown

EXPECTED = "expected sound: WAV, FLAC, Ogg (Vorbis or Opus) or MP3"
# What arrives in the place of sound. The keys are compared with the lower-case start of the file.
LOOKS = COMMON | {
    b"\xff\xd8\xff": "a picture (JPEG)",
    b"\x89png": "a picture (PNG)",
    b"gif8": "a picture (GIF)",
    b"ii*\0": "a picture (TIFF)",
    b"mm\0*": "a picture (TIFF)",
    b"\x1ae\xdf\xa3": "a film (Matroska or WebM)",
    b"\0\0\x01\xba": "a film (MPEG)",
    b"\0\0\x01\xb3": "a film (MPEG)",
    b"flv\x01": "a film (Flash)",
    b".snd": "AU",
    b"caff\0\1": "Core Audio",
    b"rifx": "a WAV of big-endian numbers (RIFX)",
    b"rf64": "RF64",
    b"bw64": "BW64",
    b"riff\x2e\x91\xcf\x11": "Wave64",
    b"mthd\0": "MIDI",
    b"#!amr": "AMR",
    b"nist_1a": "NIST Sphere",
    b"wvpk": "WavPack",
    b"\xff\xf1": "AAC",
    b"\xff\xf9": "AAC",
    b"0&\xb2u\x8ef\xcf\x11": "Windows Media",
}
# Of the containers that name their content behind their size.
CONTENTS = {
    (b"RIFF", b"WEBP"): "a picture (WEBP)",
    (b"RIFF", b"AVI "): "a film (AVI)",
    (b"FORM", b"AIFF"): "AIFF",
    (b"FORM", b"AIFC"): "AIFF",
}
# Of the family of containers that begin with a box "ftyp", by the brand that follows.
BRANDS = {b"M4A ": "M4A", b"M4B ": "M4A", b"avif": "a picture (AVIF)", b"heic": "a picture (HEIC)"}

MAX_CHUNKS = 1000
PCM, FLOAT, A_LAW, MU_LAW, EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
# A program that writes into a pipe can't return to the header: it leaves nothing in it, or as much as fits.
UNTOLD_BYTES = 0x7FFFF000

OGG_HEADER = 27
LAST_PAGE = 4
OGG_CODECS = (b"\x01vorbis", b"OpusHead")
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))

ID3_HEADER = 10
# Of Layer III in kbit/s, by the four bits of a frame's header: MPEG 1, and MPEG 2 and 2.5.
BITRATES = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
# What all frames of a file have in common: version, layer, rate.
MP3_SAME = 0xFFFE0C00
MONO = 3
TAIL_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3")


class UnusableSound(Unusable):
    """Why the bytes can't be trained on as a recording."""


def check_file(data: bytes) -> str:
    """The format of these bytes (WAV, FLAC, OGG or MP3), whose parts are all there. Raises UnusableSound."""
    if not data:
        raise UnusableSound("the file is empty")
    kind = _kind(data)
    if kind is None:
        look = _look(data[:SNIFFED_BYTES])
        raise UnusableSound(f"{look}, {EXPECTED}", shown(data))
    try:
        {"WAV": _check_wav, "FLAC": _check_flac, "OGG": _check_ogg, "MP3": _check_mp3}[kind](data)
    except (struct.error, IndexError) as error:
        raise damaged(kind, "its header is cut short") from error
    return kind


def damaged(kind: str, message: str) -> UnusableSound:
    """What a file of this format is refused with whose parts don't fit together."""
    return UnusableSound(f"damaged or cut short {kind}", message)


def untold(kind: str, value: str = "") -> UnusableSound:
    """What a file is refused with whose length can't be compared with anything."""
    return UnusableSound(f"the {kind}'s header doesn't tell its length, as when it is written to a pipe", value)


def _kind(data: bytes) -> str | None:
    if data.startswith(b"RIFF") and data[8:12] == b"WAVE":
        return "WAV"
    if data.startswith(b"fLaC"):
        return "FLAC"
    if data.startswith(b"OggS"):
        return "OGG"
    return "MP3" if data.startswith(b"ID3") or _mp3_frame(data, 0) else None


def _look(start: bytes) -> str:
    """What the start of a file looks like that is no sound of a format read here."""
    folded = fold(start)
    for key, look in LOOKS.items():
        if folded.startswith(key):
            return look
    if start[4:8] == b"ftyp":
        return BRANDS.get(start[8:12], "a film")
    if (start[:4], start[8:12]) in CONTENTS:
        return CONTENTS[start[:4], start[8:12]]
    if not any(start):
        return "zero bytes"
    return "text" if is_text(start) else "no known format"


def _check_wav(data: bytes) -> None:
    stated = struct.unpack_from("<I", data, 4)[0] + 8
    chunks = dict(_wav_chunks(data, stated))
    if b"data" not in chunks or b"fmt " not in chunks:
        raise damaged("WAV", f"it has no part {'data' if b'fmt ' in chunks else 'fmt'}")
    block = _wav_block(data, *chunks[b"fmt "])
    if chunks[b"data"][1] % block:
        raise damaged("WAV", "it ends within a sample")


def _wav_chunks(data: bytes, stated: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Name, place and bytes of each part; they must end where the header and the file do."""
    if stated == 8 or stated - 8 >= UNTOLD_BYTES:
        raise untold("WAV")
    told = f"its header says {stated:,} bytes, the file has {len(data):,}"
    if abs(stated - len(data)) > 1:
        raise damaged("WAV", told)
    seen: set[bytes] = set()
    place, padding = 12, 0
    for _ in range(MAX_CHUNKS):
        if place >= len(data):
            break
        name, size = struct.unpack_from("<4sI", data, place)
        if name == b"data" and size >= UNTOLD_BYTES:
            raise untold("WAV")
        if place + 8 + size > len(data) or not all(32 <= letter < 127 for letter in name):
            raise damaged("WAV", f"the lengths of its parts don't fit; {told}")
        if name in seen and name in (b"data", b"fmt "):
            raise damaged("WAV", f"it has a second part {name.decode()}")
        seen.add(name)
        yield name, (place + 8, size)
        padding = size & 1  # parts begin at even places; some programs leave that byte out, or don't count it
        place += 8 + size + padding
    if place < len(data) or abs(stated - len(data)) > padding:
        raise damaged("WAV", told)


def _wav_block(data: bytes, place: int, size: int) -> int:
    """The bytes of a sample of all channels."""
    tag, channels, _, _, block, bits = struct.unpack_from("<HHIIHH", data, place)
    if tag == EXTENSIBLE and size >= 26:
        (tag,) = struct.unpack_from("<H", data, place + 24)
    if tag not in (PCM, FLOAT, A_LAW, MU_LAW):
        raise UnusableSound("a WAV of a codec that isn't read here, expected plain samples", f"codec {tag:#06x}")
    if block == 0 or block != channels * -(-bits // 8):
        raise damaged("WAV", f"its header says {channels} x {bits} bits are {block} bytes")
    return int(block)


def _check_flac(_data: bytes) -> None:
    """Nothing: the decoder verifies each frame's checksum and the length."""


def _check_ogg(data: bytes) -> None:
    """Each page has its checksum and its number; the last one says that it is."""
    place, number, flags = 0, 0, 0
    serial = data[14:18]
    while place < len(data):
        segments = data[place + 26]
        size = OGG_HEADER + segments + sum(data[place + OGG_HEADER : place + OGG_HEADER + segments])
        page = data[place : place + size]
        if not page.startswith(b"OggS") or len(page) < size:
            raise damaged("OGG", f"no whole page at byte {place:,}")
        if page[14:18] != serial:
            raise UnusableSound("an Ogg of several streams, expected one of sound")
        if place == 0 and not page[OGG_HEADER + segments :].startswith(OGG_CODECS):
            raise UnusableSound("an Ogg of another codec, expected Vorbis or Opus")
        if struct.unpack_from("<I", page, 18)[0] != number or not _has_checksum(page):
            raise damaged("OGG", f"page {number:,} is missing or was changed")
        flags, number, place = page[5], number + 1, place + size
    if not flags & LAST_PAGE:
        raise damaged("OGG", "its last page is missing")


def _has_checksum(page: bytes) -> bool:
    """Ogg's checksum is zlib's with the bits of all bytes reversed, begun at 0 and not inverted."""
    blank = page[:22] + bytes(4) + page[26:]
    found = zlib.crc32(blank.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return found.to_bytes(4, "big").translate(REVERSED) == page[22:26]


def _check_mp3(data: bytes) -> None:
    """Frame follows frame up to the end or a tag, as many as the first one says."""
    first = _id3_bytes(data)
    frame = _mp3_frame(data, first)
    if not frame:
        raise damaged("MP3", "no frame follows its tag")
    header, place, count = frame[0], first, 0
    while (frame := _mp3_frame(data, place)) and frame[0] == header:
        place, count = place + frame[1], count + 1
    rest = data[place:] if place < len(data) else b""
    if place > len(data) or (rest.strip(b"\0") and not rest.startswith(TAIL_TAGS)):
        raise damaged("MP3", f"no whole frame after {max(0, count - 1):,}")
    stated = _mp3_stated(data, first)
    if stated is not None and not stated <= count <= stated + 1:  # some programs count the frame that says so
        raise damaged("MP3", f"its header says {stated:,} frames, the file has {count:,}")


def _id3_bytes(data: bytes) -> int:
    """How many bytes a tag before the first frame takes."""
    if not data.startswith(b"ID3"):
        return 0
    flags, *digits = data[5], data[6], data[7], data[8], data[9]
    size = sum(digit << shift for digit, shift in zip(digits, (21, 14, 7, 0), strict=True))
    return ID3_HEADER + size + (ID3_HEADER if flags & 0x10 else 0)


def _mp3_frame(data: bytes, place: int) -> tuple[int, int] | None:
    """What a frame of Layer III has in common with the others, and its bytes; None where there is no frame."""
    if len(data) < place + 4:
        return None
    (header,) = struct.unpack_from(">I", data, place)
    version, layer = header >> 19 & 3, header >> 17 & 3
    speed, rate = header >> 12 & 15, header >> 10 & 3
    if header >> 21 != 0x7FF or version == 1 or layer != 1 or speed in (0, 15) or rate == 3:
        return None
    kbits = BITRATES[version != 3][speed]
    size = (144 if version == 3 else 72) * 1000 * kbits // MP3_RATES[version][rate] + (header >> 9 & 1)
    return header & MP3_SAME, size


def _mp3_stated(data: bytes, place: int) -> int | None:
    """How many frames the first one says will follow, where an encoder says so."""
    (header,) = struct.unpack_from(">I", data, place)
    is_full, is_mono = header >> 19 & 3 == 3, header >> 6 & 3 == MONO
    side = (17 if is_mono else 32) if is_full else (9 if is_mono else 17)
    place += 4 + side + (0 if header >> 16 & 1 else 2)
    if data[place : place + 4] not in (b"Xing", b"Info") or not data[place + 7] & 1:
        return None
    return int(struct.unpack_from(">I", data, place + 8)[0])
