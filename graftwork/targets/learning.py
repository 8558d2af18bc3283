"""What is computed with a target's labels: losses, metrics, and the simplest models.

As an array, labels are (rows,) class indices or texts, or (rows, outputs) numbers. Values are what a model gives for
rows, (rows, outputs): probabilities, numbers in the label's own unit, or texts. torch and scikit-learn are imported
where needed.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Sums = np.ndarray


@dataclass(frozen=True)
class Metric:
    """columns: what each row adds to the sums, (rows, any). value: the metric of such sums, over leading axes.

    is_share: it lies between 0 and 1, so that differences are told in points of a hundred. is_right: of one that counts
    rows which are right, (rows,) of them.
    """

    columns: Callable[[np.ndarray, np.ndarray], Sums]
    value: Callable[[Sums], np.ndarray]
    is_loss: bool = False
    is_share: bool = True
    is_right: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True)
class Fit:
    """What a linear layer is solved for, as a function of its outputs: scores, (rows, outputs).

    truth: labels and the number of outputs to (rows, outputs). loss: scores and truth to each row's loss, (rows,), and
    its slope by score, (rows, outputs). values: what scores stand for.
    """

    truth: Callable[[np.ndarray, int], np.ndarray]
    loss: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    values: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Learning:
    """Of one target.

    as_array: labels as an array. metrics: by name, those that are reported. loss: the one that baselines are chosen by.
    decide: values to what they say for sure, as an array like the labels'; None where a value is all there is to say.

    criterion: the mean loss of a batch, from logits and labels; None for the stage's own of classes. measure: loss and
    score of all validation rows. prior: what a model would say that reads nothing, (outputs,), from the training labels
    and the number of outputs. regress: a linear model of sparse features, given labels, strength (scikit-learn's C) and
    outputs, as a function from features to values. fit: the same of vectors, with a layer of our own. rows: how
    many rows labels are of. classes: what of labels is compared with what is decided.
    """

    as_array: Callable[[Iterable[Any]], np.ndarray]
    metrics: Mapping[str, Metric]
    loss: str
    decide: Callable[[np.ndarray], np.ndarray] | None
    criterion: "Callable[[Tensor, Tensor], Tensor] | None"
    measure: "Callable[[Tensor, Tensor], tuple[float, float]]"
    prior: Callable[[np.ndarray, int], np.ndarray]
    regress: Callable[[Any, np.ndarray, float, int], Callable[[Any], np.ndarray]]
    fit: Fit
    rows: Callable[[np.ndarray], int] = len
    classes: Callable[[np.ndarray], np.ndarray] = np.asarray


def mean_where(numerator: np.ndarray, denominator: np.ndarray, is_counted: np.ndarray) -> np.ndarray:
    """The mean ratio over the classes that count: one that is absent from a resample says nothing."""
    ratios = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=is_counted)
    return ratios.sum(axis=-1) / np.maximum(is_counted.sum(axis=-1), 1)


def macro_f1(sums: Sums) -> np.ndarray:
    """Of right, predicted and actual rows of each class."""
    right, predicted, actual = np.split(sums, 3, axis=-1)
    return mean_where(2 * right, predicted + actual, predicted + actual > 0)


def mean_of(sums: Sums) -> np.ndarray:
    """Of a count and a sum."""
    return sums[..., 1] / sums[..., 0]


def counted(values: np.ndarray) -> Sums:
    """Columns for `mean_of`, from a value for each row."""
    return np.column_stack([np.ones(len(values)), values])
