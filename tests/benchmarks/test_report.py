"""The report says what the cells say, and what they do not."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from measurements import MACHINE, make_measurement

from benchmarks.cells import PREDICTIONS, Results
from benchmarks.experiments import COMMANDS, PIPELINE, PREDICTION, RETRAINING, RUN, STEPS, TRAINER, TRAINER_STEPS
from benchmarks.report import Figure, Goal, figures, write_report

TITLES = {
    "plain": "time to the plain Trainer's accuracy",
    "tuned": "time to the tuned Trainer's accuracy",
    "rate": "rows a second, full fine-tuning",
    "gemm": "share of the measured GEMM rate, full fine-tuning",
    "saving": "saving state, share of the training time",
    "landing": "retraining after 5 % new rows, against from scratch",
    "landings": "accuracy after ten landings, against from scratch",
    "run": "`graftwork run` of the demo, first time",
}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results" / MACHINE.name)


def keep(
    results: Results,
    arm: str,
    seed: int,
    is_right: Sequence[bool] = (),
    others: float = 0.0,
    **values: float | list[float],
) -> None:
    """A cell, and its predictions for rows of class 1."""
    left = results.folder.parent / "left"
    left.mkdir(parents=True, exist_ok=True)
    p_1 = [0.75 if right else 0.25 for right in is_right]
    facts = {"row_id": [f"made/{row}" for row in range(len(p_1))], "label": 1, "group": None}
    pd.DataFrame(facts | {"p_0": [1 - p for p in p_1], "p_1": p_1}).to_parquet(left / PREDICTIONS)
    results.keep(make_measurement(arm, seed, others, **values), left)


def line(results: Results, name: str) -> Figure:
    return next(figure for figure in figures(results) if figure.title == TITLES[name])


def test_a_faster_training_that_is_no_worse_reaches_the_goal(results: Results) -> None:
    """A quarter and a ninth of the time are a sixth; both are right wherever the Trainer is."""
    for seed, (ours, peer) in enumerate([(100, 400), (100, 900)], start=1):
        keep(results, RUN, seed, [True] * 50, seconds=ours, peak_mib=1, saving_s=1)
        keep(results, TRAINER, seed, [True] * 50, seconds=peer, peak_mib=2)
    found = line(results, "plain")
    assert found.ratio == "0.17 (0.11 to 0.25)"
    assert found.verdict == "yes; accuracy +0.0 points (+0.0 to +0.0) over 100 paired predictions"


def test_a_faster_training_that_is_worse_reaches_nothing(results: Results) -> None:
    """Two rows in fifty are four points."""
    for seed in (1, 2):
        keep(results, RUN, seed, [False, False, *[True] * 48], seconds=10, peak_mib=1, saving_s=0)
        keep(results, TRAINER, seed, [True] * 50, seconds=100, peak_mib=2)
    assert line(results, "plain").verdict.startswith("no: not shown to be within 1 point; accuracy -4.0 points (")


def test_a_difference_that_few_rows_tell_reaches_nothing(results: Results) -> None:
    """Five rows won and five lost are no difference, but may well be one of more than a point."""
    won, lost = [True] * 45 + [False] * 5, [False] * 5 + [True] * 45
    keep(results, RUN, 1, won, seconds=10, peak_mib=1, saving_s=0)
    keep(results, TRAINER, 1, lost, seconds=100, peak_mib=2)
    assert line(results, "plain").verdict.startswith("no: not shown to be within 1 point; accuracy +0.0 points (-")


def test_the_share_of_the_gemm_rate_is_ours_alone(results: Results) -> None:
    """Seven operations in ten a second are 0.7: the goal, not the aim; the ratio to the peer's is only shown."""
    shared = {"seconds": 1, "steps": 1, "tokens": 8, "positions": 10, "peak_mib": 1, "gemm_flops_per_s": 10}
    keep(results, STEPS, 1, flops=7, rows=20, **shared)
    keep(results, TRAINER_STEPS, 1, flops=2, rows=10, **shared)
    found = line(results, "gemm")
    assert (found.peer, found.ours, found.verdict) == ("0.20", "0.70", "yes")
    assert line(results, "rate").verdict == "yes, and the aim"


