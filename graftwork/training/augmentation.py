"""Augmentation: other versions of the training rows in each epoch.

All chance is a function of the seed, the stage, the epoch and the row. What is beside a row in its batch, which process
draws it, and where training was interrupted change nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from graftwork.models.serving.telling import IGNORED

NO_WORD = -1
BLANKED, REPLACED = 0.8, 0.9  # of the hidden words: blank below the first, other tokens below the second


class Augmentation(Protocol):
    """Gives another version of a training row, no longer than the row: batches are planned by length."""

    def __call__(self, index: int, row: Any, generator: np.random.Generator) -> Any: ...


@dataclass(frozen=True)
class WordDropout:
    """Each word of a text becomes blank with the same probability: all of its tokens, or none.

    words: for each row, the number of the word that each token is part of; NO_WORD for special tokens. blank: a token.
    Method: word dropout (Bowman et al. 2016).
    """

    probability: float
    words: Sequence[np.ndarray]
    blank: int

    def __call__(self, index: int, row: Sequence[int], generator: np.random.Generator) -> list[int]:
        words = self.words[index]
        is_dropped = generator.random(1 + words.max(initial=NO_WORD)) < self.probability
        return np.where(np.append(is_dropped, False)[words], self.blank, row).tolist()  # NO_WORD finds the last: False


@dataclass(frozen=True)
class WordEdits:
    """Words of a text are left out, each with the same probability, and so many of its words' number change places.

    Each time two words do that are drawn, of one text of a pair; one word at least stays of each, and the tokens of a
    word stay together. words: as of WordDropout, which may have been before: it moves nothing.
    Method: EDA (Wei and Zou 2019), of whose four edits these two need no thesaurus.
    """

    words: Sequence[np.ndarray]
    deletion: float = 0.0
    swaps: float = 0.0

    def __call__(self, index: int, row: Sequence[int], generator: np.random.Generator) -> list[int]:
        edited: list[int] = []
        for is_text, text in groupby(zip(row, self.words[index], strict=True), key=lambda pair: pair[1] != NO_WORD):
            parts = [[token for token, _ in word] for _, word in groupby(text, key=lambda pair: pair[1])]
            parts = self._edit(parts, generator) if is_text else parts
            edited += [token for part in parts for token in part]
        return edited

    def _edit(self, parts: list[list[int]], generator: np.random.Generator) -> list[list[int]]:
        """The words of one text, each as its tokens."""
        drawn = generator.random(len(parts))
        kept = [part for part, each in zip(parts, drawn, strict=True) if each >= self.deletion]
        kept = kept or [parts[int(drawn.argmax())]]
        for _ in range(round(self.swaps * len(kept))):
            one, other = generator.integers(0, len(kept), 2)
            kept[one], kept[other] = kept[other], kept[one]
        return kept


@dataclass(frozen=True)
class HiddenWords:
    """A share of a text's words, at least one, is to be told: all tokens of such a word, or none.

    Of these words 8 in 10 become blank, one becomes other tokens, one stays. words, blank: as of WordDropout.
    vocabulary: how many tokens there are. A row becomes one with hidden words, see `graftwork.models.masked`.
    Method: whole words (Cui et al. 2021) hidden anew in each epoch (Liu et al. 2019), as in BERT (Devlin et al. 2019).
    """

    share: float
    words: Sequence[np.ndarray]
    blank: int
    vocabulary: int

    def __call__(self, index: int, row: Sequence[int], generator: np.random.Generator) -> Tensor:
        ids, words = np.asarray(row), self.words[index]
        count = 1 + int(words.max(initial=NO_WORD))
        chosen = generator.permutation(count)[: max(1, round(self.share * count))]
        is_hidden = np.isin(words, chosen)
        fate = np.append(generator.random(count), 1.0)[words]
        read = np.where(is_hidden & (fate < BLANKED), self.blank, ids)
        is_other = is_hidden & (fate >= BLANKED) & (fate < REPLACED)
        read = np.where(is_other, generator.integers(0, self.vocabulary, len(ids)), read)
        return torch.from_numpy(np.stack([read, np.where(is_hidden, ids, IGNORED)], axis=1))


def changed_once(change: Augmentation, rows: Sequence[Any], epoch: Sequence[int]) -> list[Any]:
    """Each row as it is changed in this epoch: what is validated is the same in all of a stage."""
    return [change(index, row, row_generator(epoch, index)) for index, row in enumerate(rows)]


def row_generator(epoch: Sequence[int], row: int, *place: int) -> np.random.Generator:
    """The generator of a row's randomness in an epoch. epoch: the numbers that name it: (seed, stage, epoch).

    place: of one beside it, of which the draws of the other know nothing.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(epoch, spawn_key=(row, *place))))
