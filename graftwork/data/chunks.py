"""One file with all of its columns, some thousand rows at a time: what `init` and `predict` look at.

Delimited text and JSON lines go through the readers that training uses, so their cells are text and their faults are
told in the same words; Parquet keeps its types.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any

from graftwork.data.decoding import UnreadableFileError, read_lines
from graftwork.data.delimited import read_delimited
from graftwork.data.jsonlines import read_json_lines
from graftwork.data.parquet import holds_words, join_words, open_parquet
from graftwork.data.quarantine import BadRow, Cells
from graftwork.data.sources import FILE, FOLDER, FORMATS, MEDIA, NAME, cells_of_media, stamp_files
from graftwork.errors import DataError, Problem, shorten
from graftwork.fingerprint import digest, file_digest
from graftwork.sections.data import NOUNS

if TYPE_CHECKING:
    import pyarrow

ROWS = 4096
FOLDER_KIND = "folder"
ENCODING = "utf-8"


@dataclass(frozen=True)
class TableFile:
    """A file with named columns, or a folder of pictures or sounds. kind: its format. names: of files in a folder."""

    path: Path
    kind: str
    columns: tuple[str, ...]
    names: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where paths in its cells lead from."""
        return self.path if self.kind == FOLDER_KIND else self.path.parent

    @property
    def digest(self) -> str:
        """Of what it holds now; of a folder, of the names of all files in it."""
        return digest(list_media(self.path)) if self.kind == FOLDER_KIND else file_digest(self.path)


@dataclass(frozen=True)
class Chunk:
    """Rows that follow one another.

    lines: where each stands (its number, in Parquet). damaged: what is wrong with the rows left out, by line. lists:
    columns that may hold lists of words.
    """

    lines: Sequence[int]
    table: "pyarrow.Table"
    damaged: Mapping[int, str] = field(default_factory=dict)
    lists: Sequence[str] = ()

    def cells(self, column: str) -> list[str | None]:
        """A column as text, lists of words with blanks between. Raises DataError for a type that has none."""
        import pyarrow

        found = self.table.column(column)
        if column in self.lists and holds_words(self.table.schema, column):
            return self._words(column)
        try:
            return found.cast(pyarrow.string()).to_pylist()
        except pyarrow.ArrowException as error:
            raise DataError(f"column {column!r} is {found.type}, expected text or a number") from error

    def _words(self, column: str) -> list[str | None]:
        words: list[str | None] = []
        for line, found in zip(self.lines, self.table.column(column).to_pylist(), strict=True):
            joined = join_words(found)
            if isinstance(joined, BadRow):
                raise DataError(Problem(f"{joined.reason}: {shorten(joined.value)}", f"column {column!r}, row {line}"))
            words.append(joined)
        return words


def open_table(path: Path) -> TableFile:
    """The file's format, by its suffix, and its columns in order. Raises DataError."""
    if not path.is_file():
        hint = "name one file of it" if path.is_dir() else ""
        raise DataError(Problem("it is a folder" if hint else "there is no such file", str(path), hint))
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise DataError(
            Problem("the format can't be told from the suffix", str(path), f"known are {', '.join(FORMATS)}")
        )
    columns = tuple(_columns(path, kind))
    if not columns:
        raise UnreadableFileError(Problem("nothing landed: the file has no columns and no rows", str(path)))
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise DataError(Problem(f"column {twice[0]!r} is there more than once", str(path), "rename one"))
    return TableFile(path, kind, columns)


def open_folder(path: Path, modality: str) -> TableFile:
    """A folder's pictures or sounds as a table: of each its path in the folder, the folder that it is in, and its name.

    Raises DataError if there is none.
    """
    suffixes = MEDIA.get(modality, ())
    names = tuple(name for name in list_media(path) if PurePosixPath(name).suffix.lower() in suffixes)
    if not names:
        hint = f"it is to hold {NOUNS[modality]}" if suffixes else "name one file of it: the model reads texts"
        raise DataError(Problem("it is a folder" if not suffixes else f"no {NOUNS[modality]}", str(path), hint))
    return TableFile(path, FOLDER_KIND, (FILE, FOLDER, NAME), names)


