"""Any number of classes, none too: the label is a digit for each, `0110`, so that it can be compared and grouped by.

Each class is a yes or no of its own; it is told where its probability is above a half. Log-loss is the mean over the
classes. Metrics are scikit-learn's (a test compares them), where what is not defined is 0.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork.targets.classification import SMALLEST_PROBABILITY
from graftwork.targets.learning import Fit, Learning, Metric, Sums, counted, macro_f1, mean_of

if TYPE_CHECKING:
    from torch import Tensor

THRESHOLD = 0.5


def _as_array(labels: Iterable[str]) -> np.ndarray:
    return np.array([[digit == "1" for digit in label] for label in labels], dtype=np.float64)


def _decide(values: np.ndarray) -> np.ndarray:
    return (values > THRESHOLD).astype(np.float64)


def _outcomes(labels: np.ndarray, probabilities: np.ndarray) -> Sums:
    """Per row and class: is it both, is it predicted, is it true."""
    predicted = _decide(probabilities)
    return np.hstack([labels * predicted, predicted, labels])


def _micro_f1(sums: Sums) -> np.ndarray:
    right, predicted, actual = (part.sum(axis=-1) for part in np.split(sums, 3, axis=-1))
    return np.divide(2 * right, predicted + actual, out=np.zeros_like(right), where=predicted + actual > 0)


def _is_right(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    return (_decide(probabilities) == labels).all(axis=1)


def _matches(labels: np.ndarray, probabilities: np.ndarray) -> Sums:
    return counted(_is_right(labels, probabilities))


def _log_losses(labels: np.ndarray, probabilities: np.ndarray) -> Sums:
    clipped = np.clip(probabilities, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return counted(-np.log(np.where(labels == 1, clipped, 1 - clipped)).mean(axis=1))


def _criterion(logits: "Tensor", labels: "Tensor") -> "Tensor":
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(logits, labels)


def _measure(logits: "Tensor", labels: "Tensor") -> tuple[float, float]:
    """Mean log-loss and micro F1."""
    outcomes = _outcomes(labels.numpy(), logits.sigmoid().numpy())
    return _criterion(logits, labels.double()).item(), float(_micro_f1(outcomes.sum(axis=0, dtype=np.float64)))


def _shares(labels: np.ndarray, _classes: int) -> np.ndarray:
    return labels.mean(axis=0)


def _regress(features: Any, labels: np.ndarray, strength: float, classes: int) -> Callable[[Any], np.ndarray]:
    """One model for each class; one that all training rows have, or none, is told as it was there."""
    from sklearn.linear_model import LogisticRegression

    models: list[Any] = [
        LogisticRegression(C=strength, max_iter=2000).fit(features, truth) if 0 < truth.mean() < 1 else truth[0]
        for truth in labels.T
    ]
    assert len(models) == classes

    def predict(features: Any) -> np.ndarray:
        rows = features.shape[0]
        columns = [
            np.full(rows, model) if isinstance(model, float) else model.predict_proba(features)[:, 1]
            for model in models
        ]
        return np.column_stack(columns)

    return predict


def _log_loss(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    losses = np.logaddexp(0, scores) - truth * scores
    return losses.mean(axis=1), (_sigmoid(scores) - truth) / truth.shape[1]


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return np.asarray(expit(scores))


LEARNING = Learning(
    as_array=_as_array,
    metrics={
        "micro_f1": Metric(_outcomes, _micro_f1),
        "macro_f1": Metric(_outcomes, macro_f1),
        "exact_match": Metric(_matches, mean_of, is_right=_is_right),
        "log_loss": Metric(_log_losses, mean_of, is_loss=True, is_share=False),
    },
    loss="log_loss",
    decide=_decide,
    criterion=_criterion,
    measure=_measure,
    prior=_shares,
    regress=_regress,
    fit=Fit(lambda labels, _: labels, _log_loss, _sigmoid),
)
