"""A number: the label is it. Models learn it in units of its standard deviation on the training rows, from their mean.

Metrics are scikit-learn's and SciPy's (a test compares them). For an interval of Spearman's rank correlation the ranks
are those among all rows, and not taken anew in each resample.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork.targets.learning import Fit, Learning, Metric, Sums, counted, mean_of

if TYPE_CHECKING:
    from torch import Tensor


def _as_array(labels: Iterable[float]) -> np.ndarray:
    return np.asarray(labels, dtype=np.float64)[:, None]


def _absolute_errors(labels: np.ndarray, values: np.ndarray) -> Sums:
    return counted(np.abs(values - labels)[:, 0])


def _squared_errors(labels: np.ndarray, values: np.ndarray) -> Sums:
    return counted(((values - labels) ** 2)[:, 0])


def _root_mean(sums: Sums) -> np.ndarray:
    return np.sqrt(mean_of(sums))


def _spreads(labels: np.ndarray, values: np.ndarray) -> Sums:
    from_mean = (labels - labels.mean())[:, 0]  # or sums of squares of large numbers would lose the small ones
    return np.column_stack([_squared_errors(labels, values), from_mean, from_mean**2])


def _r2(sums: Sums) -> np.ndarray:
    """1 less the squared error over that of the mean; 0 where all labels are the same."""
    rows, errors, total, squares = np.moveaxis(sums, -1, 0)
    spread = squares - total**2 / rows
    return 1 - np.divide(errors, spread, out=np.ones_like(errors), where=spread > 0)


def _ranks(labels: np.ndarray, values: np.ndarray) -> Sums:
    from scipy.stats import rankdata

    x, y = (rankdata(numbers[:, 0]) - (len(numbers) + 1) / 2 for numbers in (labels, values))
    return np.column_stack([np.ones(len(x)), x, y, x * x, y * y, x * y])


def _correlation(sums: Sums) -> np.ndarray:
    """Pearson's; 0 where one of the two is the same for all rows."""
    rows, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    spread = np.sqrt(np.maximum(xx - x * x / rows, 0) * np.maximum(yy - y * y / rows, 0))
    return np.divide(xy - x * y / rows, spread, out=np.zeros_like(xy), where=spread > 0)


def _criterion(outputs: "Tensor", labels: "Tensor") -> "Tensor":
    from torch.nn.functional import mse_loss

    return mse_loss(outputs, labels)


def _measure(outputs: "Tensor", labels: "Tensor") -> tuple[float, float]:
    """Mean squared error and R², of what was learnt: numbers in standard deviations."""
    found, truth = outputs.numpy(), labels.double().numpy()
    return float(((found - truth) ** 2).mean()), float(_r2(_spreads(truth, found).sum(axis=0)))


def _mean(labels: np.ndarray, _outputs: int) -> np.ndarray:
    return labels.mean(axis=0)


def _regress(features: Any, labels: np.ndarray, strength: float, _outputs: int) -> Callable[[Any], np.ndarray]:
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=1 / strength).fit(features, labels[:, 0])
    return lambda features: model.predict(features)[:, None]


def _squared_loss(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    errors = scores - truth
    return (errors**2)[:, 0], 2 * errors


LEARNING = Learning(
    as_array=_as_array,
    metrics={
        "mae": Metric(_absolute_errors, mean_of, is_loss=True, is_share=False),
        "rmse": Metric(_squared_errors, _root_mean, is_loss=True, is_share=False),
        "r2": Metric(_spreads, _r2, is_share=False),
        "spearman": Metric(_ranks, _correlation, is_share=False),
    },
    loss="rmse",
    decide=None,
    criterion=_criterion,
    measure=_measure,
    prior=_mean,
    regress=_regress,
    fit=Fit(lambda labels, _: labels, _squared_loss, lambda scores: scores),
)
