"""Stages that go on with next sentence prediction or span corruption, beside what other stages do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pretrained import write_sentences, write_t5
from tiny import resolve_run, train_until, write_project

from graftwork.settings import Settings
from graftwork.training.bundle import ServingBundle
from graftwork.training.estimate import Trial
from graftwork.training.plan import ResolvedRun
from graftwork.training.probe import probe_run
from graftwork.workspace import Workspace

PAIRS, SPANS = "next-sentence-prediction", "span-corruption"
Project = tuple[str, Callable[[Path, Path], None], Path]


@pytest.fixture(params=[PAIRS, SPANS])
def project(request: pytest.FixtureRequest, tmp_path: Path, tiny_checkpoint: Path) -> Project:
    """An objective, what writes a project of its texts, and a checkpoint that was made so."""
    if request.param == SPANS:
        return SPANS, write_project, write_t5(tmp_path / "checkpoint")
    return PAIRS, write_sentences, tiny_checkpoint


def resolve(folder: Path, workspace: Workspace, project: Project, options: str, *overrides: str) -> ResolvedRun:
    """The run of a stage that learns so, with these options, and of a head."""
    objective, write, checkpoint = project
    write(folder, checkpoint)
    stages = (
        f"stages=[{{name: adapt, objective: {objective}, epochs: 2, learning_rate: 1e-3, {options}}},"
        " {name: top, train: [head, 'top:1'], epochs: 1, learning_rate: 1e-3}]"
    )
    return resolve_run(folder, workspace, stages, *overrides)


def open_home(folder: Path) -> Workspace:
    return Workspace.open(Settings(home=folder / "home"))


@pytest.mark.parametrize(
    ("options", "override"),
    [
        ("train: all, average: {ema: 0.9}, accumulate: 3", "train.precision=bfloat16"),
        ("train: 'top:1', body_dropout: false, l2_sp: 0.01, hidden_share: 0.3", "train.batch_tokens=20"),
    ],
)
def test_it_takes_what_other_stages_take(tmp_path: Path, project: Project, options: str, override: str) -> None:
    """And a probe counts the steps that it then has."""
    workspace = open_home(tmp_path)
    run = resolve(tmp_path, workspace, project, options, override)
    events: list[dict[str, Any]] = []
    probe_run(run, workspace, events.append, lambda: False, Trial(run.plan.batch_tokens, len(run.plan.stages[0].rates)))
    bundle: ServingBundle = train_until(run, workspace)
    probed = [event["steps"] for event in events if event["event"] == "probed"]
    assert probed == [stage.epochs[-1].step for stage in bundle.stages]


def test_rows_of_two_texts_are_learnt_from(tmp_path: Path, project: Project) -> None:
    """The two texts are the parts that follow each other; a span is of one of them."""
    objective, _, checkpoint = project

    def write(folder: Path, checkpoint: Path) -> None:
        write_project(folder, checkpoint)
        header, *lines = (folder / "made.csv").read_text().splitlines()
        rows = [f"{line.split()[1]} film,{line}" for line in lines]
        (folder / "made.csv").write_text("\n".join([f"title,{header}", *rows]) + "\n")

    workspace = open_home(tmp_path)
    run = resolve(tmp_path, workspace, (objective, write, checkpoint), "train: all", "input.text=[title, text]")
    first, last = train_until(run, workspace).stages[0].epochs
    assert last.validation_loss < first.validation_loss
