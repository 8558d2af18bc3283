"""The rows of a warm start: all that are new, and a sample of the others that is as good as any."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.data import replay
from graftwork.data.replay import ChosenRows, choose_rows


def rows_of(numbers: range, label: int | None = None) -> pd.DataFrame:
    """Rows with a text each, as `load_rows` gives them; every fifth is of class 1, unless a label is given."""
    return pd.DataFrame(
        {
            "row_id": [f"s/{number:05}" for number in numbers],
            "text": [f"Text {number}" for number in numbers],
            "text_b": None,
            "label": [int(number % 5 == 0) if label is None else label for number in numbers],
        }
    )


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small landing is one of fewer than four rows."""
    monkeypatch.setattr(replay, "LEAST_REPLAYED", 4)


def ids(chosen: ChosenRows) -> list[str]:
    return list(chosen.rows["row_id"])


@settings(max_examples=50, deadline=None)
@given(known=st.integers(1, 300), new=st.integers(0, 60), ratio=st.floats(0.1, 3), seed=st.integers(0, 2**60))
def test_all_new_rows_and_a_share_of_the_others(known: int, new: int, ratio: float, seed: int) -> None:
    """As many known rows as were asked for, of each class its share and one at least, in the order they had."""
    rows = rows_of(range(known + new))
    chosen = choose_rows(rows, rows[:known], ratio, seed)
    assert (chosen.new, chosen.known, chosen.withdrawn) == (new, known, 0)
    assert ids(chosen) == sorted(ids(chosen))
    assert set(rows["row_id"][known:]) <= set(ids(chosen))
    assert len(chosen.rows) == new + chosen.replayed
    wanted = min(known, max(4, ratio * new))
    assert wanted <= chosen.replayed <= wanted + 2
    assert set(chosen.rows["label"]) == set(rows["label"])


def test_what_is_replayed_grows_with_what_is_new_and_not_with_what_is_known() -> None:
    """A hundred times the rows, and the same landing: the same number of rows to train on."""
    counts = [
        choose_rows(rows_of(range(known + 40)), rows_of(range(known)), 1.0, seed=1).replayed for known in (100, 10_000)
    ]
    assert counts == [40, 40]


def test_the_sample_is_a_function_of_the_seed() -> None:
    """The same again, whatever else is drawn in the process; with another seed another one."""
    rows, before = rows_of(range(300)), rows_of(range(200))
    first, second, other = (choose_rows(rows, before, 0.5, seed) for seed in (1, 1, 2))
    assert ids(first) == ids(second) != ids(other)


def test_a_row_is_known_by_what_it_says() -> None:
    """Not by its id; a corrected label makes it new, another case or another place does not."""
    before = rows_of(range(20))
    same = before.assign(row_id=before["row_id"] + "x", text=before["text"].str.upper())
    assert choose_rows(same, before, 1.0, seed=1).new == 0
    corrected = before.assign(
        label=[1 - label if number < 3 else label for number, label in enumerate(before["label"])]
    )
    chosen = choose_rows(corrected, before, 1.0, seed=1)
    assert (chosen.new, chosen.known, chosen.withdrawn) == (3, 17, 3)


def test_pairs_are_known_by_both_texts() -> None:
    """A pair with one text changed is another row."""
    before = rows_of(range(10)).assign(text_b="the same")
    now = before.assign(text_b=["another" if number == 0 else "the same" for number in range(10)])
    assert choose_rows(now, before, 1.0, seed=1).new == 1


def test_withdrawn_rows_are_counted_and_not_replayed() -> None:
    """They are in no manifest that is trained on."""
    chosen = choose_rows(rows_of(range(10, 40)), rows_of(range(30)), 9.0, seed=1)
    assert chosen.withdrawn == 10
    assert ids(chosen) == [f"s/{number:05}" for number in range(10, 40)]


def test_nothing_known_is_left() -> None:
    """Then all rows are new."""
    chosen = choose_rows(rows_of(range(10)), rows_of(range(50, 60)), 1.0, seed=1)
    assert (chosen.new, chosen.replayed, len(chosen.rows)) == (10, 0, 10)
