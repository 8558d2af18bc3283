"""Metrics of a classifier, each a function of sums over rows, so that a bootstrap of groups is one matrix product.

Labels are class indices, probabilities are (rows, classes). Definitions are scikit-learn's (a test compares them);
Brier scores are halved, so that they lie between 0 and 1 for any number of classes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

INTERVAL_LEVEL = 0.95
BLOCK_CELLS = 1 << 22  # draws held in memory at a time
# Models give float32 probabilities; a class they rule out altogether may not make the mean loss infinite.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)

Sums = np.ndarray


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


@dataclass(frozen=True)
class Metric:
    """columns: what each row adds to the sums, (rows, any). value: the metric of such sums, over leading axes."""

    columns: Callable[[np.ndarray, np.ndarray], Sums]
    value: Callable[[Sums], np.ndarray]
    is_loss: bool = False


def _outcomes(labels: np.ndarray, probabilities: np.ndarray) -> Sums:
    """Per row and class: is it both, is it predicted, is it true."""
    actual = _one_hot(labels, probabilities.shape[1])
    predicted = _one_hot(probabilities.argmax(axis=1), probabilities.shape[1])
    return np.hstack([actual * predicted, predicted, actual])


def _log_losses(labels: np.ndarray, probabilities: np.ndarray) -> Sums:
    clipped = np.clip(probabilities, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    of_truth = np.take_along_axis(clipped / clipped.sum(axis=1, keepdims=True), labels[:, None], axis=1)
    return np.hstack([np.ones_like(of_truth), -np.log(of_truth)])


def _brier_scores(labels: np.ndarray, probabilities: np.ndarray) -> Sums:
    squares = (probabilities - _one_hot(labels, probabilities.shape[1])) ** 2
    return np.column_stack([np.ones(len(labels)), squares.sum(axis=1) / 2])


def _one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes)[labels]


def _split(sums: Sums) -> Iterator[np.ndarray]:
    """Right, predicted and actual rows of each class."""
    return iter(np.split(sums, 3, axis=-1))


def _accuracy(sums: Sums) -> np.ndarray:
    right, _, actual = _split(sums)
    return right.sum(axis=-1) / actual.sum(axis=-1)


def _balanced_accuracy(sums: Sums) -> np.ndarray:
    right, _, actual = _split(sums)
    return _mean_where(right, actual, actual > 0)


def _macro_f1(sums: Sums) -> np.ndarray:
    right, predicted, actual = _split(sums)
    return _mean_where(2 * right, predicted + actual, predicted + actual > 0)


def _mean_where(numerator: np.ndarray, denominator: np.ndarray, is_counted: np.ndarray) -> np.ndarray:
    """The mean ratio over the classes that count: one that is absent from a resample says nothing."""
    ratios = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=is_counted)
    return ratios.sum(axis=-1) / is_counted.sum(axis=-1)


def _mean(sums: Sums) -> np.ndarray:
    return sums[..., 1] / sums[..., 0]


METRICS = {
    "accuracy": Metric(_outcomes, _accuracy),
    "balanced_accuracy": Metric(_outcomes, _balanced_accuracy),
    "macro_f1": Metric(_outcomes, _macro_f1),
    "log_loss": Metric(_log_losses, _mean, is_loss=True),
    "brier": Metric(_brier_scores, _mean, is_loss=True),
}


def measure(
    labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray, samples: int, seed: int
) -> dict[str, Interval]:
    """Every metric with its 95 % interval.

    groups: an integer per row; rows of one group are drawn together.
    """
    return {name: estimate(name, labels, probabilities, groups, samples, seed) for name in METRICS}


def estimate(
    name: str, labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray, samples: int, seed: int
) -> Interval:
    """One metric with its 95 % percentile interval."""
    metric = METRICS[name]
    columns = metric.columns(labels, probabilities)
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
    labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]
) -> tuple[tuple[ClassMetrics, ...], tuple[tuple[int, ...], ...]]:
    """Precision, recall, F1 and support of each class, and the confusion matrix (true class by predicted class)."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    predicted, indices = probabilities.argmax(axis=1), range(len(classes))
    table = precision_recall_fscore_support(labels, predicted, labels=indices, zero_division=0)
    details = tuple(
        ClassMetrics(name, float(precision), float(recall), float(f1), int(support))
        for name, precision, recall, f1, support in zip(classes, *table, strict=True)
    )
    matrix = confusion_matrix(labels, predicted, labels=indices)
    return details, tuple(tuple(int(count) for count in row) for row in matrix)
