"""Which side a row is on: decided once for its unit, then inherited by every later manifest.

A unit is what must not be parted: rows connected by a shared group, by equal texts, or as near duplicates. A new row
that would connect units of opposite sides is set aside, so that no side is ever changed.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from graftwork.data.rows import Row

SIDES = ("train", "validation", "holdout")


@dataclass(frozen=True)
class Memory:
    """What earlier manifests decided: the side of each content and group, and the id under which a content was kept."""

    sides: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    row_ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Placed:
    """A row with its unit (the smallest content digest in it) and its side."""

    row: Row
    unit: str
    side: str


@dataclass(frozen=True)
class Bridge:
    """A new row that would connect two sides; `neighbours` names one row or group of each."""

    row: Row
    neighbours: Mapping[str, str]


class _Units:
    """Disjoint sets of named members, each set on one side or not decided yet."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}
        self._sides: dict[str, str | None] = {}

    def add(self, member: str, side: str | None) -> None:
        if member not in self._above:
            self._above[member] = member
            self._sides[member] = side

    def root(self, member: str) -> str:
        while self._above[member] != member:
            self._above[member] = member = self._above[self._above[member]]
        return member

    def side(self, member: str) -> str | None:
        return self._sides[self.root(member)]

    def join(self, one: str, other: str) -> None:
        a, b = self.root(one), self.root(other)
        if a != b:
            self._above[b] = a
            self._sides[a] = self._sides[a] or self._sides[b]


def place_rows(
    rows: Sequence[Row],
    pairs: Iterable[tuple[int, int]],
    memory: Memory,
    by_group: bool,
    holdout: float,
    validation: float,
    seed: int,
) -> tuple[list[Placed], list[Bridge]]:
    """Every row on its side, and the new rows that would connect two sides; both sorted by row id.

    pairs: near duplicates, by position in `rows`. holdout, validation: shares of the units that are new.
    """
    units, bridges = _connect(rows, _neighbours(rows, pairs), memory, by_group)
    bridging = {bridge.row.row_id for bridge in bridges}
    kept = sorted((row for row in rows if row.row_id not in bridging), key=lambda row: row.row_id)
    smallest: dict[str, str] = {}
    for row in kept:
        root = units.root(row.content)
        smallest[root] = min(smallest.get(root, row.content), row.content)
    placed = []
    for row in kept:
        unit = smallest[units.root(row.content)]
        side = units.side(row.content) or _draw_side(unit, holdout, validation, seed)
        placed.append(Placed(row, unit, side))
    return placed, sorted(bridges, key=lambda bridge: bridge.row.row_id)


def _neighbours(rows: Sequence[Row], pairs: Iterable[tuple[int, int]]) -> dict[str, list[str]]:
    near: dict[str, list[str]] = {}
    for i, j in pairs:
        near.setdefault(rows[i].content, []).append(rows[j].content)
        near.setdefault(rows[j].content, []).append(rows[i].content)
    return near


def _connect(
    rows: Sequence[Row], near: Mapping[str, list[str]], memory: Memory, by_group: bool
) -> tuple[_Units, list[Bridge]]:
    """Units grown row by row, known rows first, so that a new row meets the sides it could connect."""
    units = _Units()
    names: dict[str, str] = {}
    bridges = []
    for row in sorted(rows, key=lambda row: (row.content not in memory.sides, row.content, row.row_id)):
        own = memory.sides.get(row.content)
        links = [content for content in (row.content, *near.get(row.content, ())) if content in names]
        if by_group and row.group is not None:
            group = f"group {row.group}"
            units.add(group, memory.groups.get(row.group))
            links.append(names.setdefault(group, group))
        sides = {side: names[link] for link in sorted(links) if (side := units.side(link)) is not None}
        if own is None and len(sides) > 1:
            bridges.append(Bridge(row, sides))
            continue
        units.add(row.content, own)
        names.setdefault(row.content, row.row_id)
        for link in links:
            if own is None or units.side(link) in (own, None):
                units.join(row.content, link)
    return units, bridges


def _draw_side(unit: str, holdout: float, validation: float, seed: int) -> str:
    """The side of a new unit: a hash of it, so that neither the order nor the number of rows matters."""
    drawn = int.from_bytes(hashlib.sha256(f"{seed}:{unit}".encode()).digest()[:8], "big") / 2**64
    if drawn < holdout:
        return "holdout"
    return "validation" if drawn < holdout + validation else "train"
