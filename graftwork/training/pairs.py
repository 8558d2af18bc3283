"""Pairs of pictures and captions as a stage learns from them, beside the recipe's rows, and those it is validated on.

Which is which is a hash of what must not be parted, such as the captions of one picture; none is ever judged by.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from graftwork.data.rows import content_digest
from graftwork.errors import DataError, Problem
from graftwork.models.pairs import PairCriterion, PairModel
from graftwork.models.serving.classifier import Classifier
from graftwork.models.serving.model import Encoder
from graftwork.models.serving.text import TextEncoder
from graftwork.models.towers import TextTower
from graftwork.training.loop import Examples, StageData
from graftwork.training.text_tower import Pairs

if TYPE_CHECKING:
    import pandas

LEAST = 2  # pairs that can be told apart


@dataclass(frozen=True)
class Captions:
    """Of rows of pictures. pictures: what names each of them. units: rows of one must not be parted."""

    texts: tuple[str, ...]
    pictures: tuple[str, ...]
    units: tuple[str, ...]

    @classmethod
    def of(cls, rows: "pandas.DataFrame") -> "Captions | None":
        """Those of auxiliary rows; None if they have none."""
        if not rows["text_b"].notna().all():
            return None
        return cls(*(tuple(rows[name]) for name in ("text_b", "text", "unit")))


@dataclass(frozen=True)
class PairRow:
    """A picture and the ids of its caption. size: what it counts in a batch, the same for all, so that chance alone
    decides what is compared with what.
    """

    picture: Any
    caption: Sequence[int]
    size: int

    def __len__(self) -> int:
        return self.size


@dataclass(frozen=True)
class PairRows:
    """Makes a batch of pairs: of pictures as their encoder does, and in the mask's place of ids with theirs."""

    pictures: Encoder
    texts: TextEncoder

    @property
    def max_tokens(self) -> int:
        return self.pictures.max_tokens + self.texts.max_tokens

    def encode(self, pictures: Sequence[Any], captions: Sequence[str]) -> list[PairRow]:
        """Rows of pictures that are rows of their encoder already."""
        ids = self.texts.encode(captions)
        return [PairRow(picture, each, self.max_tokens) for picture, each in zip(pictures, ids, strict=True)]

    def pad(self, rows: Sequence[PairRow], _length: int) -> tuple[Tensor, Tensor]:
        """(rows, 3, side, side) pixels and (rows, tokens, 2) ids with their mask."""
        pixels, _ = self.pictures.pad([row.picture for row in rows], self.pictures.max_tokens)
        ids = [row.caption for row in rows]
        return pixels, torch.stack(self.texts.pad(ids, max(map(len, ids))), dim=-1)


def attach_tower(model: Classifier, checkpoint: Path, left: Path | None) -> None:
    """Give the classifier the tower of texts of the checkpoint as `objective`. left: what a former stage left of it."""
    tower = TextTower(checkpoint)
    if left is not None:
        tower.load_state_dict(load_file(left), strict=True)
    model.add_module("objective", tower.to(next(model.body.parameters()).device))


def pair_data(
    model: Classifier,
    encoder: Encoder,
    checkpoint: Path,
    sets: Sequence[tuple[Examples, Captions]],
    pairs: Pairs,
    where: str,
) -> StageData:
    """What a stage of pairs is trained on, and validated on. where: it is said of.

    Raises DataError where there are too few.
    """
    tower: Any = model.get_submodule("objective")
    padder = PairRows(encoder, TextEncoder(checkpoint, tower.most_tokens))
    pictures = [row for examples, _ in sets for row in examples.rows]
    texts, names, units = (
        [each for _, captions in sets for each in getattr(captions, part)] for part in ("texts", "pictures", "units")
    )
    rows, labels = padder.encode(pictures, texts), label_pairs(texts, names)
    held = np.array([_draw(pairs.seed, unit) < pairs.validation for unit in join_units(units, names)])
    parts = {"to learn from": np.flatnonzero(~held), "to validate on": np.flatnonzero(held)}
    for what, places in parts.items():
        if len(places) < LEAST:
            problem = f"{len(places)} pairs {what}, of {len(rows)}"
            raise DataError(Problem(problem, where, "land more of them, or set data.split.validation otherwise"))
    train, validation = (
        Examples([rows[place] for place in places], labels[places], padder, [padder.max_tokens] * len(places))
        for places in parts.values()
    )
    criterion = PairCriterion(tower)
    return StageData(train, validation, PairModel(model).forward, criterion=criterion, measure=criterion.measure)


def label_pairs(texts: Sequence[str], pictures: Sequence[str]) -> np.ndarray:
    """(rows, 2) int64: a number for each caption, and for each picture; equal ones have the same."""
    columns = [list(map(content_digest, texts)), list(pictures)]
    return np.stack([np.unique(np.array(each), return_inverse=True)[1] for each in columns], axis=1).astype(np.int64)


def join_units(units: Sequence[str], pictures: Sequence[str]) -> list[str]:
    """The unit of each row; those that share a picture, as units of two sets may, are one, called by the least."""
    least = {unit: unit for unit in units}
    while True:
        firsts: dict[str, str] = {}
        for unit, picture in zip(units, pictures, strict=True):
            firsts[picture] = min(firsts.get(picture, least[unit]), least[unit])
        known = dict(least)
        for unit, picture in zip(units, pictures, strict=True):
            least[unit] = min(least[unit], firsts[picture])
        if least == known:
            return [least[unit] for unit in units]


def _draw(seed: int, unit: str) -> float:
    return int.from_bytes(hashlib.sha256(f"pairs:{seed}:{unit}".encode()).digest()[:8], "big") / 2**64
