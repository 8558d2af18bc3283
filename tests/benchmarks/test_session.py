"""Cells are measured once, in processes of their own, and a session goes on where the last one was."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from measurements import make_measurement

from benchmarks.__main__ import Session
from benchmarks.cells import Cell, CellFailed, Job, Outcome, Results, Usage, run_cell
from benchmarks.experiments import EXPERIMENTS, SEARCHED, STEPS, Experiment
from benchmarks.machine import this_machine
from benchmarks.workload import PreparedHome, Workload, both_reviews, prepare

pytestmark = pytest.mark.e2e


@pytest.fixture
def session(workload: Workload, tmp_path: Path) -> Session:
    """One cell of one arm; its home is still to be prepared."""
    return Session(
        experiment=Experiment(both_reviews, (STEPS,)),
        seeds=1,
        workload=workload,
        home=PreparedHome(tmp_path / "home", "", "", ""),
        machine=this_machine(),
        results=Results(tmp_path / "results"),
    )


def test_a_cell_is_measured_once(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    """In a real process; then never again, until what decides it is another."""
    cell = Cell(STEPS, 1)
    session.home = prepare(session.workload, session.home.folder)
    assert dict(session.states()) == {cell: "missing"}
    session.measure()
    assert dict(session.states())[cell] in ("measured", "disturbed")
    measured = session.results.read()[cell]
    assert measured.values["steps"] == 2
    assert measured.usage.cpu_s > 0
    assert measured.values["peak_mib"] > 100
    capsys.readouterr()
    session.measure()
    assert capsys.readouterr().out == ""
    session.home = replace(session.home, bundle="of other stages")
    assert dict(session.states()) == {cell: "out of date"}


def test_of_two_measurements_the_less_disturbed_counts(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever they found: the second is quieter, the third is not asked for any more."""
    usages = iter([Usage(1, 1, 0.5), Usage(1, 1, 0.4), Usage(1, 1, 0.6)])
    monkeypatch.setattr("benchmarks.__main__.run_cell", lambda *_: (Outcome("float32", {}), next(usages)))
    session.repeat_disturbed = True
    session.measure()
    assert session.results.read()[Cell(STEPS, 1)].usage.others == 0.4
    session.repeated.clear()
    session.measure()
    assert session.results.read()[Cell(STEPS, 1)].usage.others == 0.4


def test_a_cell_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "cell").mkdir()
    home, job = PreparedHome(tmp_path / "empty", "", "", ""), Job(Cell(STEPS, 1), Workload(tmp_path / "no.yaml"))
    with pytest.raises(CellFailed, match=r"(?s)steps/graftwork 1: its process ended with exit code 1.*no\.yaml"):
        run_cell(job, home, tmp_path / "cell")


def test_arms_take_turns_and_the_best_rate_goes_on() -> None:
    """All rates under the first seed; afterwards the one that got most validation rows right."""
    found: dict[Cell, Any] = {}
    training, rates = EXPERIMENTS["training"], tuple(SEARCHED)
    always = ("training/graftwork", "training/graftwork-quick", "training/trainer")
    assert tuple(cell.arm for cell in training.cells(2, found))[-3:] == always
    for arm, accuracy in zip(rates, (0.7, 0.9, 0.8, 0.9), strict=True):
        found[Cell(arm, 1)] = make_measurement(arm, 1, validation_accuracy=accuracy)
    expected = [Cell(arm, 1) for arm in (*always, *rates)] + [Cell(arm, 2) for arm in (*always, rates[1])]
    assert list(training.cells(2, found)) == expected
