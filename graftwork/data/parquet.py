"""Parquet: columns as text, exactly, or encoded files; types that have no exact text are refused by column."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.data.decoding import UnreadableFileError
from graftwork.data.quarantine import BadRow, Cells
from graftwork.errors import Problem

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import ParquetFile

MAX_ROW_GROUP_BYTES = 4 << 30


def read_parquet(
    path: Path,
    where: str,
    columns: Sequence[str],
    exact: Sequence[str],
    files: Sequence[str] = (),
    lists: Sequence[str] = (),
) -> Iterator[tuple[int, Cells | BadRow]]:
    """Each row's number from 1 and its values in the order of `columns`, as text; null is None.

    exact: columns that hold text or names: a float there is drift. files: those of them that may hold encoded files,
    in whose place the row's number stands (see `EmbeddedFiles`). lists: those of them that may hold lists of words,
    which come with blanks between. Raises UnreadableFileError.
    """

    with open_parquet(path, where) as file:
        schema = file.schema_arrow
        embedded = [name for name in files if holds_files(schema, name)]
        listed = [name for name in lists if holds_words(schema, name)]
        _check_schema(schema, [name for name in columns if name not in (*embedded, *listed)], exact, where)
        _check_size(file, where)
        table = file.read(columns=[name for name in columns if name not in embedded])
        numbers = [str(number + 1) for number in range(file.metadata.num_rows)]
        cells = [
            numbers if column in embedded else _cells(table.column(column), column in listed) for column in columns
        ]
    for number, row in enumerate(zip(*cells, strict=True), start=1):
        bad = next((cell for cell in row if isinstance(cell, BadRow)), None)
        yield number, bad or row


def _cells(column: "pyarrow.ChunkedArray", is_list: bool) -> list[Any]:
    """Each value as text, null as None; of a list of words that are none, what is wrong with it."""
    import pyarrow

    return [join_words(words) for words in column.to_pylist()] if is_list else column.cast(pyarrow.string()).to_pylist()


def join_words(words: list[str | int | None] | None) -> str | BadRow | None:
    """Words with blanks between; of a list of something else, what is wrong with it."""
    if words is None:
        return None
    if not all(word is not None and str(word).split() == [str(word)] for word in words):
        return BadRow("", "a list, and not of words without white space", str(words))
    return " ".join(map(str, words))


def holds_words(schema: "pyarrow.Schema", column: str) -> bool:
    """Whether a column is of lists of texts, or of integers, as tags are often numbered."""
    from pyarrow import types

    kind = schema.field(column).type if schema.names.count(column) == 1 else None
    if kind is None or not (types.is_list(kind) or types.is_large_list(kind)):
        return False
    return _is_text(kind.value_type) or types.is_integer(kind.value_type)


def _is_text(kind: "pyarrow.DataType") -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


@contextmanager
def open_parquet(path: Path, where: str) -> "Iterator[ParquetFile]":
    """The file, for as long as it is read. Raises UnreadableFileError where it is not whole."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        # Pages with a checksum are verified; pyarrow would hand over flipped bits otherwise.
        with ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except UnicodeDecodeError as error:  # which pyarrow finds out when a text is looked at, and not when it is read
        raise UnreadableFileError(Problem(f"a text in it is not UTF-8: {error}", where)) from error
    except (pyarrow.ArrowException, OSError) as error:
        raise UnreadableFileError(Problem(f"not a whole Parquet file: {error}", where)) from error


def holds_files(schema: "pyarrow.Schema", column: str) -> bool:
    """Whether a column is of bytes, or of {bytes, path} as the datasets library writes pictures and sounds."""
    from pyarrow import types

    kind = schema.field(column).type if schema.names.count(column) == 1 else None
    if kind is not None and types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return kind is not None and (types.is_binary(kind) or types.is_large_binary(kind))


class EmbeddedFiles:
    """The encoded files that a column holds, by the number of their row, from 1."""

    def __init__(self, column: "pyarrow.ChunkedArray") -> None:
        import pyarrow
        import pyarrow.compute

        is_struct = pyarrow.types.is_struct(column.type)
        self.found = pyarrow.compute.struct_field(column, "bytes") if is_struct else column

    @classmethod
    def of(cls, path: Path, column: str) -> "EmbeddedFiles | None":
        """Those of a table; None if the column holds none. Raises UnreadableFileError for a table that is not whole."""
        with open_parquet(path, str(path)) as file:
            _check_size(file, str(path))
            if not holds_files(file.schema_arrow, column):
                return None
            return cls(file.read(columns=[column]).column(column))

    def __getitem__(self, number: int) -> bytes | None:
        data: bytes | None = self.found[number - 1].as_py()
        return data


def _check_schema(schema: "pyarrow.Schema", columns: Sequence[str], exact: Sequence[str], where: str) -> None:
    from pyarrow import types

    for column in columns:
        count = schema.names.count(column)
        if count != 1:
            found = "no column" if count == 0 else f"{count} columns"
            raise UnreadableFileError(Problem(f"{found} {column!r}; there are {', '.join(schema.names)}", where))
        kind = schema.field(column).type
        if types.is_dictionary(kind):
            kind = kind.value_type
        is_exact = _is_text(kind) or types.is_integer(kind) or types.is_boolean(kind)
        if not (is_exact or (column not in exact and types.is_floating(kind))):
            expected = "text or an integer" if column in exact else "text or a number"
            raise UnreadableFileError(Problem(f"column {column!r} is {kind}, expected {expected}", where))


def _check_size(file: "pyarrow.parquet.ParquetFile", where: str) -> None:
    for index in range(file.num_row_groups):
        size = file.metadata.row_group(index).total_byte_size
        if size > MAX_ROW_GROUP_BYTES:
            limit = f"at most {MAX_ROW_GROUP_BYTES >> 30} GiB are read"
            raise UnreadableFileError(Problem(f"row group {index} declares {size >> 20} MiB, {limit}", where))
