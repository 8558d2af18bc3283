"""Paired comparisons: symmetric, in step with theory, and not fooled by a handful of rows."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.evaluation.comparison import Comparison, compare, mcnemar_mid_p
from graftwork.targets.catalog import CLASSIFICATION

LABELS = st.lists(st.integers(0, 2), min_size=40, max_size=60)


def frame(labels: np.ndarray, probabilities: np.ndarray, groups: list[str | None] | None = None) -> pd.DataFrame:
    """Predictions as they are stored."""
    rows = len(labels)
    columns = {f"p_{index}": probabilities[:, index] for index in range(probabilities.shape[1])}
    ids = [f"s/{row:05d}" for row in range(rows)]
    return pd.DataFrame({"row_id": ids, "label": labels, "group": groups or [None] * rows, "source": "s"} | columns)


def sure(labels: np.ndarray, is_right: np.ndarray) -> pd.DataFrame:
    """Predictions of two classes that are right where they are said to be."""
    return frame(labels, np.eye(2)[np.where(is_right, labels, 1 - labels)])


def against(reference: pd.DataFrame, candidate: pd.DataFrame, metric: str = "accuracy", **chosen: float) -> Comparison:
    settings = {"threshold": 0.0, "level": 0.95, "samples": 500} | chosen
    return compare(reference, candidate, name="champion", metric=metric, **settings)


@pytest.mark.parametrize("metric", CLASSIFICATION.learning.metrics)
@given(seed=st.integers(0, 2**32), level=st.sampled_from([0.9, 0.975]), grouped=st.booleans())
@settings(deadline=None, max_examples=15)
def test_swapping_the_two_negates_the_interval(metric: str, seed: int, level: float, grouped: bool) -> None:
    """What the candidate gains on the reference, the reference loses on the candidate."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 50)
    groups = [f"g{row // 4}" if row % 5 else None for row in range(50)] if grouped else None
    one, two = (frame(labels, rng.dirichlet(np.ones(3), 50), groups) for _ in range(2))
    there, back = against(one, two, metric, level=level).difference, against(two, one, metric, level=level).difference
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low), abs=1e-12)


@pytest.mark.parametrize("metric", CLASSIFICATION.learning.metrics)
@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=15)
def test_equal_predictions_are_never_better(metric: str, seed: int) -> None:
    """A model compared with itself gains exactly nothing: it misses 'better' and clears any margin."""
    rng = np.random.default_rng(seed)
    same = frame(rng.integers(0, 3, 40), rng.dirichlet(np.ones(3), 40))
    found = against(same, same, metric)
    assert (found.difference.value, found.difference.low, found.difference.high) == (0, 0, 0)
    assert (found.is_cleared, found.is_missed) == (False, True)
    assert against(same, same, metric, threshold=-0.01).is_cleared


def test_the_standard_error_of_paired_accuracies_is_the_textbooks() -> None:
    """With b wins and c losses in n rows its square is (b + c - (b - c)^2 / n) / n^2."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 1500)
    reference, candidate = rng.random(1500) < 0.8, rng.random(1500) < 0.83
    won, lost = (candidate & ~reference).sum(), (reference & ~candidate).sum()
    found = against(sure(labels, reference), sure(labels, candidate), samples=20_000)
    assert found.difference.value == pytest.approx((won - lost) / 1500)
    assert found.standard_error == pytest.approx(np.sqrt(won + lost - (won - lost) ** 2 / 1500) / 1500, rel=0.03)
    assert found.difference.low == pytest.approx(found.difference.value - 1.645 * found.standard_error, abs=0.001)


def test_groups_widen_the_interval() -> None:
    """Rows that stand or fall together count as one: twelve lots of fifty say less than six hundred rows."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    is_right = np.repeat(rng.random(12) < 0.6, 50)
    reference, candidate = sure(labels, np.ones(600, dtype=bool)), sure(labels, is_right)
    alone = against(reference, candidate)
    lots = [f"lot{row // 50}" for row in range(600)]
    together = against(reference.assign(group=lots), candidate.assign(group=lots))
    assert (alone.groups, together.groups) == (600, 12)
    assert together.standard_error > 5 * alone.standard_error


def test_a_lower_loss_is_a_gain() -> None:
    """The sign of a loss is turned, so that above 0 always means better."""
    labels = np.tile([0, 1], 50)
    vague, sharp = (frame(labels, np.where(np.eye(2)[labels] == 1, p, 1 - p)) for p in (0.6, 0.9))
    for metric in ("log_loss", "brier"):
        found = against(vague, sharp, metric)
        assert found.candidate_value < found.reference_value
        assert found.is_cleared


def test_four_wins_in_four_do_not_clear_a_coin_does_that_too_often() -> None:
    """The bootstrap's bound is above 0 at 97.5 %, the exact count is not convinced."""
    labels = np.zeros(500, dtype=int)
    found = against(sure(labels, np.arange(500) >= 4), sure(labels, np.arange(500) >= 0), level=0.975, samples=4000)
    assert found.difference.low > 0
    assert found.mid_p == pytest.approx(0.5**4 / 2)
    assert not found.is_cleared


@pytest.mark.parametrize(("won", "lost", "p"), [(0, 0, 0.5), (1, 0, 0.25), (1, 1, 0.5), (2, 1, 1 / 8 + 3 / 16)])
def test_mid_p_is_what_a_coin_gives(won: int, lost: int, p: float) -> None:
    """Counted by hand: all better outcomes in full, the same outcome by half."""
    reference = np.repeat([False, True, True], [won, lost, 5])
    candidate = np.repeat([True, False, True], [won, lost, 5])
    assert mcnemar_mid_p(reference, candidate) == pytest.approx(p)


@pytest.mark.parametrize("change", [{"label": 1}, {"row_id": "elsewhere"}])
def test_predictions_for_other_rows_are_refused(change: dict[str, object]) -> None:
    """Unpaired numbers are never compared."""
    one = sure(np.zeros(40, dtype=int), np.ones(40, dtype=bool))
    with pytest.raises(ValueError, match="same rows"):
        against(one, one.assign(**change))


@given(labels=LABELS, seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_the_order_of_rows_is_of_no_account(labels: list[int], seed: int) -> None:
    """Stored in another order, the same predictions give the same comparison."""
    rng = np.random.default_rng(seed)
    one, two = (frame(np.array(labels), rng.dirichlet(np.ones(3), len(labels))) for _ in range(2))
    assert against(one.sample(frac=1, random_state=1), two.sample(frac=1, random_state=2)) == against(one, two)
