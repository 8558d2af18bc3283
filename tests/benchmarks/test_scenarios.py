"""What is kept of a trial and what a table makes of it; which reviews a scenario trains on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.scenarios.few_shot import JUDGED, PER_CLASS, few_rows, judged_rows
from benchmarks.scenarios.project import draw
from benchmarks.scenarios.trials import Arm, Found, Scenario, Trial, measure, read_trials, table


def found(is_right: Sequence[int], groups: Sequence[int] | None = None, cpu_s: float = 2.0) -> Found:
    rows = np.arange(len(is_right)) if groups is None else np.array(groups)
    return Found(cpu_s, {"accuracy": np.array(is_right, dtype=bool)}, rows)


@pytest.mark.parametrize("groups", [None, [0, 0, 1, 1, 1, 2, 3, 3, 3]])
def test_a_trial_gives_back_what_was_found(groups: list[int] | None) -> None:
    """Row by row, also where rows do not fill their last byte."""
    is_right = [1, 0, 0, 1, 1, 1, 0, 1, 1]
    trial = Trial.of("made", 1, "v", found(is_right, groups))
    assert trial.is_right("accuracy").tolist() == is_right
    assert trial.codes.tolist() == (groups or list(range(9)))


def test_what_is_measured_stays_so_until_its_settings_change(tmp_path: Path) -> None:
    """A later call measures what is missing, and of an arm that changed all seeds."""
    done: list[tuple[str, int]] = []

    def arm(name: str, settings: int) -> Arm:
        return Arm(lambda seed, _: done.append((name, seed)) or found([1, 0]), settings)

    file = tmp_path / "made.jsonl"
    measure(Scenario({"one": arm("one", 1), "two": arm("two", 1)}, 2), 1, file)
    assert done == [("one", 1), ("two", 1)]
    measure(Scenario({"one": arm("one", 1), "two": arm("two", 2)}, 2), 2, file)
    assert done[2:] == [("two", 1), ("one", 2), ("two", 2)]
    assert len(read_trials(file)) == 4


def test_a_table_by_hand(tmp_path: Path) -> None:
    """Means and standard errors over two seeds, the difference to the first arm, and how much longer it took."""
    arms = {
        "plain": Arm(lambda seed, _: found([1, 0, 0, 0] if seed == 1 else [1, 1, 0, 0]), 1),
        "better": Arm(lambda seed, _: found([1, 1, 1, 1], cpu_s=6.0), 1),
    }
    scenario = Scenario(arms, 2)
    measure(scenario, 2, tmp_path / "made.jsonl")
    _, _, plain, better = table(scenario, 2, read_trials(tmp_path / "made.jsonl"))
    assert plain == "| plain | 0.375 ± 0.125 | – | 2 | 1.0 |"
    assert better.startswith("| better | 1.000 ± 0.000 | +0.625 (+")
    assert better.endswith(" | 6 | 3.0 |")


def test_no_table_before_all_arms_are_there(tmp_path: Path) -> None:
    """A seed that one arm lacks would compare different draws."""
    arms = {"one": Arm(lambda *_: found([1]), 1), "two": Arm(lambda *_: found([1]), 1)}
    measure(Scenario({"one": arms["one"]}, 1), 1, tmp_path / "made.jsonl")
    assert list(table(Scenario(arms, 1), 1, read_trials(tmp_path / "made.jsonl"))) == []


def test_what_belongs_together_is_drawn_together() -> None:
    """Whole units, until there are enough rows; another seed draws others."""
    rows = pd.DataFrame({"unit": [f"u{index // 3}" for index in range(60)]})
    drawn = draw(rows, 10, seed=1)
    assert len(drawn) == 12
    assert set(drawn.groupby("unit").size()) == {3}
    assert set(drawn["unit"]) != set(draw(rows, 10, seed=2)["unit"])


@pytest.mark.e2e
def test_few_rows_are_none_of_the_judged() -> None:
    """As many of each class, others under another seed, and never a row that is judged."""
    judged, first, second = judged_rows(), few_rows(1), few_rows(2)
    assert len(judged) == JUDGED
    for drawn in (first, second):
        assert drawn["label"].value_counts().to_dict() == {0: PER_CLASS, 1: PER_CLASS}
        assert not set(drawn["row_id"]) & set(judged["row_id"])
        assert not set(drawn["unit"]) & set(judged["unit"])
    assert set(first["row_id"]) != set(second["row_id"])
