"""Several processes that train one run: the same steps as one takes, exact among themselves, and none left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from pretrained import write_sentences, write_t5
from sqlalchemy import update
from team import train_together
from tiny import (
    WORDS,
    facts,
    resolve_run,
    write_checkpoint,
    write_family_project,
    write_image_project,
    write_project,
    write_tags_project,
)
from writers import write_writer, write_writer_project

from graftwork.data.manifest import load_rows
from graftwork.database import run_heads
from graftwork.errors import Paused, TrainingError
from graftwork.evaluation.predictions import inputs_of
from graftwork.models.serving.model import load
from graftwork.settings import Settings
from graftwork.storage import Store
from graftwork.training import launch
from graftwork.training.bundle import MODEL, ServingBundle, find_bundle
from graftwork.training.engine import run_stages
from graftwork.training.plan import ResolvedRun
from graftwork.training.replicas import ALONE, Replicas
from graftwork.training.start import Teacher
from graftwork.workspace import Workspace

pytestmark = pytest.mark.e2e

# float32 sums in another order; measured: 2e-7.
TOLERANCE = 1e-5


class Project:
    """A run, and homes in which it is trained, each like the first before anything was trained in it."""

    def __init__(
        self, folder: Path, checkpoint: Path, *overrides: str, write: Callable[[Path, Path], None] = write_project
    ) -> None:
        self.folder = folder
        write(folder, checkpoint)
        self.run = resolve_run(folder, Workspace.open(Settings(home=folder / "home")), *overrides)

    def fresh_home(self, name: str) -> Path:
        return Path(shutil.copytree(self.folder / "home", self.folder / name))

    def train(self, home: Path, processes: int = 2, **how: Any) -> tuple[int, list[dict[str, Any]]]:
        return train_together(self.run.run_id, home, processes, **how)

    def bundle(self, home: Path) -> ServingBundle:
        bundle = find_bundle(Store(home / "store"), self.run.plan.bundle_key)
        assert bundle is not None
        return bundle


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Project:
    """The second stage trains less than the first: followers must have the first one's weights of what it does not."""
    stages = (
        "stages.0.train=[head, 'top:1']",
        "stages.0.epochs=3",
        "stages.0.average={ema: 0.9}",
        "stages.1.train=[head]",
    )
    return Project(tmp_path_factory.mktemp("team"), tiny_checkpoint, *stages)


@pytest.fixture(scope="module")
def unbroken(project: Project) -> ServingBundle:
    """What two processes end with if nothing happens."""
    home = project.fresh_home("unbroken")
    assert project.train(home)[0] == 0
    return project.bundle(home)


# Rows of nine tokens: three to a batch, which can't be halved, or one, so that a process has none of its own.
@pytest.mark.parametrize(
    "changes",
    [
        (
            "train.batch_tokens=27",
            "train.prefix_cache=false",
            "stages.1.class_weights=balanced",
            "stages.1.accumulate=2",
        ),
        (
            "train.batch_tokens=9",
            "stages.0={name: low, train: [head, lora], epochs: 1, learning_rate: 1e-3}",
            "stages.1={name: head, train: [head], solver: lbfgs}",
        ),
        (
            "train.batch_tokens=40",
            "stages.0={name: adapt, objective: masked-language-modelling, train: all, epochs: 1, learning_rate: 1e-3}",
            "stages.1.adversary={epsilon: 0.5}",
        ),
        (
            "train.batch_tokens=9",
            "auxiliary=[{name: again, sources: [{name: again, path: made.csv}],"
            " label: {from: label, classes: [no, yes]}}]",
            "stages.1.auxiliary=again",
            "stages.1.sampling=0.5",
            "stages.1.weighting=uncertainty",
        ),
    ],
)
def test_two_processes_take_the_steps_of_one(tmp_path: Path, tiny_checkpoint: Path, changes: tuple[str, ...]) -> None:
    """Each loss on the way, of steps and of epochs, is that of one process; without dropout, which is drawn by each."""
    project = Project(tmp_path, without_dropout(tiny_checkpoint, tmp_path), "head.dropout=0", *changes)
    np.testing.assert_allclose(*(losses(project, processes) for processes in (1, 2)), rtol=TOLERANCE)


UNLABELLED = "train: all, epochs: 2, learning_rate: 1e-3"
HEAD = "{name: head, train: head, epochs: 1, learning_rate: 1e-3}"


