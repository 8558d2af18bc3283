"""What a checkpoint holds beside its body that some objectives go on with, told from its headers.

No weight is read here: `graftwork.models.pairs` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graftwork.models.catalog import Family, language_head_parameters

# What tells whether one text follows another, by what it is called in files and in `graftwork.models.pairs`.
POOLER = "pooler"
PAIR_HEAD = {"pooler.dense": POOLER, "cls.seq_relationship": "answer"}

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Beside:
    """What there is. segments: how many parts of a text it can tell apart.

    pair_head: parts of the head for pairs that it has.
    """

    segments: int
    pair_head: tuple[str, ...]

    @property
    def pair_source(self) -> str:
        """Whose head tells whether one text follows another: the `checkpoint`'s, its `pooler` alone, or a `new` one."""
        if len(self.pair_head) == len(PAIR_HEAD):
            return "checkpoint"
        return POOLER if POOLER in self.pair_head else "new"


def find_beside(family: Family, config: Mapping[str, Any], shapes: Shapes) -> Beside:
    """What a checkpoint of tensors of these shapes holds."""
    names = {family.name_of(name) for name in shapes}
    return Beside(
        segments=config.get("type_vocab_size", 2),
        pair_head=tuple(part for stored, part in PAIR_HEAD.items() if f"{stored}.weight" in names),
    )


def pair_parameters(width: int, vocabulary: int, table_width: int) -> int:
    """Of what tells hidden words, and whether one text follows another: see `graftwork.models.pairs`."""
    return language_head_parameters(width, vocabulary, table_width) + (width + 1) * width + 2 * (width + 1)