def list_media(path: Path) -> list[str]:
    """The files below a folder, sorted by their paths in it, without what is hidden or still being written."""
    place = path.absolute()
    return sorted(PurePath(name).relative_to(place).as_posix() for _, name, *_ in stamp_files("", place, place))


def read_chunks(
    file: TableFile, columns: Sequence[str], rows: int = ROWS, lists: Sequence[str] = ()
) -> Iterator[Chunk]:
    """The file from its first row to its last, with these columns in this order.

    lists: those that may hold lists of words, in JSON lines and Parquet. Raises DataError if it has no rows.
    """
    chunks = CHUNKS.get(file.kind, _text_chunks)(file, columns, rows, lists)
    count = 0
    for chunk in chunks:
        count += len(chunk.lines) + len(chunk.damaged)
        yield chunk
    if not count:
        raise UnreadableFileError(Problem("nothing landed: the file has no rows", str(file.path)))


def _columns(path: Path, kind: str) -> Sequence[str]:
    if kind == "parquet":
        with open_parquet(path, str(path)) as file:
            return list(file.schema_arrow.names)
    if kind == "jsonl":
        return list(_keys(path))
    lines = read_lines(path, ENCODING, str(path))
    try:
        return next(filter(None, csv.reader(lines, **_dialect(kind))), [])  # blank lines are no records
    except csv.Error as error:
        raise UnreadableFileError(Problem(f"the header can't be read: {error}", f"{path}:1")) from error


def _dialect(kind: str) -> dict[str, Any]:
    is_quoted = kind == "csv"
    quoting = csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE
    return {"delimiter": "," if is_quoted else "\t", "quoting": quoting, "strict": True}


def _keys(path: Path) -> dict[str, None]:
    """The keys of all lines, in the order in which they first come; what is no object is left to the reader."""
    keys: dict[str, None] = {}
    for line in read_lines(path, ENCODING, str(path)):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            keys |= dict.fromkeys(value)
    return keys


def _text_chunks(file: TableFile, columns: Sequence[str], size: int, lists: Sequence[str]) -> Iterator[Chunk]:
    where = str(file.path)
    rows: Iterator[tuple[int, Cells | BadRow]]
    if file.kind == "jsonl":
        rows = read_json_lines(file.path, where, columns, ENCODING, lists)
    else:
        is_quoted = file.kind == "csv"
        rows = read_delimited(file.path, where, columns, None, "," if is_quoted else "\t", ENCODING, is_quoted)
    while some := list(islice(rows, size)):
        yield _text_chunk(some, columns)


def _text_chunk(rows: Sequence[tuple[int, Cells | BadRow]], columns: Sequence[str]) -> Chunk:
    import pyarrow

    whole = [(line, row) for line, row in rows if not isinstance(row, BadRow)]
    damaged = {line: f"{row.reason}: {shorten(row.value)}" for line, row in rows if isinstance(row, BadRow)}
    cells = [[row[index] for _, row in whole] for index in range(len(columns))]
    schema = pyarrow.schema([(column, pyarrow.string()) for column in columns])
    table = pyarrow.Table.from_arrays([pyarrow.array(column, pyarrow.string()) for column in cells], schema=schema)
    return Chunk([line for line, _ in whole], table, damaged)


def _parquet_chunks(file: TableFile, columns: Sequence[str], size: int, lists: Sequence[str]) -> Iterator[Chunk]:
    import pyarrow

    first = 1
    with open_parquet(file.path, str(file.path)) as parquet:
        for batch in parquet.iter_batches(batch_size=size, columns=list(columns)):
            table = pyarrow.Table.from_batches([batch]).select(list(columns))
            yield Chunk(range(first, first + table.num_rows), table, lists=lists)
            first += table.num_rows


def _folder_chunks(file: TableFile, columns: Sequence[str], size: int, _lists: Sequence[str]) -> Iterator[Chunk]:
    rows = enumerate((cells_of_media(name) for name in file.names), start=1)
    while some := list(islice(rows, size)):
        yield _text_chunk([(number, tuple(known[column] for column in columns)) for number, known in some], columns)


CHUNKS = {"parquet": _parquet_chunks, FOLDER_KIND: _folder_chunks}