def test_saving_counts_by_its_worst_seed(results: Results) -> None:
    for seed, saving in ((1, 1.0), (2, 3.0)):
        keep(results, RUN, seed, [True], seconds=100, peak_mib=1, saving_s=saving)
        keep(results, TRAINER, seed, [True], seconds=100, peak_mib=1)
    assert line(results, "saving").verdict == "no"


def test_retraining_stands_beside_training_from_scratch(results: Results) -> None:
    """The middle landing of a run by its time from scratch; rows that one of both alone has right over all runs."""
    for seed, landings in ((1, [9, 18, 90]), (2, [18])):
        judged = {"judged": 100, "warm_accuracy": 0.9, "scratch_accuracy": 0.91, "only_warm": 0, "only_scratch": 1}
        keep(results, RETRAINING, seed, landings_s=landings, scratch_s=200, **judged)
    found = line(results, "landing")
    assert (found.ratio, found.verdict) == ("0.09 (0.09 to 0.09)", "yes")
    lost = line(results, "landings")
    assert (lost.peer, lost.ours, lost.ratio) == ("0.910", "0.900", "-1.0 points, standard error 0.7")
    assert lost.verdict == "no"


def test_a_whole_report(results: Results, tmp_path: Path) -> None:
    """It names machine, commit, date, goal and command, what is not measured, and what was disturbed."""
    keep(results, PREDICTION, 1, [True, False], others=0.2, seconds=1, rows=2)
    keep(results, PIPELINE, 1, [True, True], seconds=2, rows=2)
    keep(results, COMMANDS, 1, run_s=300, help_s=[0.2, 0.1, 0.3], plan_s=[1], unchanged_s=[9])
    write_report(tmp_path / "results", tmp_path / "RESULTS.md")
    text = (tmp_path / "RESULTS.md").read_text()
    assert f"## {MACHINE}\n" in text
    command = "`--only prediction` | c0ffee | 2026-11-01 |"
    assert f"| rows a second, batch prediction | 1 | 2 | 2.00 (2.00 to 2.00) | ≥ 3 | no | {command}" in text
    assert "| `graftwork --help` | – | 0.20 s (0.10 to 0.30) |" in text
    assert "| `graftwork run` of the demo, first time | – | 300 s | – | ≤ 240 s | no |" in text
    unmeasured = "| retraining after 5 % new rows, against from scratch | – | – | – | ≤ 0.1, aim 0.05 | not measured |"
    assert unmeasured in text
    assert "The same class for 50.00 % of 2 rows; no probability differs by more than 0.5000." in text
    assert "more than 5 % of the machine during: prediction/graftwork 1 (20 %)." in text


def test_trainings_on_several_machines_tell_of_one_accuracy(results: Results, tmp_path: Path) -> None:
    """All pairs together; their times stay apart."""
    for folder in (results.folder, results.folder.with_name("another")):
        for seed in (1, 2):
            keep(Results(folder), RUN, seed, [True] * 50, seconds=100, peak_mib=1, saving_s=1)
            keep(Results(folder), TRAINER, seed, [False, *[True] * 49], seconds=400, peak_mib=2)
    write_report(tmp_path / "results", tmp_path / "RESULTS.md")
    text = (tmp_path / "RESULTS.md").read_text()
    assert "Accuracy of ours less the plain Trainer's: +2.0 points (" in text
    assert "over 200 paired predictions of 4 trainings on 2 machines." in text


@pytest.mark.parametrize(("value", "verdict"), [(0.25, "yes"), (0.125, "yes, and the aim"), (0.26, "no")])
def test_a_goal_is_reached_at_its_bound(value: float, verdict: str) -> None:
    assert Goal(1 / 4, 1 / 8).verdict(value) == verdict
