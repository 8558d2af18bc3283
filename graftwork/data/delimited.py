"""CSV and TSV: every record with the line it starts on; what is damaged is returned as a bad row, never mended."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from graftwork.data.decoding import MAX_CELL, UnreadableFileError, read_lines
from graftwork.data.quarantine import BadRow, Cells
from graftwork.errors import Problem, shorten


def read_delimited(
    path: Path,
    where: str,
    columns: Sequence[str],
    header: Sequence[str] | None,
    delimiter: str,
    encoding: str,
    is_quoted: bool,
) -> Iterator[tuple[int, Cells | BadRow]]:
    """Each record's first line and its cells in the order of `columns`; blank lines are no records.

    header: the columns of a file without a header line. is_quoted: whether a cell may stand in double quotes; where it
    may not (TSV), a quote is a character like any other. Raises UnreadableFileError.
    """
    records = _records(path, where, delimiter, encoding, is_quoted)
    if header is None:
        header = _header(next(records, None), where)
    picked = _positions(columns, header, where)
    for line, record in records:
        if isinstance(record, list):
            yield line, _pick(record, picked, len(header))
        else:
            yield line, record


def _records(
    path: Path, where: str, delimiter: str, encoding: str, is_quoted: bool
) -> Iterator[tuple[int, list[str] | BadRow]]:
    csv.field_size_limit(MAX_CELL)  # the csv module knows no limit of a single reader
    quoting: Any = csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE
    reader = csv.reader(read_lines(path, encoding, where), delimiter=delimiter, quoting=quoting, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, _bad_record(str(error), f"{where}:{line}")
        else:
            if record:
                yield line, record


def _bad_record(message: str, where: str) -> BadRow:
    """The row to set aside; raises UnreadableFileError if what follows it can't be trusted either."""
    if "unexpected end of data" in message:
        raise UnreadableFileError(
            Problem("a quote is opened here and never closed", where, "close it, or double it within a cell")
        )
    if "field limit" in message:
        raise UnreadableFileError(
            Problem(f"a cell is longer than {MAX_CELL} characters", where, "is a quote opened, never closed?")
        )
    return BadRow("", "damaged row", message)


def _header(first: tuple[int, list[str] | BadRow] | None, where: str) -> list[str]:
    if first is None:
        raise UnreadableFileError(Problem("nothing landed: the file is empty", where))
    line, names = first
    if isinstance(names, BadRow):
        raise UnreadableFileError(Problem(f"the header can't be read: {names.value}", f"{where}:{line}"))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UnreadableFileError(
            Problem(f"column {twice[0]!r} is in the header more than once", f"{where}:{line}", "rename one")
        )
    return names


def _positions(columns: Sequence[str], header: Sequence[str], where: str) -> list[int]:
    missing = [column for column in columns if column not in header]
    if missing:
        raise UnreadableFileError(
            Problem(
                f"no column {missing[0]!r}; there are {shorten(', '.join(header))}",
                where,
                "correct the recipe, or give `header:` if the file has no header line",
            )
        )
    return [header.index(column) for column in columns]


def _pick(record: list[str], positions: Sequence[int], width: int) -> Cells | BadRow:
    if len(record) != width:
        kind = "short row" if len(record) < width else "row with extra fields"
        return BadRow("", kind, f"{len(record)} fields, expected {width}")
    return tuple([record[position] for position in positions])
