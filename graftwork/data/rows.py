"""Rows as the rest of the package knows them: named, grouped, labelled, and known by their content."""

import hashlib
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from graftwork.data.contracts import MISSING
from graftwork.data.decoding import MAX_CELL
from graftwork.data.quarantine import BadRow
from graftwork.targets.target import Label, Read, Unread

if TYPE_CHECKING:
    import pandas as pd

DIGEST_BYTES = 16


class Row(NamedTuple):
    """A row that can be trained on. group: None where the source has none. label: as its target stores it.

    content: digest of the text (both texts of a pair) as far as two writings of it count as the same.
    """

    row_id: str
    source: str
    file: str
    line: int
    group: str | None
    text: str
    text_b: str | None
    label: Label
    content: str


def make_row(
    source: str,
    file: str,
    line: int,
    cells: Mapping[str, str | None],
    texts: tuple[str, ...],
    labels: tuple[str, ...],
    read_label: Read,
    id_column: str | None = None,
    group: str | None = None,
    group_before: str | None = None,
    may_be_empty: bool = False,
    kin: str | None = None,
) -> Row | BadRow:
    """The row in these cells, or why it is none; its id and its group are headed by the source's name.

    labels, id_column, group: names of columns. Without an id column a row is named by its file and line.
    group_before: the group is what stands before it. may_be_empty: an empty cell is a label, too. kin: the source that
    its groups are of, if they are another's.
    """
    needed = {id_column, group} | (set() if may_be_empty else {*labels})
    for column, cell in cells.items():
        if len(cell or "") > MAX_CELL:
            return BadRow(column, f"longer than {MAX_CELL} characters", "")
        if column in needed and not (cell or "").strip():
            return BadRow(column, MISSING, "")
    raw = [cells[column] or "" for column in labels]
    label = read_label(raw)
    if isinstance(label, Unread):
        return BadRow(labels[label.place], label.reason, raw[label.place])
    pair = [cells[text] or "" for text in texts]
    return Row(
        row_id=f"{source}/{file}:{line}" if id_column is None else f"{source}/{cells[id_column]}",
        source=source,
        file=file,
        line=line,
        group=None if group is None else f"{kin or source}/{_before(cells[group] or '', group_before)}",
        text=pair[0],
        text_b=pair[1] if len(pair) > 1 else None,
        label=label,
        content=content_digest(*pair),
    )


def content_digest(*texts: str) -> str:
    """Equal for texts that differ only in Unicode form (NFC), in case, or in white space."""
    same = [" ".join(unicodedata.normalize("NFC", text).casefold().split()) for text in texts]
    return hashlib.blake2b("\0".join(same).encode(), digest_size=DIGEST_BYTES).hexdigest()


def contents(rows: "pd.DataFrame") -> "pd.Series":
    """The content digest of each row of a manifest: what counts as the same text, also where it has another id."""
    import pandas as pd

    pairs = zip(rows["text"], rows["text_b"], strict=True)
    digests = [content_digest(*(text for text in pair if isinstance(text, str))) for pair in pairs]
    return pd.Series(digests, index=rows.index, dtype=object)


def _before(text: str, separator: str | None) -> str:
    return text if separator is None else text.partition(separator)[0]