@pytest.mark.parametrize("objective", ["next-sentence-prediction", "span-corruption"])
def test_two_processes_draw_pairs_and_spans_as_one_does(tmp_path: Path, tiny_checkpoint: Path, objective: str) -> None:
    """Whichever process has a row; a batch may be one row, of which a process has none."""
    if objective == "span-corruption":
        checkpoint, write = write_t5(tmp_path / "checkpoint", dropout_rate=0.0), write_project
    else:
        checkpoint, write = without_dropout(tiny_checkpoint, tmp_path), write_sentences
    stages = f"stages=[{{name: adapt, objective: {objective}, {UNLABELLED}}}, {HEAD}]"
    project = Project(tmp_path, checkpoint, "head.dropout=0", "train.batch_tokens=33", stages, write=write)
    np.testing.assert_allclose(*(losses(project, processes) for processes in (1, 2)), rtol=TOLERANCE)


def test_two_processes_detect_replaced_tokens_and_end_with_the_same_bits_again(tmp_path: Path) -> None:
    """Each draws what is written in its own rows, always the same; one process would draw otherwise."""
    write_checkpoint(tmp_path / "checkpoint", "electra")
    stages = f"stages=[{{name: adapt, objective: replaced-token-detection, {UNLABELLED}}}, {HEAD}]"
    project = Project(tmp_path, tmp_path / "checkpoint", "train.batch_tokens=33", stages)
    homes = [project.fresh_home(name) for name in ("one", "two")]
    assert [project.train(home)[0] for home in homes] == [0, 0]
    first, second = (facts(project.bundle(home)) for home in homes)
    assert first == second
    assert first.stages[0].epochs[-1].train_loss < first.stages[0].epochs[0].train_loss


