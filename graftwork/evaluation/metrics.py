"""A target's metrics with their intervals. Each is a function of sums over rows, so that a bootstrap of groups is one
matrix product. Which metrics there are is the target's business (`graftwork.targets`).
"""

from dataclasses import dataclass

import numpy as np

from graftwork.targets.catalog import CLASSIFICATION
from graftwork.targets.learning import Sums
from graftwork.targets.target import Target

INTERVAL_LEVEL = 0.95
BLOCK_CELLS = 1 << 22  # draws held in memory at a time


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassMetrics:
    """How well one class is recognised; support: its rows."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


def measure(
    labels: np.ndarray,
    values: np.ndarray,
    groups: np.ndarray,
    samples: int,
    seed: int,
    target: Target = CLASSIFICATION,
) -> dict[str, Interval]:
    """Every metric of the target with its 95 % interval.

    groups: an integer per row; rows of one group are drawn together.
    """
    return {name: estimate(name, labels, values, groups, samples, seed, target) for name in target.learning.metrics}


def estimate(
    name: str,
    labels: np.ndarray,
    values: np.ndarray,
    groups: np.ndarray,
    samples: int,
    seed: int,
    target: Target = CLASSIFICATION,
) -> Interval:
    """One metric with its 95 % percentile interval."""
    metric = target.learning.metrics[name]
    columns = metric.columns(labels, values)
    tail = (1 - INTERVAL_LEVEL) / 2
    low, high = np.quantile(metric.value(resample(columns, groups, samples, seed)), [tail, 1 - tail])
    return Interval(float(metric.value(columns.sum(axis=0))), float(low), float(high))


def resample(columns: Sums, groups: np.ndarray, samples: int, seed: int) -> Sums:
    """(samples, columns) sums over as many groups as there are, drawn with replacement.

    Groups with equal sums are drawn as one kind with its count: the same distribution, and for metrics of counts
    thousands of groups become a handful of kinds.
    """
    _, codes = np.unique(groups, return_inverse=True)
    totals = np.zeros((codes.max() + 1, columns.shape[1]))
    np.add.at(totals, codes, columns)
    kinds, first, counts = np.unique(totals, axis=0, return_index=True, return_counts=True)
    order = first.argsort()  # not by value: two models that swap their places are then drawn alike
    kinds, counts = kinds[order], counts[order]
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK_CELLS // len(kinds))
    sizes = [min(block, samples - start) for start in range(0, samples, block)]
    return np.vstack([rng.multinomial(len(totals), counts / len(totals), size) @ kinds for size in sizes])


def describe_classes(
    labels: np.ndarray, values: np.ndarray, classes: tuple[str, ...], target: Target = CLASSIFICATION
) -> tuple[tuple[ClassMetrics, ...], tuple[tuple[int, ...], ...]]:
    """Precision, recall, F1 and support of each class, and the confusion matrix (true class by predicted class).

    Of numbers and texts neither, and of classes that a row may have several of no matrix. A word that is told nothing
    is in no column.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    if target.learning.decide is None:
        return (), ()
    labels, indices = target.learning.classes(labels), range(len(classes))
    predicted = target.learning.decide(values)
    table = precision_recall_fscore_support(labels, predicted, labels=indices, zero_division=0)
    details = tuple(
        ClassMetrics(name, float(precision), float(recall), float(f1), int(support))
        for name, precision, recall, f1, support in zip(classes, *table, strict=True)
    )
    if predicted.ndim > 1:
        return details, ()
    matrix = confusion_matrix(labels, predicted, labels=indices)
    return details, tuple(tuple(int(count) for count in row) for row in matrix)
