"""The accepted rows and the split's memory as Parquet: same rows, same bytes; checksums on every page."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from graftwork.data.splits import Memory, Placed
from graftwork.fingerprint import canonical_json

ROWS = pyarrow.schema(
    [
        *[pyarrow.field(name, pyarrow.string()) for name in ("row_id", "source", "group", "text", "text_b")],
        pyarrow.field("label", pyarrow.int64()),
        *[pyarrow.field(name, pyarrow.string()) for name in ("side", "unit", "file")],
        pyarrow.field("line", pyarrow.int64()),
    ]
)
MEMORY = pyarrow.schema([(name, pyarrow.string()) for name in ("content", "row_id", "group", "side")])


def write_rows(path: Path, placed: Sequence[Placed], label: str = "int64") -> None:
    """Write accepted rows in the order given. label: type of theirs."""
    column = pyarrow.field("label", pyarrow.type_for_alias(label))
    schema = ROWS.set(ROWS.get_field_index("label"), column)
    _write(path, [{**item.row._asdict(), "side": item.side, "unit": item.unit} for item in placed], schema)


def rows_digest(placed: Iterable[Placed]) -> str:
    """Digest of what the rows say and where they stand: not of the file and line they came from."""
    hashed = hashlib.sha256()
    for item in placed:
        row = item.row
        fact = (row.row_id, row.source, row.group, row.text, row.text_b, row.label, item.side, item.unit)
        hashed.update(canonical_json(fact).encode() + b"\n")
    return hashed.hexdigest()


def write_memory(path: Path, memory: Memory, placed: Iterable[Placed], learnt: Iterable[Placed] = ()) -> None:
    """Write what was remembered and what is decided now; rows that are gone stay remembered.

    learnt: rows beside them that are trained on, so that none of them is judged when it lands among the others.
    """
    groups = {group: {"group": group, "side": side} for group, side in memory.groups.items()}
    contents = {
        content: {"content": content, "row_id": memory.row_ids[content], "side": side}
        for content, side in memory.sides.items()
    }
    for item in placed:
        row = item.row
        contents[row.content] = {"content": row.content, "row_id": row.row_id, "side": item.side}
        if row.group is not None:
            groups.setdefault(row.group, {"group": row.group, "side": item.side})
    for item in learnt:
        row = item.row
        contents.setdefault(row.content, {"content": row.content, "row_id": row.row_id, "side": item.side})
        if row.group is not None:
            groups.setdefault(row.group, {"group": row.group, "side": item.side})
    entries = [entries[key] for entries in (contents, groups) for key in sorted(entries)]
    _write(path, entries, MEMORY)


def read_memory(path: Path) -> Memory:
    """What `write_memory` wrote."""
    entries = parquet.read_table(path, schema=MEMORY).to_pylist()
    contents = [entry for entry in entries if entry["content"] is not None]
    return Memory(
        sides={entry["content"]: entry["side"] for entry in contents},
        groups={entry["group"]: entry["side"] for entry in entries if entry["group"] is not None},
        row_ids={entry["content"]: entry["row_id"] for entry in contents},
    )


def _write(path: Path, rows: Sequence[Mapping[str, Any]], schema: pyarrow.Schema) -> None:
    columns = [
        pyarrow.array([row.get(name) for row in rows], kind)
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    table = pyarrow.Table.from_arrays(columns, schema=schema)
    parquet.write_table(table, path, compression="zstd", write_page_checksum=True)
