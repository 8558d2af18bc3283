"""Probes of real stages: what they count is what the run does, and they leave nothing but the estimate."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from graftwork.database import run_heads
from graftwork.training import launch
from graftwork.training.engine import run_stages
from graftwork.training.estimate import StageEstimate, Trial, find_estimate
from graftwork.training.plan import ResolvedRun
from graftwork.training.probe import probe_run
from graftwork.workspace import Workspace

pytestmark = pytest.mark.e2e

Resolve = Callable[..., ResolvedRun]
HEAD = "{name: NAME, train: head, epochs: 1, learning_rate: 1e-2}"
TOP = "{name: NAME, train: [head, 'top:1'], epochs: 2, learning_rate: 1e-3}"
ALL = "{name: NAME, train: all, epochs: 1, learning_rate: 1e-3}"
SOLVED = "{name: NAME, train: head, solver: lbfgs}"
LORA = "{name: NAME, train: [lora, head], epochs: 1, learning_rate: 1e-3, lora: {rank: 2, blocks: 'top:1'}}"
OPTIONS = "augment: {word_dropout: 0.1}, accumulate: 3, average: {ema: 0.9}, l2_sp: 0.01}"


def stages(*sections: str) -> str:
    """A list of stages as after --set, each with a name of its own."""
    return f"stages=[{', '.join(section.replace('NAME', f's{place}') for place, section in enumerate(sections))}]"


def probe(run: ResolvedRun, workspace: Workspace) -> list[StageEstimate]:
    """What a probe in this process reports."""
    events: list[dict[str, Any]] = []
    groups = max(len(stage.rates) for stage in run.plan.stages)
    probe_run(run, workspace, events.append, lambda: False, Trial(run.plan.batch_tokens, groups))
    return [StageEstimate(**event) for event in events if event.pop("event") == "probed"]


def train(run: ResolvedRun, workspace: Workspace) -> list[tuple[str, int, int]]:
    """The name, the steps and the rows computed once of each stage that is trained; a solved one has no steps."""
    events: list[dict[str, Any]] = []
    bundle = run_stages(run, workspace, events.append, lambda: False)
    trained = [event["stage"] for event in events if event["event"] == "stage"]
    rows = {event["stage"]: event["of"] for event in events if event["event"] == "prefix"}
    stages = zip(run.plan.stages, bundle.stages, strict=True)
    steps = {stage.name: result.epochs[-1].step for stage, result in stages if stage.solver == "adamw"}
    return [(name, steps.get(name, 0), rows.get(name, 0)) for name in trained]


@pytest.mark.parametrize(
    "override",
    [
        stages(HEAD, TOP, HEAD),  # what the last one has frozen is not what it was
        stages(HEAD, HEAD),  # the second finds what the first computed
        stages(ALL, HEAD, HEAD),
        stages(SOLVED, LORA, HEAD),
        stages(HEAD, HEAD.replace("}", f", {OPTIONS}"), HEAD),  # the second is not cut, and changes nothing frozen
        "train.prefix_cache=false",
    ],
)
def test_it_counts_the_steps_and_rows_that_the_run_then_has(
    resolve: Resolve, workspace: Workspace, override: str
) -> None:
    """Stage by stage, whatever is frozen and whoever computed it before."""
    run = resolve(override)
    estimated = [(stage.stage, stage.steps, stage.rows) for stage in probe(run, workspace)]
    assert estimated == train(run, workspace)


def test_what_is_there_already_is_not_probed(resolve: Resolve, workspace: Workspace) -> None:
    """Neither a stage that is stored, nor rows that another run computed."""
    train(resolve(stages(HEAD)), workspace)
    run = resolve(stages(HEAD, TOP, HEAD))
    estimated = [(stage.stage, stage.steps, stage.rows) for stage in probe(run, workspace)]
    assert [name for name, *_ in estimated] == ["s1", "s2"]
    assert estimated == train(run, workspace)
    (again,) = probe(resolve(stages(HEAD), "train.seed=5"), workspace)
    assert again.rows == 0 < again.steps


def test_nothing_is_left_but_the_estimate(resolve: Resolve, workspace: Workspace) -> None:
    """Two probes, each in a process of its own: the second's estimate in place of the first's; no state, no lease."""
    run, store = resolve(), workspace.store

    def stored() -> set[str]:
        return {str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file()}

    before, told = stored(), list[tuple[int, int]]()
    for _ in range(2):
        estimate = launch.probe_run(run, store, lambda done, total: told.append((done, total)))
        assert find_estimate(store, run.run_id) == estimate
        assert stored() - before == {f"{estimate.key}/{name}" for name in ("estimate.json", "MANIFEST.json")}
    assert before <= stored()
    assert told == [(0, 2), (1, 2)] * 2
    with workspace.database.begin() as connection:
        assert connection.execute(select(run_heads)).all() == []


LONG = "the film was very good and not bad but long and dull and clever " * 10
LITTLE = """
import psutil

there_is = psutil.virtual_memory
psutil.virtual_memory = lambda: there_is()._replace(available=450 << 20)
"""


def test_what_is_proposed_fits(
    resolve: Resolve, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine with little memory, where one batch of all rows needs more, a smaller one is found that does not."""
    head, *lines = (tmp_path / "made.csv").read_text().splitlines()
    long = [f"{number} {LONG},{line.rpartition(',')[2]}" for number, line in enumerate(lines)]
    (tmp_path / "made.csv").write_text("\n".join([head, *long, ""]))
    (tmp_path / "little").mkdir()
    (tmp_path / "little" / "sitecustomize.py").write_text(LITTLE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "little"), prepend=os.pathsep)
    overrides = ("input.max_tokens=128", "train.batch_tokens=100000", stages(ALL))
    estimate = launch.probe_run(resolve(*overrides), workspace.store)
    assert not estimate.fits
    assert estimate.proposal is not None
    (smaller,) = estimate.proposal.overrides
    assert smaller.startswith("train.batch_tokens=")
    assert launch.probe_run(resolve(*overrides, smaller), workspace.store).fits
