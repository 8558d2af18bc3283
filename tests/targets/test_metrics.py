"""Metrics of several labels a row and of numbers, against scikit-learn, SciPy, and resampling done the slow way."""

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from graftwork.evaluation.comparison import Comparison, compare
from graftwork.evaluation.metrics import describe_classes, estimate
from graftwork.policy import MetricName
from graftwork.targets.catalog import MULTI_LABEL, REGRESSION, TARGETS
from graftwork.targets.target import Target

LABELS = {
    "micro_f1": lambda y, p: oracle.f1_score(y, p > 0.5, average="micro", zero_division=0),
    "exact_match": lambda y, p: oracle.accuracy_score(y, p > 0.5),
    "log_loss": lambda y, p: np.mean(
        [oracle.log_loss(y[:, k], p[:, k].astype(np.float32), labels=[0, 1]) for k in range(y.shape[1])]
    ),
}
NUMBERS = {
    "mae": oracle.mean_absolute_error,
    "rmse": oracle.root_mean_squared_error,
    "r2": oracle.r2_score,
    "spearman": lambda y, p: spearmanr(y[:, 0], p[:, 0]).statistic,
}


def macro_f1(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """scikit-learn's, over the classes that somebody has or is told to have; 0 without any."""
    counted = ((labels == 1) | (probabilities > 0.5)).any(axis=0)
    scores = oracle.f1_score(labels, probabilities > 0.5, average=None, zero_division=0)
    return float(np.atleast_1d(scores)[counted].mean()) if counted.any() else 0.0


ORACLES = {MULTI_LABEL.name: LABELS | {"macro_f1": macro_f1}, REGRESSION.name: NUMBERS}
CASES = [(target, name) for target in (MULTI_LABEL, REGRESSION) for name in target.learning.metrics]


def draw_rows(target: Target, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and values that have something to do with them; numbers are large, some of them equal."""
    rng = np.random.default_rng(seed)
    if target is REGRESSION:
        labels = 1e4 + rng.integers(0, 8, (rows, 1)).astype(float)
        return labels, labels + rng.normal(size=(rows, 1)).round(1)
    labels = (rng.random((rows, 3)) < [0.1, 0.4, 0.6]).astype(float)
    return labels, 0.3 * labels + 0.7 * rng.random((rows, 3))


def value(target: Target, name: str, labels: np.ndarray, values: np.ndarray) -> float:
    metric = target.learning.metrics[name]
    return float(metric.value(metric.columns(labels, values).sum(axis=0)))


@pytest.mark.parametrize(("target", "name"), CASES, ids=lambda each: getattr(each, "name", each))
@given(rows=st.integers(3, 40), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_a_metric_is_what_others_say(target: Target, name: str, rows: int, seed: int) -> None:
    """Each metric of the summed columns equals scikit-learn's or SciPy's on the rows."""
    labels, values = draw_rows(target, rows, seed)
    if target is REGRESSION:
        labels[:2, 0] = 0, 1  # or R² and the correlation may not be defined
        values[:2, 0] = 3, 4
    expected = ORACLES[target.name][name](labels, values)
    assert value(target, name, labels, values) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_what_is_not_defined_is_nil() -> None:
    """No label and none told; one number for all rows: 0, and no warning."""
    nothing = np.zeros((4, 2))
    assert [value(MULTI_LABEL, name, nothing, nothing) for name in ("micro_f1", "macro_f1")] == [0, 0]
    numbers = np.arange(4.0)[:, None]
    assert value(REGRESSION, "spearman", numbers, np.ones((4, 1))) == 0
    assert value(REGRESSION, "r2", np.ones((4, 1)), numbers) == 0


@pytest.mark.parametrize(("target", "name"), CASES, ids=lambda each: getattr(each, "name", each))
def test_the_interval_is_that_of_groups_drawn_one_by_one(target: Target, name: str) -> None:
    """The bounds agree with a bootstrap of rows that asks the oracle; of Spearman's ρ so do ranks that are kept."""
    labels, values = draw_rows(target, 150, seed=2)
    groups = np.arange(150) // 3
    rng = np.random.default_rng(1)
    slow = []
    for _ in range(300):
        drawn = np.concatenate([np.flatnonzero(groups == group) for group in rng.integers(0, 50, 50)])
        slow.append(ORACLES[target.name][name](labels[drawn], values[drawn]))
    found = estimate(name, labels, values, groups, 4000, 0, target)
    assert [found.low, found.high] == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.5 * np.std(slow))


def against(target: Target, labels: np.ndarray, one: np.ndarray, other: np.ndarray, name: str) -> Comparison:
    stored = ["".join("1" if each else "0" for each in row) for row in labels]
    frames = [
        pd.DataFrame(
            {
                "row_id": [f"r{row:03}" for row in range(len(labels))],
                "label": labels[:, 0] if target is REGRESSION else stored,
                "group": None,
            }
        ).assign(**{f"p_{index}": column for index, column in enumerate(values.T)})
        for values in (one, other)
    ]
    facts = {"name": "champion", "metric": name, "threshold": 0.0, "level": 0.95, "samples": 500}
    return compare(*frames, **facts, target=target)


@pytest.mark.parametrize(("target", "name"), CASES, ids=lambda each: getattr(each, "name", each))
def test_better_is_above_nil_whichever_way_a_metric_runs(target: Target, name: str) -> None:
    """Values that are nearer to the labels clear 'better', and swapped they miss it: errors count the other way."""
    labels, worse = draw_rows(target, 200, seed=3)
    better = worse + 0.7 * (labels - worse)
    there, back = against(target, labels, worse, better, name), against(target, labels, better, worse, name)
    assert (there.is_cleared, there.is_missed) == (True, False)
    assert (back.is_cleared, back.is_missed) == (False, True)
    assert there.difference.value == pytest.approx(-back.difference.value)
    assert (there.mid_p is None) == (name != "exact_match")


def test_labels_are_described_as_counted_by_hand() -> None:
    """Each label by itself, and no matrix of what is taken for what; of numbers nothing."""
    labels, told = np.array([[1, 0], [1, 1], [0, 0.0]]), np.array([[0.9, 0.9], [0.2, 0.8], [0.5, 0.1]])
    (a, b), matrix = describe_classes(labels, told, ("a", "b"), MULTI_LABEL)
    assert (a.precision, a.recall, a.f1, a.support) == pytest.approx((1, 1 / 2, 2 / 3, 2))
    assert (b.precision, b.recall, b.f1, b.support) == pytest.approx((1 / 2, 1, 2 / 3, 1))
    assert matrix == ()
    assert describe_classes(labels[:, :1], told[:, :1], ("rating",), REGRESSION) == ((), ())


def test_a_policy_may_name_every_metric_and_no_other() -> None:
    """And those that one name stands for in several targets run the same way."""
    metrics = [(name, metric) for target in TARGETS.values() for name, metric in target.learning.metrics.items()]
    assert set(MetricName.__args__) == {name for name, _ in metrics}
    assert len({(name, metric.is_loss, metric.is_share) for name, metric in metrics}) == len(dict(metrics))
