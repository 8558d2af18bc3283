"""How well pictures find their captions, and captions their pictures: figures with intervals over groups."""

from collections.abc import Sequence

import numpy as np

from graftwork.evaluation.metrics import INTERVAL_LEVEL, Interval, resample

RECALLS = (1, 5, 10)
MRR = "mean_reciprocal_rank"
AT_ONCE = 1024  # that are compared with all others


def rank_found(asked: np.ndarray, told: np.ndarray, belongs: Sequence[Sequence[int]]) -> np.ndarray:
    """(asked,) ranks, from 1 on, of the nearest that belongs among all that are told, by their cosine.

    asked, told: (rows, width) states. belongs: places of what belongs to each that is asked, one at least. What is as
    near and does not belong is before it, and so are all others where states are no numbers.
    """
    asked, told = (rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12) for rows in (asked, told))
    ranks = np.empty(len(asked), dtype=np.int64)
    for start in range(0, len(asked), AT_ONCE):
        near = asked[start : start + AT_ONCE] @ told.T
        for place, row in enumerate(near, start=start):
            mine = list(belongs[place])
            is_before = ~(row < row[mine].max())
            ranks[place] = 1 + is_before.sum() - is_before[mine].sum()
    return ranks


def measure_ranks(ranks: np.ndarray, groups: np.ndarray, samples: int, seed: int) -> dict[str, Interval]:
    """Recall at each of RECALLS and the mean reciprocal rank, each with its 95 % interval; groups are drawn whole."""
    return _measure(_shares(ranks), groups, samples, seed)


def measure_gain(
    before: np.ndarray, after: np.ndarray, groups: np.ndarray, samples: int, seed: int
) -> dict[str, Interval]:
    """The same of what one model's ranks have more than another's, of the same that is asked: by pairs of them."""
    return _measure(_shares(after) - _shares(before), groups, samples, seed)


def _shares(ranks: np.ndarray) -> np.ndarray:
    """(rows, figures): what each rank adds to each figure."""
    return np.column_stack([*(ranks <= most for most in RECALLS), 1 / ranks]).astype(np.float64)


def _measure(shares: np.ndarray, groups: np.ndarray, samples: int, seed: int) -> dict[str, Interval]:
    columns = np.column_stack([np.ones(len(shares)), shares])
    drawn, whole = resample(columns, groups, samples, seed), columns.sum(axis=0)
    tail = (1 - INTERVAL_LEVEL) / 2
    bounds = np.quantile(drawn[:, 1:] / drawn[:, :1], [tail, 1 - tail], axis=0)
    names = [*(f"recall@{most}" for most in RECALLS), MRR]
    values = zip(whole[1:] / whole[0], *bounds, strict=True)
    return {name: Interval(*map(float, each)) for name, each in zip(names, values, strict=True)}
