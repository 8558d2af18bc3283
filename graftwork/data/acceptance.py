"""From landed files to accepted rows on their sides: every row that was read is kept, set aside, or a duplicate."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from graftwork.data.contracts import Contract, broken_rows
from graftwork.data.decoding import UnreadableFileError
from graftwork.data.leakage import Distinct, Duplicate, distinct_rows
from graftwork.data.quarantine import BadRow, Cells, Rejected
from graftwork.data.rows import Row, content_digest
from graftwork.data.sources import LandedFile, read_file
from graftwork.data.splits import Bridge, Memory, Placed, place_rows
from graftwork.errors import DataError, Problem, shorten
from graftwork.targets.target import Label, Numbers

TRAIN = "train"
WITHHELD = "belongs to rows that are not trained on"
Place = tuple[str, str]
Take = Callable[[LandedFile, str, str], str | BadRow]  # by a row's file, a cell of it, and the cell's column


@dataclass
class ReadRows:
    """What reading gave, file by file. read: rows of each file, by source and name; a file that is not whole has 0."""

    rows: list[Row] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    read: dict[Place, int] = field(default_factory=dict)
    unreadable: dict[Place, str] = field(default_factory=dict)
    refused: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Acceptance:
    """Where every well-formed row went. not_taken: rows beyond the limit of a quick try."""

    placed: list[Placed]
    rejected: list[Rejected]
    duplicates: list[Duplicate]
    not_taken: list[Row]


def read_source(
    into: ReadRows,
    files: Sequence[LandedFile],
    columns: Sequence[str],
    texts: Sequence[str],
    names: Sequence[str],
    build: Callable[[str, str, int, Mapping[str, str | None]], Row | BadRow],
    contract: Contract | None,
    written: Mapping[str, Any],
    take: Take | None = None,
) -> None:
    """Read the files of one source into `into`.

    columns: those that are needed, `texts` and `names` (ids, groups) among them. build: makes a row from its source,
    file, line and cells. written: how the files are written (see `read_file`).
    take: gives what stands for the file that a row names, or what is wrong with it; None where rows hold texts.
    """
    tables = [file for file in files if not file.is_media]
    into.read |= {(file.source, file.name): 0 for file in files}
    landed = [
        (file, *line) for file in tables or files for line in _read(into, file, columns, (*texts, *names), written)
    ]
    whole = {number: row for number, (_, _, row) in enumerate(landed) if not isinstance(row, BadRow)}
    broken = broken_rows(whole, columns, texts, contract)
    for number, (file, line, row) in enumerate(landed):
        made: Row | BadRow | None = row if isinstance(row, BadRow) else broken.get(number)
        if made is None:
            cells = dict(zip(columns, whole[number], strict=True))
            bad = _take_media(file, cells, texts, take) if take else None
            made = bad or build(file.source, file.name, line, cells)
        if isinstance(made, Row):
            into.rows.append(made)
        else:
            into.rejected.append(Rejected(file.source, file.name, line, made.column, made.reason, made.value))


def _take_media(file: LandedFile, cells: dict[str, str | None], columns: Sequence[str], take: Take) -> BadRow | None:
    """Put what stands for its file in the place of the path that a row has; what is wrong with it, if anything."""
    for column in columns:
        taken = take(file, cells[column] or "", column)
        if isinstance(taken, BadRow):
            return taken
        cells[column] = taken
    return None


def _read(
    into: ReadRows, file: LandedFile, columns: Sequence[str], exact: Sequence[str], written: Mapping[str, Any]
) -> list[tuple[int, Cells | BadRow]]:
    """The lines of a file. One that is not whole is set aside where it landed, refused where the recipe names it."""
    place = (file.source, file.name)
    lines: list[tuple[int, Cells | BadRow]] = []
    try:
        lines = read_file(file, columns, exact, **written)
    except UnreadableFileError as error:
        into.unreadable[place] = str(error)
        if file.is_landing:
            into.rejected.append(Rejected(*place, 0, "", "file that can't be read", str(error)))
        else:
            into.refused.extend(error.problems)
    into.read[place] = len(lines)
    return lines


def accept_rows(
    rows: Sequence[Row],
    memory: Memory,
    tell: Callable[[Label], str],
    by: Sequence[str],
    alike: Callable[[Sequence[Row]], list[tuple[int, int]]],
    conflicts: str,
    holdout: float,
    validation: float,
    seed: int,
    limit: int | None = None,
) -> Acceptance:
    """Each text once and on its side; what contradicts itself or would connect two sides is set aside.

    tell: a label in words. alike: finds pairs of near duplicates among rows. conflicts: as of `distinct_rows`. limit:
    only that many rows are looked at, those of the smallest content digests, which are as good as random.
    """
    taken, not_taken = _first(rows, limit)
    distinct = distinct_rows(taken, memory.row_ids, conflicts)
    pairs = alike(distinct.rows) if "near_duplicate" in by else []
    placed, bridges = place_rows(distinct.rows, pairs, memory, "group" in by, holdout, validation, seed)
    rejected = [*_rejected(distinct, tell), *map(_reject_bridge, bridges)]
    return Acceptance(placed, rejected, distinct.duplicates, not_taken)


def accept_auxiliary(
    rows: Sequence[Row],
    beside: Sequence[Placed],
    tell: Callable[[Label], str],
    by: Sequence[str],
    alike: Callable[[Sequence[Row]], list[tuple[int, int]]],
    conflicts: str,
    kin: Mapping[str, str],
    limit: int | None = None,
) -> Acceptance:
    """Rows to learn from beside those that have their sides: each text once, and none that belongs to a row judged.

    To belong together means what it means there, so that a row of the holdout, or what is nearly one, is not learnt
    from under another name; and one record, read by other columns, belongs to itself. What is accepted is on the
    training side. kin: by name of a source, another whose records its own are. All else as `accept_rows`.
    """
    taken, not_taken = _first(rows, limit)
    distinct = distinct_rows(taken, {}, conflicts)
    known = [item.row for item in beside]
    every = [*known, *distinct.rows]
    memory = Memory(
        {item.row.content: item.side for item in beside},
        {item.row.group: item.side for item in beside if item.row.group is not None},
    )
    pairs = [*(alike(every) if "near_duplicate" in by else ()), *_same_records(known, distinct.rows, kin)]
    pairs += _same_pictures(every)
    found, bridges = place_rows(every, pairs, memory, "group" in by, holdout=0.0, validation=0.0, seed=0)
    old = {row.row_id for row in known}
    placed = [item for item in found if item.row.row_id not in old]
    withheld = [_reject(item.row, WITHHELD, item.side) for item in placed if item.side != TRAIN]
    rejected = [*_rejected(distinct, tell), *withheld, *(_reject_bridge(bridge, WITHHELD) for bridge in bridges)]
    return Acceptance([item for item in placed if item.side == TRAIN], rejected, distinct.duplicates, not_taken)


def _same_records(known: Sequence[Row], rows: Sequence[Row], kin: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """Pairs of a known row and one of the others, by their places in both together, that are read from one record."""
    places = {row.row_id: place for place, row in enumerate(known)}
    for place, row in enumerate(rows, start=len(known)):
        record = f"{kin.get(row.source)}/{row.row_id.removeprefix(f'{row.source}/')}"
        if record in places:
            yield places[record], place


def _same_pictures(rows: Sequence[Row]) -> Iterator[tuple[int, int]]:
    """Pairs of places of rows of one picture, of which some have a caption; none where all rows are pairs of texts."""
    if len({row.text_b is None for row in rows}) < 2:
        return
    first: dict[str, int] = {}
    for place, row in enumerate(rows):
        seen = first.setdefault(row.text, place)
        if seen != place:
            yield seen, place


def without_caption(item: Placed) -> Placed:
    """A row of a picture as it is remembered: by the picture alone, whatever was said of it."""
    return (
        item if item.row.text_b is None else replace(item, row=item.row._replace(content=content_digest(item.row.text)))
    )


def _first(rows: Sequence[Row], limit: int | None) -> tuple[list[Row], list[Row]]:
    """The rows of the smallest content digests, so many of them, and the others."""
    ordered = sorted(rows, key=lambda row: (row.content, row.row_id, row.file, row.line))
    return ordered[:limit], ordered[len(ordered) if limit is None else limit :]


def _rejected(distinct: Distinct, tell: Callable[[Label], str]) -> list[Rejected]:
    renamed = [_reject(row, "id seen before with another text", row.row_id) for row in distinct.renamed]
    return renamed + [
        _reject(row, "equal texts with different labels", f"{tell(row.label)}: {row.text}")
        for row in distinct.conflicts
    ]


def _reject_bridge(bridge: Bridge, reason: str = "would join rows on opposite sides") -> Rejected:
    sides = ", ".join(f"{side} ({name})" for side, name in sorted(bridge.neighbours.items()))
    return _reject(bridge.row, reason, sides)


def _reject(row: Row, reason: str, value: str) -> Rejected:
    return Rejected(row.source, row.file, row.line, "", reason, shorten(value))


def check_classes(sides: Mapping[str, Mapping[str, int]]) -> None:
    """Refuse data with an empty side, or with a class that has no row to train on or none to be judged by.

    sides: rows of each class on each side.
    """
    problems = []
    for side, by_class in sides.items():
        missing = [name for name, rows in by_class.items() if rows == 0]
        if len(missing) == len(by_class):
            problems.append(Problem("no rows", f"side {side!r}", "more rows are needed, or other shares in `split:`"))
        elif missing and side != "validation":
            named = ", ".join(repr(name) for name in missing)
            problems.append(Problem(f"no rows of class {named}", f"side {side!r}", _class_hint(missing, sides)))
    if problems:
        raise DataError(*problems)


def check_numbers(numbers: Mapping[str, Numbers]) -> None:
    """Refuse labels that are one number on the training side, by side what is known of them."""
    if "train" in numbers and numbers["train"].std == 0:
        found = f"every row is labelled {numbers['train'].mean:g}"
        raise DataError(Problem(found, "side 'train'", "there is nothing to learn: check `label:` and what landed"))


def _class_hint(missing: Sequence[str], sides: Mapping[str, Mapping[str, int]]) -> str:
    gone = [name for name in missing if not any(by_class[name] for by_class in sides.values())]
    if gone:
        return f"no row at all is {gone[0]!r}: check `label:` and what landed"
    return "more rows of it are needed, or more and smaller groups"
