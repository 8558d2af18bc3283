"""Word vectors in the forms in which they are passed on: word2vec's, text or binary, and GloVe's text; also gzipped.

Read here and not by gensim, which takes as much memory as the header asks for, takes NaN for a number, and cuts a file
off where the header ends. A file is read once, word by word, and no further than the words that are wanted.
"""

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from graftwork.checkpoints.safety import MAX_JSON_BYTES
from graftwork.errors import CheckpointError, Problem, shorten

HEADER = re.compile(rb"\s*([0-9]{1,18})[ \t]+([0-9]{1,18})\s*")
MAX_WIDTH = 4096
MAX_WORD_BYTES = 1 << 12
MAX_LINE_BYTES = MAX_WORD_BYTES + 32 * MAX_WIDTH
MAX_TABLE_BYTES = 4 << 30
WORDS_BYTES = MAX_JSON_BYTES - (1 << 20)  # of a tokenizer.json, beside what else is in it
GZIP = b"\x1f\x8b"
LOOKED_AT_BYTES = 4096
TOLD_EVERY = 1000  # words
NO_VECTORS = "is it a file of word vectors?"
FEWER = "keep those that come first, which are the most frequent, with --most"

Progress = Callable[[int, int], None]
Stream = gzip.GzipFile  # or what `open` gives, which reads and peeks like it
Entry = tuple[str, bytes, np.ndarray]  # its place in the file, the word, its numbers


@dataclass(frozen=True)
class WordVectors:
    """Words, the most frequent first where they are sorted at all, and a float32 row for each, (words, width)."""

    words: tuple[str, ...]
    table: np.ndarray


