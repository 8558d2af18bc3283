"""Tables as files that anybody can read: CSV, TSV, JSON lines, Parquet; every cell exactly as it is.

Not for reports that people open in a spreadsheet: those are in quarantine.py, where no cell stays a formula.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.errors import DataError, Problem, shorten

if TYPE_CHECKING:
    import pyarrow


def _write_csv(path: Path, tables: "Iterable[pyarrow.Table]") -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        # Text in quotes, always: else a lone carriage return would be written bare, and read as the end of a row.
        writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        for index, table in enumerate(tables):
            if index == 0:
                writer.writerow(table.column_names)
            writer.writerows([_flat(cell) for cell in row] for row in _rows(table))


def _flat(cell: Any) -> Any:
    """A cell as a table of text has it: lists as JSON, and what only Parquet knows, such as dates in them, as text."""
    return json.dumps(cell, ensure_ascii=False, default=str) if isinstance(cell, list) else cell


def _write_tsv(path: Path, tables: "Iterable[pyarrow.Table]") -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        for index, table in enumerate(tables):
            if index == 0:
                stream.write(_tab_line(table.column_names))
            stream.writelines(map(_tab_line, _rows(table)))


def _tab_line(row: Iterable[Any]) -> str:
    cells = ["" if cell is None else str(_flat(cell)) for cell in row]
    for cell in cells:
        if re.search(r"[\t\r\n]", cell):
            problem = f"TSV has no place for a tab or a line break in a cell, found {shorten(cell)!r}"
            raise DataError(Problem(problem, hint="write .csv, .jsonl or .parquet"))
    return "\t".join(cells) + "\n"


def _write_json_lines(path: Path, tables: "Iterable[pyarrow.Table]") -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        for table in tables:
            stream.writelines(_json_line(dict(zip(table.column_names, row, strict=True))) for row in _rows(table))


def _json_line(row: dict[str, Any]) -> str:
    try:
        # Dates and decimals, which only Parquet knows, as text.
        return json.dumps(row, ensure_ascii=False, allow_nan=False, default=str) + "\n"
    except ValueError as error:
        problem = f"JSON has no NaN and no infinity, found in {shorten(row)}"
        raise DataError(Problem(problem, hint="write .csv or .parquet")) from error


def _write_parquet(path: Path, tables: "Iterator[pyarrow.Table]") -> None:
    from pyarrow.parquet import ParquetWriter

    first = next(tables)
    with ParquetWriter(path, first.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _rows(table: "pyarrow.Table") -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


# By suffix. Each writes at least one table, all of the same columns; DataError for what the format can't hold.
WRITERS: dict[str, Callable[[Path, "Iterator[pyarrow.Table]"], None]] = {
    ".csv": _write_csv,
    ".tsv": _write_tsv,
    ".jsonl": _write_json_lines,
    ".parquet": _write_parquet,
}
