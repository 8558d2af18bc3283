"""From bytes to lines of text: nothing is guessed, and what can't be decoded is named by file, line and byte.

Lines are read one at a time with a limit, so that a file of one endless line can't fill the memory.
"""

import codecs
from collections.abc import Iterator
from pathlib import Path

from graftwork.errors import DataError, Problem

MAX_LINE_BYTES = 16 << 20
MAX_CELL = 1 << 20
# Of its first bytes, a file of UTF-16 text in a Latin script has every second one zero; a text file has none.
SNIFFED_BYTES = 1000
UTF16_ZEROS = 0.25


class UnreadableFileError(DataError):
    """A whole file that can't be trusted; a landing folder sets it aside, a file that the recipe names is refused."""


def read_lines(path: Path, encoding: str, where: str) -> Iterator[str]:
    """The lines of a text file with their ends; a UTF-8 byte order mark is dropped.

    where: how messages name the file. Raises UnreadableFileError.
    """
    _check_encoding(encoding, where)
    with path.open("rb") as stream:
        _check_start(stream.read(SNIFFED_BYTES), where)
        stream.seek(0)
        offset, number = 0, 0
        while raw := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                raise UnreadableFileError(
                    Problem(f"the line is longer than {MAX_LINE_BYTES >> 20} MiB", f"{where}:{number}")
                )
            line = _decode(raw, encoding, offset, f"{where}:{number}")
            yield line.removeprefix("\ufeff") if number == 1 else line
            offset += len(raw)


def _decode(raw: bytes, encoding: str, offset: int, where: str) -> str:
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnreadableFileError(
            Problem(
                f"byte {offset + error.start} (0x{raw[error.start]:02x}) is not {encoding}",
                where,
                "name the encoding of the source in the recipe, for instance `encoding: latin-1` or `encoding: cp1252`",
            )
        ) from error


def _check_encoding(encoding: str, where: str) -> None:
    try:
        is_splittable = "a\n".encode(encoding) == b"a\n"
    except (LookupError, UnicodeError):
        is_splittable = False
    if not is_splittable:
        raise UnreadableFileError(
            Problem(f"the encoding {encoding!r} can't be read", where, "convert the file to UTF-8")
        )


def _check_start(start: bytes, where: str) -> None:
    has_mark = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if has_mark or start.count(0) > UTF16_ZEROS * len(start):
        raise UnreadableFileError(Problem("the file is UTF-16, expected UTF-8", where, "convert the file to UTF-8"))
