"""Augmentation: other versions of the training rows in each epoch.

All chance is a function of the seed, the stage, the epoch and the row. What is beside a row in its batch, which process
draws it, and where training was interrupted change nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

NO_WORD = -1


class Augmentation(Protocol):
    """Gives another version of a training row, as long as the row: batches are planned by length."""

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


def row_generator(epoch: Sequence[int], row: int) -> np.random.Generator:
    """The generator of a row's randomness in an epoch. epoch: the numbers that name it: (seed, stage, epoch)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(epoch, spawn_key=(row,))))