class _Unfit(Exception):  # of one entry: caught where the file is known
    """What is wrong, and what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def read_vectors(path: Path, most: int | None = None, on_progress: Progress | None = None) -> WordVectors:
    """The words of a file, or the first `most` of them, with their vectors.

    on_progress is told how many bytes of how many are read. Raises CheckpointError, naming file and line, if it is not
    whole or not finite, or says one thing in its header and another in its lines.
    """
    if not path.is_file():
        raise CheckpointError(Problem("there is no such file", str(path)))
    try:
        with path.open("rb") as raw, _unpacked(raw) as stream:

            def tell() -> None:
                if on_progress:
                    on_progress(raw.tell(), path.stat().st_size)

            return _collect(stream, ".bin" in path.suffixes, most, tell)
    except _Unfit as error:
        raise CheckpointError(Problem(error.message, str(path), error.hint)) from error
    except (OSError, EOFError, zlib.error) as error:
        raise CheckpointError(Problem(f"it can't be read: {shorten(error)}", str(path), "fetch it again")) from error


@contextmanager
def _unpacked(raw: BinaryIO) -> Iterator[Stream]:
    stream = cast("Stream", raw)
    if stream.peek(len(GZIP)).startswith(GZIP):
        with gzip.GzipFile(fileobj=raw) as unpacked:
            yield unpacked
    else:
        yield stream


def _collect(stream: Stream, is_binary: bool, most: int | None, tell: Callable[[], None]) -> WordVectors:
    count, entries = _entries(stream, is_binary)
    places: dict[str, str] = {}
    numbers = bytearray()
    size = 0
    for place, raw_word, vector in islice(entries, most):
        word = _decode(raw_word, place)
        if word in places:
            raise _Unfit(f"{place}: the word {shorten(word)!r} is there already, in {places[word]}", "remove one")
        _check_finite(vector, place)
        places[word] = place
        numbers += vector.tobytes()
        size += len(f'"":{len(places)},') + len(raw_word)
        _check_size(size, len(numbers))
        if len(places) % TOLD_EVERY == 0:
            tell()
    if not places:
        raise _Unfit("it holds no word")
    if count is not None and len(places) != count and len(places) != most:
        raise _Unfit(f"line 1: the header says {count:,} words, it holds {len(places):,}", "fetch it again")
    return WordVectors(tuple(places), np.frombuffer(numbers, np.float32).reshape(len(places), -1))


def _entries(stream: Stream, is_binary: bool) -> tuple[int | None, Iterator[Entry]]:
    """How many words the header says, None without one, and the words as they are read."""
    first = _line(stream, 1)
    header = HEADER.fullmatch(first)
    if header is None:
        return None, _text_entries(stream, first, None)
    count, width = int(header[1]), int(header[2])
    if not 1 <= width <= MAX_WIDTH:
        raise _Unfit(f"line 1: vectors of {width:,} numbers, expected 1 to {MAX_WIDTH:,}")
    start = stream.peek(LOOKED_AT_BYTES)[:LOOKED_AT_BYTES]
    if is_binary or any(byte < ord(" ") and byte not in b"\t\r\n" for byte in start):
        return count, _binary_entries(stream, width)
    return count, _text_entries(stream, b"", width)


def _text_entries(stream: Stream, first: bytes, width: int | None) -> Iterator[Entry]:
    """first: the line that was read to see whether it is a header. width: None if it is that line which tells it."""
    number, line = (1, first) if width is None else (2, _line(stream, 2))
    while line:
        cells = line.rstrip(b" \t\r\n")
        if cells:
            width = width or _width_of(cells)
            yield f"line {number}", *_parse(cells, width, number)
        number += 1
        line = _line(stream, number)


def _width_of(cells: bytes) -> int:
    width = cells.count(b" ")
    if not 1 <= width <= MAX_WIDTH:
        raise _Unfit(f"line 1: expected a word and 1 to {MAX_WIDTH:,} numbers, found {width:,}", NO_VECTORS)
    return width


def _parse(cells: bytes, width: int, number: int) -> tuple[bytes, np.ndarray]:
    """The word, which may hold spaces (GloVe's do), and its numbers."""
    word, *values = cells.rsplit(b" ", width)
    if len(values) < width or all(map(_is_number, word.split(b" ")[1:] or [b""])):
        found = cells.count(b" ")
        raise _Unfit(f"line {number}: expected a word and {width} numbers, found {found}", "remove the line")
    try:
        numbers = list(map(float, values))
    except ValueError as error:
        odd = next(value for value in values if not _is_number(value)).decode("utf-8", "replace")
        raise _Unfit(f"line {number}: {shorten(odd)!r} is no number", "remove the line") from error
    with np.errstate(over="ignore"):  # told as infinite
        return word, np.array(numbers).astype("<f4")


def _binary_entries(stream: Stream, width: int) -> Iterator[Entry]:
    number = 1
    while word := _word(stream, number):
        data = stream.read(4 * width)
        if len(data) < 4 * width:
            raise _Unfit(f"word {number}: the file ends in the middle of its numbers", "fetch it again")
        yield f"word {number}", word, np.frombuffer(data, "<f4")
        number += 1


def _word(stream: Stream, number: int) -> bytes:
    """The bytes before the next space, without the line break that may end the word before; b"" at the end."""
    letters = bytearray()
    while (letter := stream.read(1)) != b" ":
        if not letter and letters.strip(b"\r\n"):
            raise _Unfit(f"word {number}: the file ends in the middle of it", "fetch it again")
        if not letter:
            return b""
        letters += letter
        if len(letters) > MAX_WORD_BYTES:
            raise _Unfit(f"word {number}: it has more than {MAX_WORD_BYTES:,} bytes", NO_VECTORS)
    if not letters.strip(b"\r\n"):
        raise _Unfit(f"word {number}: there is none before its numbers")
    return bytes(letters.lstrip(b"\r\n"))


def _line(stream: Stream, number: int) -> bytes:
    line = stream.readline(MAX_LINE_BYTES + 1)
    if len(line) > MAX_LINE_BYTES:
        raise _Unfit(f"line {number}: it has more than {MAX_LINE_BYTES:,} bytes", NO_VECTORS)
    return line


def _decode(word: bytes, place: str) -> str:
    if not word.strip():
        raise _Unfit(f"{place}: there is no word before its numbers", "remove it")
    try:
        return word.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Unfit(f"{place}: the word is not UTF-8 ({shorten(error)})", "convert the file, or remove it") from error


def _check_finite(vector: np.ndarray, place: str) -> None:
    if not np.isfinite(vector).all():
        index = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise _Unfit(f"{place}: number {index + 1} of its vector is {vector[index]}", "remove it")


def _check_size(json_bytes: int, table_bytes: int) -> None:
    if json_bytes > WORDS_BYTES:
        raise _Unfit(f"its words are more than a tokenizer.json may hold ({MAX_JSON_BYTES >> 20} MiB)", FEWER)
    if table_bytes > MAX_TABLE_BYTES:
        raise _Unfit(f"its vectors take more than {MAX_TABLE_BYTES >> 30} GiB", FEWER)


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
