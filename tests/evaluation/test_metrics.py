"""Metrics and their intervals, against scikit-learn and against resampling done the slow way."""

import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.evaluation.metrics import describe_classes, estimate, measure, resample
from graftwork.targets.catalog import CLASSIFICATION

METRICS = CLASSIFICATION.learning.metrics

ORACLES = {
    "accuracy": lambda y, p: oracle.accuracy_score(y, p.argmax(1)),
    "balanced_accuracy": lambda y, p: oracle.balanced_accuracy_score(y, p.argmax(1)),
    "macro_f1": lambda y, p: oracle.f1_score(y, p.argmax(1), average="macro", zero_division=0),
    "log_loss": lambda y, p: oracle.log_loss(y, p.astype(np.float32), labels=range(p.shape[1])),
    "brier": lambda y, p: oracle.brier_score_loss(y, p, labels=range(p.shape[1]), scale_by_half=True),
}


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities for a few rows; classes may be absent, probabilities may be 0."""
    rows, classes = draw(st.integers(1, 30)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    probabilities = rng.dirichlet(np.full(classes, draw(st.sampled_from([0.01, 1.0]))), rows)
    return rng.integers(0, draw(st.integers(1, classes)), rows), probabilities


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label")
@pytest.mark.parametrize("name", METRICS)
@given(case=predictions())
@settings(deadline=None, max_examples=50)
def test_a_metric_is_what_scikit_learn_says(name: str, case: tuple[np.ndarray, np.ndarray]) -> None:
    """Each metric of the summed columns equals scikit-learn's on the rows, absent classes and all."""
    labels, probabilities = case
    found = METRICS[name].value(METRICS[name].columns(labels, probabilities).sum(axis=0))
    assert found == pytest.approx(ORACLES[name](labels, probabilities), rel=1e-5, abs=1e-6)


def noisy(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels of three classes and probabilities that lean to the right one."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    return labels, rng.dirichlet(np.ones(3), rows) * 0.7 + np.eye(3)[labels] * 0.3


@pytest.mark.parametrize("name", METRICS)
def test_the_interval_is_that_of_groups_drawn_one_by_one(name: str) -> None:
    """The bounds agree with a bootstrap that concatenates the drawn groups' rows and asks scikit-learn."""
    labels, probabilities = noisy(120)
    groups = np.arange(120) // 3
    rng = np.random.default_rng(1)
    slow = []
    for _ in range(300):
        drawn = np.concatenate([np.flatnonzero(groups == group) for group in rng.integers(0, 40, 40)])
        slow.append(ORACLES[name](labels[drawn], probabilities[drawn]))
    found = estimate(name, labels, probabilities, groups, samples=4000, seed=0)
    tolerance = 0.5 * np.std(slow)
    assert [found.low, found.high] == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=tolerance)


def test_copies_within_a_group_add_no_certainty() -> None:
    """Each row five times, as one group, gives exactly the intervals of the single rows."""
    labels, probabilities = noisy(80)
    once = measure(labels, probabilities, np.arange(80), samples=500, seed=3)
    copies = np.repeat(np.arange(80), 5)
    many = measure(labels[copies], probabilities[copies], copies, samples=500, seed=3)
    for name in METRICS:
        assert vars(many[name]) == pytest.approx(vars(once[name]), rel=1e-12)


def test_draws_have_the_spread_of_a_binomial() -> None:
    """The standard error of an accuracy over single rows is the textbook's."""
    right = np.arange(1000) < 850
    sums = resample(np.column_stack([right, ~right]).astype(float), np.arange(1000), samples=20_000, seed=0)
    assert (sums.sum(axis=1) == 1000).all()
    assert (sums[:, 0] / 1000).std() == pytest.approx(np.sqrt(0.85 * 0.15 / 1000), rel=0.03)


def test_classes_are_described_as_counted_by_hand() -> None:
    """Three true a (two found), one true b taken for a, no c at all."""
    labels = np.array([0, 0, 0, 1])
    predicted = np.eye(3)[[0, 0, 1, 0]]
    (a, b, c), confusion = describe_classes(labels, predicted, ("a", "b", "c"))
    assert (a.name, a.support) == ("a", 3)
    assert (a.precision, a.recall, a.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert (b.precision, b.recall, b.f1, b.support) == (0, 0, 0, 1)
    assert (c.precision, c.recall, c.f1, c.support) == (0, 0, 0, 0)
    assert confusion == ((2, 1, 0), (1, 0, 0), (0, 0, 0))
