"""Ratios with their spread, and the difference in accuracy with an interval that counts seeds and rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graftwork.evaluation.metrics import Interval
from graftwork.evaluation.predictions import group_codes, labels_of, probabilities_of

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95
SAMPLES = 4000


@dataclass(frozen=True)
class Spread:
    """Positive numbers, one for each seed or round: their geometric mean, the least and the greatest."""

    middle: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        middle = math.exp(sum(map(math.log, values)) / len(values))
        return cls(middle, min(values), max(values))

    @classmethod
    def of_ratios(cls, ours: Sequence[float], peers: Sequence[float]) -> "Spread":
        """Of ours over the peer's, pair by pair, so that what slowed both down for a while cancels out."""
        return cls.of([our / peer for our, peer in zip(ours, peers, strict=True)])


def accuracy_difference(ours: "Sequence[pd.DataFrame]", peers: "Sequence[pd.DataFrame]", seed: int = 0) -> Interval:
    """Accuracy of ours less the peer's, one table of predictions for each seed and all on the same rows.

    The 95 % interval is of resampled seeds and, independently, of resampled groups of rows (a row without a group is
    one of its own), since a row's predictions under five seeds are not five rows, and five seeds are not all seeds.
    Method: pigeonhole bootstrap (Owen 2007), which errs on the wide side.
    Raises ValueError if the tables are not of the same labelled rows.
    """
    gains = np.stack(
        [_is_right(our, ours[0]) - _is_right(peer, ours[0]) for our, peer in zip(ours, peers, strict=True)]
    )
    return mean_gain(gains, np.unique(group_codes(ours[0]), return_inverse=True)[1], seed)


def mean_gain(gains: np.ndarray, codes: np.ndarray, seed: int = 0) -> Interval:
    """The mean of gains, (seeds, rows), with its interval as above; codes: (rows,) the group of each row, from 0 on."""
    sizes = np.bincount(codes)
    by_group = np.stack([np.bincount(codes, weights=gain) for gain in gains])  # (seeds, groups)
    rng = np.random.default_rng(seed)
    drawn_seeds = rng.multinomial(len(gains), np.full(len(gains), 1 / len(gains)), SAMPLES)
    drawn_groups = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), SAMPLES)
    sums = (drawn_seeds @ by_group * drawn_groups).sum(axis=1)
    low, high = np.quantile(sums / (len(gains) * drawn_groups @ sizes), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(gains.mean()), float(low), float(high))


def accuracy(predictions: "pd.DataFrame") -> float:
    """The share of rows whose likeliest class is the true one."""
    return float(_is_right(predictions, predictions).mean())


def _is_right(predictions: "pd.DataFrame", like: "pd.DataFrame") -> np.ndarray:
    """(rows,) 1 where the likeliest class is the true one, else 0."""
    truth = ["row_id", "label"]
    if not predictions[truth].equals(like[truth]):
        raise ValueError("predictions to compare are not of the same rows")
    return (probabilities_of(predictions).argmax(axis=1) == labels_of(predictions)).astype(float)
