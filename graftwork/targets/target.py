"""What the kinds of learning problem differ in, whatever is read: texts or pictures. Here is what names them and what a
row's label is; what is computed with labels is in `learning`, which needs numpy and is imported when it is needed.

A label is stored as a plain value: the index of a class, a digit for each class, a number, a text, or the indices of
tags.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from graftwork.targets.learning import Learning

Label = int | str | float
UNLABELLED = -1  # in the place of a label, where rows have none
Read = Callable[[Sequence[str]], "Label | Unread"]  # by the cells of a label's columns


class Unread(NamedTuple):
    """Why cells give no label. place: of the one to blame."""

    reason: str
    place: int = 0


@dataclass(frozen=True)
class LabelRule:
    """How cells become a label: the recipe's `label`."""

    classes: tuple[str, ...]
    threshold: float | None = None
    mapping: Mapping[str, str] | None = None
    separator: str | None = None


@dataclass(frozen=True)
class Numbers:
    """Of the numbers that rows are labelled with: mean, standard deviation, and the range."""

    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Target:
    """One kind of learning problem.

    known_as: what a sentence calls it. module: of its learning. storage: the type of its labels in Parquet. label_keys:
    what the recipe's `label` may say beside its column. refused: what of a stage means nothing here. is_number,
    is_text: its labels are numbers, or texts that a model writes, and it knows no classes. is_by_word: a row's label is
    a tag for each word of its text, which the reader of its label is given, too; each word is judged.

    reader: what reads the label of a row from its cells. members: indices of the classes that a label counts for. tell:
    a label in words, given the classes.

    score: the metric that stands beside the loss when a stage is validated, more is better. headline: the one that is
    told of parts of the holdout. shown: those that are told where there is little room. baselines: what a model of it
    may be compared with.
    """

    name: str
    known_as: str
    module: str
    storage: str
    label_keys: frozenset[str]
    refused: frozenset[str]
    reader: Callable[[LabelRule], Read]
    members: Callable[[Any], Sequence[int]]
    tell: Callable[[Any, Sequence[str]], str]
    score: str
    headline: str
    shown: tuple[str, ...]
    is_number: bool = False
    baselines: tuple[str, ...] = ("majority", "tfidf", "frozen-head")
    is_text: bool = False
    is_by_word: bool = False

    @property
    def has_classes(self) -> bool:
        """Whether a label is one of a few that are known."""
        return not (self.is_number or self.is_text)

    @property
    def learning(self) -> "Learning":
        """What is computed with its labels."""
        learning: Learning = import_module(f"graftwork.targets.{self.module}").LEARNING
        return learning
