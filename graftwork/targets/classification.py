"""One of several classes: the label is its index. Metrics are scikit-learn's (a test compares them).

Brier scores are halved, so that they lie between 0 and 1 for any number of classes.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork.targets.learning import Fit, Learning, Metric, Sums, counted, macro_f1, mean_of, mean_where

if TYPE_CHECKING:
    from torch import Tensor

# Models give float32 probabilities; a class they rule out altogether may not make the mean loss infinite.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)


def _as_array(labels: Iterable[int]) -> np.ndarray:
    return np.asarray(labels, dtype=np.int64)


def _decide(values: np.ndarray) -> np.ndarray:
    return values.argmax(axis=1)


def _one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes)[labels]


def _outcomes(labels: np.ndarray, probabilities: np.ndarray) -> Sums:
    """Per row and class: is it both, is it predicted, is it true."""
    actual = _one_hot(labels, probabilities.shape[1])
    predicted = _one_hot(_decide(probabilities), probabilities.shape[1])
    return np.hstack([actual * predicted, predicted, actual])


def _log_losses(labels: np.ndarray, probabilities: np.ndarray) -> Sums:
    clipped = np.clip(probabilities, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    of_truth = np.take_along_axis(clipped / clipped.sum(axis=1, keepdims=True), labels[:, None], axis=1)
    return np.hstack([np.ones_like(of_truth), -np.log(of_truth)])


def _brier_scores(labels: np.ndarray, probabilities: np.ndarray) -> Sums:
    squares = (probabilities - _one_hot(labels, probabilities.shape[1])) ** 2
    return counted(squares.sum(axis=1) / 2)


def _accuracy(sums: Sums) -> np.ndarray:
    right, _, actual = np.split(sums, 3, axis=-1)
    return right.sum(axis=-1) / actual.sum(axis=-1)


def _balanced_accuracy(sums: Sums) -> np.ndarray:
    right, _, actual = np.split(sums, 3, axis=-1)
    return mean_where(right, actual, actual > 0)


def _is_right(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    return _decide(probabilities) == labels


def _measure(logits: "Tensor", labels: "Tensor") -> tuple[float, float]:
    """Mean log-loss and accuracy of (rows, classes) logits, for (rows,) labels."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).double().mean().item()


def _shares(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.bincount(labels, minlength=classes) / len(labels)


def _regress(features: Any, labels: np.ndarray, strength: float, classes: int) -> Callable[[Any], np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=2000).fit(features, labels)

    def predict(features: Any) -> np.ndarray:
        """A column for each class, also for one that the model never saw."""
        probabilities = np.zeros((features.shape[0], classes))
        probabilities[:, model.classes_] = model.predict_proba(features)
        return probabilities

    return predict


def _log_loss(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.special import log_softmax

    log_probabilities = log_softmax(scores, axis=1)
    return -(truth * log_probabilities).sum(axis=1), np.exp(log_probabilities) - truth


def _softmax(scores: np.ndarray) -> np.ndarray:
    from scipy.special import softmax

    return softmax(scores, axis=1)


LEARNING = Learning(
    as_array=_as_array,
    metrics={
        "accuracy": Metric(_outcomes, _accuracy, is_right=_is_right),
        "balanced_accuracy": Metric(_outcomes, _balanced_accuracy),
        "macro_f1": Metric(_outcomes, macro_f1),
        "log_loss": Metric(_log_losses, mean_of, is_loss=True, is_share=False),
        "brier": Metric(_brier_scores, mean_of, is_loss=True, is_share=False),
    },
    loss="log_loss",
    decide=_decide,
    criterion=None,
    measure=_measure,
    prior=_shares,
    regress=_regress,
    fit=Fit(_one_hot, _log_loss, _softmax),
)
