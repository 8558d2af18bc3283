"""Rows that are set aside: each with its place and reason, and the refusal when they are too many."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from graftwork.errors import SHOWN_PROBLEMS, DataError, Problem, shorten

# What a spreadsheet would run as a formula.
QUARANTINE = "quarantine.csv"
FORMULA_STARTS = ("=", "+", "-", "@")

Cells = tuple[str | None, ...]


@dataclass(frozen=True)
class BadRow:
    """Why a reader could not give a row; `column` is empty where the row as a whole is damaged."""

    column: str
    reason: str
    value: str


@dataclass(frozen=True)
class Rejected:
    """A row in quarantine; line 0 stands for a whole file."""

    source: str
    file: str
    line: int
    column: str
    reason: str
    value: str


def write_quarantine(path: Path, rejected: Iterable[Rejected]) -> None:
    """Write the quarantine report, sorted by place; values are shortened, and no cell is a formula."""
    rows = [astuple(row) for row in sorted(rejected, key=lambda row: (row.source, row.file, row.line, row.column))]
    write_report(path, [field.name for field in fields(Rejected)], rows)


def write_report(path: Path, header: list[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV report that a spreadsheet can open safely."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([export_cell(value) for value in row] for row in rows)


def export_cell(value: object) -> str:
    """The value on one line, shortened, and marked as text where a spreadsheet would run it."""
    text = shorten(value)
    return f"'{text}" if text.lstrip().startswith(FORMULA_STARTS) else text


def quarantine_error(report: Path, summary: str) -> DataError:
    """The error for too much set aside: the top reasons, then rows, those of the top reason first."""
    rows = list(_read_quarantine(report))
    counts = Counter((row.column, row.reason) for row in rows)
    reasons = ", ".join(f"{_named(*key)}: {count}" for key, count in counts.most_common(3))
    head = Problem(
        f"{summary}; {reasons}", hint=f"all of them are in {report}; mend the data, or raise `quarantine_tolerance`"
    )
    rows.sort(key=lambda row: -counts[row.column, row.reason])
    shown = [
        Problem(f"{_named(row.column, row.reason)}: {row.value}", f"{row.source}/{row.file}:{row.line}") for row in rows
    ]
    return DataError(head, *shown[: SHOWN_PROBLEMS - 1])


def _named(column: str, reason: str) -> str:
    return f"{column}: {reason}" if column else reason


def _read_quarantine(path: Path) -> Iterator[Rejected]:
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            yield Rejected(**{**row, "line": int(row["line"])})  # type: ignore[arg-type]