def test_two_processes_hold_and_are_taught_as_one_is(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """Each tells what the weights are worth to a share of the known rows, and asks the teacher about a share of all."""
    still = ("head.dropout=0", "start.from=champion")
    project = Project(tmp_path, without_dropout(tiny_checkpoint, tmp_path), *still)
    workspace = Workspace.open(Settings(home=tmp_path / "home"))
    base = run_stages(project.run, workspace, lambda event: None, lambda: False)
    made = tmp_path / "made.csv"
    made.write_text(made.read_text() + "".join(f"the false film was {word},yes\n" for word in WORDS))
    teacher = Teacher("champion", base.name, 1, base.digest, base.key, base.manifest, base.classes)
    every = (*still, "stages.1.ewc=1000.0", "stages.1.distil={from: champion}", "train.batch_tokens=40")
    project.run = resolve_run(tmp_path, workspace, *every, before=base, teachers=(teacher,))
    np.testing.assert_allclose(*(losses(project, processes) for processes in (1, 2)), rtol=TOLERANCE)


def test_two_processes_mix_pictures_as_one_does(tmp_path: Path) -> None:
    """Each draws what its own rows are mixed with; of classes that weigh differently, a mixed row weighs both."""
    write_checkpoint(tmp_path / "checkpoint", "vit")

    def write(folder: Path, checkpoint: Path) -> None:
        write_image_project(folder, checkpoint)
        for path in sorted((folder / "pictures" / "no").iterdir())[30:]:
            path.unlink()

    mixing = "stages.1.augment={flip: 0.5, rand: {}, mixup: 0.5, cutmix: 1.0}"
    changes = ("head.dropout=0", mixing, "stages.1.class_weights=balanced", "stages.1.accumulate=2")
    project = Project(tmp_path, tmp_path / "checkpoint", *changes, write=write)
    np.testing.assert_allclose(*(losses(project, processes) for processes in (1, 2)), rtol=TOLERANCE)


def test_two_processes_learn_to_write_as_one_does(tmp_path: Path) -> None:
    """Each tells the tokens of its own rows; a decoder by itself on what the encoder made of them, then all."""
    write_writer(tmp_path / "checkpoint", "t5", dropout_rate=0.0)
    # Slowly: at a higher rate differences of rounding grow tenfold every twenty steps.
    changes = ("stages.0.train=[head]", "stages.1.learning_rate=1e-4", "train.batch_tokens=64")
    project = Project(tmp_path, tmp_path / "checkpoint", *changes, write=write_writer_project)
    np.testing.assert_allclose(*(losses(project, processes) for processes in (1, 2)), rtol=TOLERANCE)


def test_two_processes_tag_words_as_one_does(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """A mean is over the words of all rows, of which processes have unequal shares, and of several batches a step."""
    dry = without_dropout(tiny_checkpoint, tmp_path)
    changes = ("head.dropout=0", "train.batch_tokens=48", "stages.1.accumulate=2", "stages.1.label_smoothing=0.1")
    project = Project(tmp_path, dry, *changes, write=write_tags_project)
    np.testing.assert_allclose(*(losses(project, processes) for processes in (1, 2)), rtol=TOLERANCE)


def without_dropout(checkpoint: Path, folder: Path) -> Path:
    """A copy of the checkpoint that drops nothing out."""
    copy = Path(shutil.copytree(checkpoint, folder / "dry"))
    config = json.loads((copy / "config.json").read_text())
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (copy / "config.json").write_text(json.dumps(config | still))
    return copy


def losses(project: Project, processes: int) -> list[float]:
    """All on the way, of steps and of epochs."""
    home = project.fresh_home(f"home{processes}")
    assert project.train(home, processes)[0] == 0
    stages = project.bundle(home).stages
    return [point.loss for stage in stages for point in stage.steps] + [
        loss for stage in stages for epoch in stage.epochs for loss in (epoch.train_loss, epoch.validation_loss)
    ]


def test_two_processes_end_with_the_same_bits_again(project: Project, unbroken: ServingBundle) -> None:
    """Sums are made in the same order each time."""
    home = project.fresh_home("again")
    assert project.train(home)[0] == 0
    assert facts(project.bundle(home)) == facts(unbroken)


@pytest.mark.parametrize(
    ("point", "step"), [("training.step:20", 19), ("training.step:50", 7), ("training.stage_switch:1", None)]
)
def test_a_killed_leader_is_gone_on_from_exactly(
    project: Project, unbroken: ServingBundle, point: str, step: int | None
) -> None:
    """Followers start where the leader does: at the step it had saved, or with the weights of a finished stage."""
    home = project.fresh_home(point)
    code, _ = project.train(home, environment={"GRAFTWORK_FAULT": point, "GRAFTWORK_SAVE_SHARE": "1000"})
    assert code == -signal.SIGKILL
    code, events = project.train(home)
    assert code == 0
    assert [event["step"] for event in events if event["event"] == "resumed"] == ([] if step is None else [step])
    assert facts(project.bundle(home)) == facts(unbroken)


def test_what_is_told_of_normalised_batches_is_what_is_kept(tmp_path: Path) -> None:
    """Each process counts statistics of its own rows; those that are kept give the loss that was told."""
    write_family_project(tmp_path, "resnet")
    workspace = Workspace.open(Settings(home=tmp_path / "home"))
    changes = ("stages.1.train=all", "train.batch_tokens=20", "stages.1.average={ema: 0.5}", "stages.1.keep_epoch=last")
    run = resolve_run(tmp_path, workspace, *changes)
    assert train_together(run.run_id, tmp_path / "home", 2)[0] == 0
    bundle = find_bundle(workspace.store, run.plan.bundle_key)
    assert bundle is not None
    rows = load_rows(workspace.store, run.manifest, sides=("validation",))
    served = load(workspace.store.root / bundle.key / MODEL, "cpu")
    chances = served.probabilities(inputs_of(rows))[np.arange(len(rows)), rows["label"]]
    assert -np.log(chances).mean() == pytest.approx(bundle.stages[1].best.validation_loss, rel=TOLERANCE)


def test_another_number_of_processes_is_refused_unless_it_is_accepted(project: Project) -> None:
    """It is named; where it is accepted the stage is marked as not exact to the bit, and the next one is."""
    home = project.fresh_home("drift")
    assert project.train(home, stop_after=5)[0] == Paused.exit_code
    code, events = project.train(home, 1)
    assert code == TrainingError.exit_code
    text = events[-1]["text"]
    assert "stage 'head' at step" in text and "processes changed since the state was saved: 2 -> 1" in text
    assert project.train(home, 1, accept_drift=("processes",))[0] == 0
    assert [stage.drift for stage in project.bundle(home).stages] == [("processes: 2 -> 1",), ()]


def test_a_loss_that_is_no_number_ends_all(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """Also where it is one process's rows that give it."""
    project = Project(tmp_path, tiny_checkpoint, "stages.0.learning_rate=1e30")
    code, events = project.train(project.fresh_home("diverged"))
    assert code == TrainingError.exit_code
    assert "stage 'head': the loss is" in events[-1]["text"]


def test_each_process_draws_its_own_dropout() -> None:
    """The leader's is that of a process alone, so that one process gives the bits it always gave."""
    noises = [Replicas(rank, 3).noise for rank in range(3)]
    assert len(set(noises)) == 3
    assert noises[0] == ALONE.noise == ()


@pytest.fixture
def in_two(project: Project, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A fresh home for processes that are started in earnest, two for a run."""
    home = project.fresh_home(request.node.name)
    monkeypatch.setenv("GRAFTWORK_HOME", str(home))
    monkeypatch.setenv("GRAFTWORK_PROCESSES", "2")
    monkeypatch.setenv("GRAFTWORK_SAVE_SHARE", "1000")
    return home


def processes_of(run_id: str) -> list[psutil.Process]:
    """Living training processes of a run, the leader first."""
    found = psutil.process_iter(["cmdline"])
    ours = [process for process in found if (process.info["cmdline"] or [])[-1:] == [run_id]]
    return sorted(ours, key=lambda process: any("--follow" in argument for argument in process.cmdline()))


def launch_until(home: Path, run: ResolvedRun, act: Callable[[list[psutil.Process]], None]) -> None:
    """Train by the launcher; once a state is saved, `act` is given the processes. They are gone afterwards."""
    processes: list[psutil.Process] = []

    def follow(event: dict[str, Any]) -> None:
        if event["event"] == "stage":
            processes[:] = processes_of(run.run_id)
        if event["event"] == "saved" and event["first"]:
            act(processes)

    try:
        launch.train_stages(run.run_id, Store(home / "store"), follow)
    finally:
        assert len(processes) == 2
        assert psutil.wait_procs(processes, timeout=10)[1] == []


def test_a_killed_follower_is_told_and_gone_on_from_exactly(
    project: Project, unbroken: ServingBundle, in_two: Path
) -> None:
    """The leader, which waits for it, ends, and says which one was killed and of what most likely."""
    with pytest.raises(
        TrainingError, match=r"training process 2 of 2 was killed \(SIGKILL\), most often for want of memory"
    ):
        launch_until(in_two, project.run, lambda processes: processes[1].kill())
    assert project.train(in_two)[0] == 0
    assert facts(project.bundle(in_two)) == facts(unbroken)


def test_a_signal_to_all_pauses_them_once(project: Project, unbroken: ServingBundle, in_two: Path) -> None:
    """As a service manager stops them: the leader saves, followers leave it to that."""

    def terminate(processes: list[psutil.Process]) -> None:
        for process in reversed(processes):
            process.terminate()

    with pytest.raises(Paused, match="stopped and saved in stage 'head' at step"):
        launch_until(in_two, project.run, terminate)
    assert project.train(in_two)[0] == 0
    assert facts(project.bundle(in_two)) == facts(unbroken)


def test_a_leader_that_lost_the_run_ends_all(project: Project, in_two: Path) -> None:
    """It alone holds the lease, and what it finds out is the end of its followers."""
    database = Workspace.open(Settings(home=in_two)).database

    def take_over(_: list[psutil.Process]) -> None:
        with database.begin() as connection:
            connection.execute(update(run_heads).values(fence=99))

    with pytest.raises(TrainingError, match="has taken this run over"):
        launch_until(in_two, project.run, take_over)


def test_all_end_with_a_killed_parent(project: Project, in_two: Path) -> None:
    """SIGKILL gives it no chance to tell them."""
    script = (
        "import sys; from pathlib import Path; from graftwork.storage import Store\n"
        "from graftwork.training import launch\n"
        "launch.train_stages(sys.argv[1], Store(Path(sys.argv[2])), lambda event: print(event, flush=True))"
    )
    run_id = project.run.run_id
    command = [sys.executable, "-c", script, run_id, str(in_two / "store"), "parent"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        next(line for line in parent.stdout if "'saved'" in line)
        processes = processes_of(run_id)
        os.kill(parent.pid, signal.SIGKILL)
    assert len(processes) == 2
    assert psutil.wait_procs(processes, timeout=10)[1] == []


def test_what_ends_a_follower_is_told_while_the_leader_waits(in_two: Path) -> None:
    """The leader may be in a collective that nothing else would end."""
    script = (
        "import time; from graftwork.training.followers import leading; from graftwork.training.process import tell\n"
        "with leading('nonesuch', 2, tell): time.sleep(600)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert ended.returncode == TrainingError.exit_code
    assert "no run nonesuch" in ended.stdout
