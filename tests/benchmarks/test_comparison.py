"""Ratios and differences in accuracy, against numbers that were worked out by hand."""

from collections.abc import Sequence

import pandas as pd
import pytest

from benchmarks.comparison import Spread, accuracy, accuracy_difference


def predictions(is_right: Sequence[bool], groups: Sequence[str | None] | None = None) -> pd.DataFrame:
    """Rows of class 1, judged rightly or not."""
    p_1 = [0.9 if right else 0.2 for right in is_right]
    rows = [f"made/{index}" for index in range(len(p_1))]
    facts = {"row_id": rows, "label": 1, "group": groups or [None] * len(rows)}
    return pd.DataFrame(facts | {"p_0": [1 - p for p in p_1], "p_1": p_1})


def test_a_ratio_is_the_geometric_mean_over_pairs() -> None:
    """A quarter and one are a half in the middle, where the ratio of sums would be 5 to 8."""
    assert Spread.of_ratios([1, 4], [4, 4]) == Spread(pytest.approx(0.5), 0.25, 1)


def test_equal_predictions_differ_by_nothing() -> None:
    same = [predictions([True, False, True])] * 3
    found = accuracy_difference(same, same)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_five_seeds_are_not_all_seeds() -> None:
    """Of two seeds one wins every row and one loses it: redrawn, a quarter of the pairs is all won, a quarter all lost.

    However many rows there are, the interval is from -1 to 1.
    """
    won, lost = predictions([True] * 500), predictions([False] * 500)
    found = accuracy_difference([won, lost], [lost, won])
    assert (found.value, found.low, found.high) == (0, -1, 1)


def test_rows_of_one_group_are_one() -> None:
    """Of two groups of ten one is won: redrawn, it is drawn twice or not at all a quarter of the time each."""
    groups = ["first"] * 10 + ["second"] * 10
    ours, peer = predictions([True] * 20, groups), predictions([True] * 10 + [False] * 10, groups)
    found = accuracy_difference([ours], [peer])
    assert (found.value, found.low, found.high) == (0.5, 0, 1)


def test_only_the_same_rows_are_compared() -> None:
    ours = predictions([True, False])
    with pytest.raises(ValueError, match="not of the same rows"):
        accuracy_difference([ours], [ours.assign(label=[0, 1])])


def test_accuracy_is_the_share_of_right_rows() -> None:
    assert accuracy(predictions([True, False, True, True])) == 0.75
