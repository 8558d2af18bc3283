"""JSON lines: one object a line, strictly; numbers keep the digits they were written with."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from graftwork.data.decoding import UnreadableFileError, read_lines
from graftwork.data.quarantine import BadRow, Cells
from graftwork.errors import Problem

MAX_DIGITS = 100
MAX_DEPTH = 100


class _RefusedError(ValueError):
    """JSON that Python's reader would accept and that we do not."""


def read_json_lines(
    path: Path, where: str, columns: Sequence[str], encoding: str, lists: Sequence[str] = ()
) -> Iterator[tuple[int, Cells | BadRow]]:
    """Each line's number and its values in the order of `columns`, as text; null is None.

    lists: columns that may hold lists of words, which come with blanks between. Raises UnreadableFileError.
    """
    for number, line in enumerate(read_lines(path, encoding, where), start=1):
        if not line.strip():
            continue
        row = _row(line, columns, lists)
        if isinstance(row, BadRow) and row.reason == "not JSON" and not line.endswith("\n"):
            raise UnreadableFileError(
                Problem(f"the file ends within this line ({row.value})", f"{where}:{number}", "let its writer finish")
            )
        yield number, row


def _row(line: str, columns: Sequence[str], lists: Sequence[str]) -> Cells | BadRow:
    try:
        value = json.loads(
            line, object_pairs_hook=_object, parse_constant=_no_constant, parse_int=_number, parse_float=_number
        )
        if not isinstance(value, dict):
            raise _RefusedError("expected an object")
        return tuple([_cell(value, column, column in lists) for column in columns])
    except _RefusedError as error:
        return BadRow("", "JSON that is refused", str(error))
    except RecursionError:
        return BadRow("", "JSON that is refused", "nested too deeply")
    except ValueError as error:
        return BadRow("", "not JSON", str(error))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RefusedError(f"key {twice!r} is there more than once")
    return built


def _no_constant(name: str) -> Any:
    raise _RefusedError(f"{name} is not a JSON number")


def _number(digits: str) -> str:
    if len(digits) > MAX_DIGITS:
        raise _RefusedError(f"a number of {len(digits)} digits, at most {MAX_DIGITS} are read")
    return digits


def _cell(row: dict[str, Any], column: str, may_be_list: bool) -> str | None:
    if column not in row:
        raise _RefusedError(f"no key {column!r}")
    value = row[column]
    if may_be_list and isinstance(value, list):
        value = _joined(value, column)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        raise _RefusedError(
            f"{column!r} is an {'object' if isinstance(value, dict) else 'array'}, expected text or a number"
        )
    if value is not None and not _is_unicode(value):
        raise _RefusedError(f"{column!r} holds half of a surrogate pair")
    return value


def _joined(words: list[Any], column: str) -> str:
    if not all(isinstance(word, str) and word.split() == [word] for word in words):
        raise _RefusedError(f"{column!r} is an array, and not of words without white space")
    return " ".join(words)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
