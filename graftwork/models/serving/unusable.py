"""What arrives in the place of pictures and sounds, told by how it begins."""

import codecs

SNIFFED_BYTES, SHOWN_BYTES = 1000, 80
# Compared with the lower-case start of the file, by those who add what they alone have to tell apart.
COMMON = {
    b"<!doctype html": "HTML",
    b"<html": "HTML",
    b"<?xml": "XML",
    b"version https://git-lfs": "a pointer of Git LFS (git lfs pull brings the file)",
    b"%pdf-": "PDF",
    b"\x1f\x8b": "gzip",
    b"pk\x03\x04": "zip",
    b"rar!": "RAR",
    b"7z\xbc\xaf": "7z",
}


class Unusable(ValueError):
    """Why bytes can't be trained on; the reason is one of few and can be counted, the value says more."""

    def __init__(self, reason: str, value: str = "") -> None:
        super().__init__(f"{reason}: {value}" if value else reason)
        self.reason = reason
        self.value = value


def fold(start: bytes) -> bytes:
    """The start of a file as COMMON has it."""
    return start.removeprefix(codecs.BOM_UTF8).lstrip().lower()


def shown(data: bytes) -> str:
    """The first bytes, to be looked at."""
    return data[:SHOWN_BYTES].decode("utf-8", "backslashreplace")


def is_text(start: bytes) -> bool:
    """Whether these bytes, at most SNIFFED_BYTES, are letters; the last one may be cut."""
    try:
        text, _ = codecs.utf_8_decode(start, "strict", len(start) < SNIFFED_BYTES)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)
