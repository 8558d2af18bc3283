"""What a checkpoint holds beside its body that some objectives go on with, told from its headers and its tokenizer.

No weight is read here: `graftwork.models.sentences` and `graftwork.models.spans` do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from math import prod
from pathlib import Path
from typing import Any

from graftwork.checkpoints.safety import read_object
from graftwork.errors import CheckpointError, Problem, shorten
from graftwork.models.catalog import Family, language_head_parameters
from graftwork.models.serving.config import DECODER, OWN_TABLE, REPEATED

TOKENIZER = "tokenizer.json"
# What tells whether one text follows another, by what it is called in files and in `graftwork.models.sentences`.
POOLER, ANSWER = "pooler", "answer"
PAIR_HEAD = {"pooler.dense": POOLER, "cls.seq_relationship": ANSWER}
PARTS = 2  # of a text, that follow each other or do not
UNTIED = ("tie_word_embeddings", "scale_decoder_outputs")  # false where that table is its own, as T5 1.1 says it

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Beside:
    """What there is. segments: how many parts of a text it can tell apart.

    pair_head: parts of the head for pairs that it has. decoder: parameters, 0 without one. sentinels: tokens that stand
    for a span each.
    """

    segments: int
    pair_head: tuple[str, ...]
    decoder: int
    sentinels: int

    @property
    def pair_source(self) -> str:
        """Whose head tells whether one text follows another: the `checkpoint`'s, its `pooler` alone, or a `new` one."""
        if len(self.pair_head) == len(PAIR_HEAD):
            return "checkpoint"
        return POOLER if POOLER in self.pair_head else "new"


def find_beside(folder: Path, family: Family, config: Mapping[str, Any], shapes: Shapes) -> Beside:
    """What the checkpoint in a verified folder holds. shapes: of its tensors."""
    held, width = {family.name_of(name): shape for name, shape in shapes.items()}, config.get("hidden_size")
    fitting = {POOLER: (width, width), ANSWER: (PARTS, width)}  # others answer something else
    return Beside(
        segments=config.get("type_vocab_size", 2),
        pair_head=tuple(part for stored, part in PAIR_HEAD.items() if held.get(f"{stored}.weight") == fitting[part]),
        decoder=decoder_parameters(shapes, has_own_table=False in (config.get(key) for key in UNTIED)),
        sentinels=_count_sentinels(folder) if family.tells_spans else 0,
    )


def decoder_parameters(shapes: Shapes, has_own_table: bool) -> int:
    """Of a decoder among tensors of these shapes; 0 without one. has_own_table: by which it tells tokens."""
    stack = sum(prod(shape) for name, shape in shapes.items() if name.startswith(DECODER) and name not in REPEATED)
    return stack + (prod(shapes.get(OWN_TABLE, (0,))) if stack and has_own_table else 0)


def check_first_token(first: Any, rows: int) -> None:
    """Raises CheckpointError if a decoder would begin with a token that the model has not. None: its padding."""
    if first is not None and not (type(first) is int and 0 <= first < rows):
        problem = f"decoder_start_token_id is {shorten(first)}, expected the number of one of its {rows} tokens"
        raise CheckpointError(Problem(problem, "config.json", "take it as the model was published"))


def pair_parameters(width: int, vocabulary: int, table_width: int) -> int:
    """Of what tells hidden words, and whether one text follows another: see `graftwork.models.sentences`."""
    return language_head_parameters(width, vocabulary, table_width) + (width + 1) * width + 2 * (width + 1)


def sentinel(number: int) -> str:
    """The token that stands for a span, counted from 0."""
    return f"<extra_id_{number}>"


def _count_sentinels(folder: Path) -> int:
    """How many there are without a gap."""
    path = folder / TOKENIZER
    added = read_object(path).get("added_tokens") or [] if path.is_file() else []
    known = {token["content"] for token in added}
    return sum(1 for _ in takewhile(lambda number: sentinel(number) in known, range(len(known))))
