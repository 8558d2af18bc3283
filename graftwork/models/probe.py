"""A linear probe: logistic or least-squares regression on feature vectors, solved to its optimum.

Features are standardised within, so that one grid of strengths suits every encoder; that is folded back, and what comes
out is an ordinary linear layer. Method: linear probes (Alain and Bengio 2016), by L-BFGS (Liu and Nocedal 1989).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graftwork.errors import Problem, TrainingError
from graftwork.targets.catalog import CLASSIFICATION
from graftwork.targets.learning import Fit

# The inverse of the L2 regularisation, as scikit-learn's C: the sum of losses is weighed by it against |weight|^2 / 2.
STRENGTHS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
TOLERANCE = 1e-6  # each entry of the gradient of the mean loss is smaller at the end, on standardised features
MAX_ITERATIONS = 10_000
CORRECTIONS = 20  # that L-BFGS remembers

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]


@dataclass(frozen=True)
class LabelledVectors:
    """Feature vectors, (rows, width), and labels as an array."""

    vectors: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Probe:
    """A linear layer: weight, (outputs, width), and bias, (outputs,), float64, for vectors as they came.

    strength: as those of STRENGTHS. loss, validation_loss: mean loss on the rows it was fitted to, weighted as it was
    then, and on the validation rows. iterations: that L-BFGS took. fit: what it was solved for.
    """

    weight: np.ndarray
    bias: np.ndarray
    strength: float
    loss: float
    validation_loss: float
    iterations: int
    fit: Fit = CLASSIFICATION.learning.fit

    def values(self, vectors: np.ndarray) -> np.ndarray:
        """(rows, outputs): probabilities, or numbers as the labels were."""
        return self.fit.values(vectors @ self.weight.T + self.bias)


def fit_probes(
    train: LabelledVectors,
    validation: LabelledVectors,
    outputs: int,
    class_weight: str | None = None,
    fit: Fit = CLASSIFICATION.learning.fit,
    strengths: Sequence[float] = STRENGTHS,
) -> Iterator[Probe]:
    """The optimum for each strength, the most regularised first, each sought from where the last was found.

    class_weight: `balanced` for rows of all classes to weigh the same in all, where labels are class indices. Raises
    TrainingError if an optimum is not reached.
    """
    from scipy.optimize import minimize
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils.class_weight import compute_sample_weight

    scaler = StandardScaler().fit(train.vectors.astype(np.float64))
    scaled = LabelledVectors(scaler.transform(train.vectors.astype(np.float64)), train.labels)
    one = np.ones(len(train.labels))
    weights = one if class_weight is None else compute_sample_weight(class_weight, train.labels)
    weights = weights / weights.sum()
    found = np.zeros(outputs * (scaled.vectors.shape[1] + 1))
    options = {"gtol": TOLERANCE, "ftol": 0.0, "maxiter": MAX_ITERATIONS, "maxfun": np.inf, "maxcor": CORRECTIONS}
    for strength in strengths:
        objective = _objective(scaled, weights, outputs, fit, penalty=1 / (strength * len(train.labels)))
        result = minimize(objective, found, jac=True, method="L-BFGS-B", options=options)
        if np.abs(result.jac).max() > TOLERANCE:
            raise TrainingError(_not_reached(strength, result.nit, result.jac))
        found = result.x
        coefficients, intercepts = _unpack(found, outputs)
        weight = coefficients / scaler.scale_
        bias = intercepts - weight @ scaler.mean_
        yield Probe(
            weight,
            bias,
            strength,
            loss=float(weights @ _losses(train, weight, bias, fit)),
            validation_loss=float(_losses(validation, weight, bias, fit).mean()),
            iterations=result.nit,
            fit=fit,
        )


def best_probe(probes: Iterable[Probe]) -> Probe:
    """The one of least validation loss."""
    return min(probes, key=lambda probe: probe.validation_loss)


def _objective(rows: LabelledVectors, weights: np.ndarray, outputs: int, fit: Fit, penalty: float) -> Objective:
    """The weighted loss with its L2 penalty, and its gradient, of all weights and biases in one vector."""
    truth = fit.truth(rows.labels, outputs)

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = _unpack(parameters, outputs)
        losses, slopes = fit.loss(rows.vectors @ weight.T + bias, truth)
        loss = weights @ losses + penalty / 2 * (weight**2).sum()
        residuals = slopes * weights[:, None]
        gradient = np.column_stack([residuals.T @ rows.vectors + penalty * weight, residuals.sum(axis=0)])
        return loss, gradient.ravel()

    return objective


def _unpack(parameters: np.ndarray, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight, (outputs, width), and bias, (outputs,)."""
    both = parameters.reshape(outputs, -1)
    return both[:, :-1], both[:, -1]


def _losses(rows: LabelledVectors, weight: np.ndarray, bias: np.ndarray, fit: Fit) -> np.ndarray:
    return fit.loss(rows.vectors @ weight.T + bias, fit.truth(rows.labels, len(bias)))[0]


def _not_reached(strength: float, iterations: int, gradient: np.ndarray) -> Problem:
    slope = np.abs(gradient).max()
    return Problem(
        f"the optimum of the head was not reached in {iterations} iterations: its gradient is {slope:.1e}",
        where=f"L2 strength {strength}",
        hint="train the head by solver: adamw",
    )
