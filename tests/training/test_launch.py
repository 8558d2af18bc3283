"""The training process: started, followed, stopped, killed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from graftwork.errors import Paused, TrainingError
from graftwork.fingerprint import folder_digest
from graftwork.models.serving.model import load
from graftwork.storage import Store
from graftwork.training import launch
from graftwork.training.bundle import MODEL, find_bundle
from graftwork.training.plan import ResolvedRun
from graftwork.workspace import Workspace

pytestmark = pytest.mark.e2e

Resolve = Callable[..., ResolvedRun]
LONG = "stages.1.epochs=400"


def training_processes(run_id: str) -> list[psutil.Process]:
    """Living training processes of a run."""
    found = psutil.process_iter(["cmdline"])
    return [process for process in found if (process.info["cmdline"] or [])[-1:] == [run_id]]


def test_a_run_ends_with_a_bundle_that_serves(resolve: Resolve, workspace: Workspace) -> None:
    """Stages in order, progress on the way, a model folder whose digest is what it says; again, nothing is started."""
    run, events = resolve(), list[dict[str, Any]]()
    bundle = launch.train_stages(run.run_id, workspace.store, events.append)
    assert [stage.stage for stage in bundle.stages] == ["head", "top"]
    assert [event["stage"] for event in events if event["event"] == "stage"] == ["head", "top"]
    folder = workspace.store.root / bundle.key / MODEL
    assert folder_digest(folder) == bundle.digest
    assert load(folder).probabilities(["a good film", "a bad film"]).shape == (2, 2)
    events.clear()
    assert launch.train_stages(run.run_id, workspace.store, events.append) == bundle
    assert [event["event"] for event in events] == ["reused", "reused"]


def test_a_killed_training_goes_on_where_it_was(
    resolve: Resolve, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is told as killed; the next attempt goes on at the step it had saved, to the weights of an unbroken run."""
    run = resolve()
    fresh = shutil.copytree(workspace.store.root, tmp_path / "fresh")
    expected = launch.train_stages(run.run_id, workspace.store, lambda event: None)
    monkeypatch.setenv("GRAFTWORK_SAVE_SHARE", "1000")  # after every step
    first_of_top = expected.stages[0].epochs[-1].step + 1
    for point, begins in {
        f"training.step:{first_of_top + 4}": ["reused", "stage", "resumed"],
        "training.before_publish:2": ["reused", "stage", "resumed"],
        "training.stage_switch:1": ["reused", "stage", "prefix"],
    }.items():
        store = Store(shutil.copytree(fresh, tmp_path / begins[-1] / point[9:12]))
        monkeypatch.setenv("GRAFTWORK_STORE", str(store.root))
        monkeypatch.setenv("GRAFTWORK_FAULT", point)
        with pytest.raises(TrainingError, match="SIGKILL"):
            launch.train_stages(run.run_id, store, lambda event: None)
        assert find_bundle(store, run.plan.bundle_key) is None
        monkeypatch.delenv("GRAFTWORK_FAULT")
        events: list[dict[str, Any]] = []
        assert launch.train_stages(run.run_id, store, events.append).digest == expected.digest
        assert [event["event"] for event in events][:3] == begins
        if begins[-1] == "resumed" and ".step" in point:
            assert events[2]["step"] == 4


def test_an_interrupted_parent_stops_its_child(resolve: Resolve, workspace: Workspace) -> None:
    """Ctrl-C in the middle of a stage: the child ends before its next step, and nothing half-made is left."""
    run = resolve(LONG)

    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["stage"] == "top":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch.train_stages(run.run_id, workspace.store, interrupt)
    assert training_processes(run.run_id) == []
    assert list((workspace.store.root / "staging").iterdir()) == []


def test_sigterm_pauses(resolve: Resolve, workspace: Workspace) -> None:
    """The child stops between two steps and says where; it is not an error of training."""
    run = resolve(LONG)

    def terminate(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["stage"] == "top":
            for process in training_processes(run.run_id):
                process.send_signal(signal.SIGTERM)

    with pytest.raises(Paused, match="stopped and saved in stage 'top' at step"):
        launch.train_stages(run.run_id, workspace.store, terminate)


def test_a_time_limit_saves_and_fails(resolve: Resolve, workspace: Workspace) -> None:
    """It says so, and where it was; the next attempt goes on there."""
    run = resolve("stages.1.epochs=4000")

    def resumed_at(limit: timedelta | None = None) -> tuple[list[int], str]:
        """Where an attempt went on, and what it was ended by: us, in the second stage, or its limit."""
        steps: list[int] = []

        def note(event: dict[str, Any]) -> None:
            steps.extend([event["step"]] if event["event"] == "resumed" else [])
            if limit is None and event["event"] == "step" and event["stage"] == "top":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt if limit is None else TrainingError) as raised:
            launch.train_stages(run.run_id, workspace.store, note, time_limit=limit)
        return steps, str(raised.value)

    began = time.monotonic()
    assert resumed_at() == ([], "")
    _, told = resumed_at(timedelta(seconds=time.monotonic() - began + 8))
    found = re.search(r"time limit of \d+ s is over: stopped and saved in stage 'top' at step (\d+) of", told)
    assert found is not None, told
    assert resumed_at()[0] == [int(found[1])]


def test_the_child_ends_with_a_killed_parent(resolve: Resolve, workspace: Workspace, tmp_path: Path) -> None:
    """SIGKILL gives the parent no chance to tell it."""
    run = resolve(LONG)
    script = (
        "import sys; from pathlib import Path; from graftwork.storage import Store\n"
        "from graftwork.training import launch\n"
        "launch.train_stages(sys.argv[1], Store(Path(sys.argv[2])), lambda event: print(event, flush=True))"
    )
    command = [sys.executable, "-c", script, run.run_id, str(workspace.store.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        for line in parent.stdout:
            if "'step'" in line and "'top'" in line:
                break
        [child] = [p for p in training_processes(run.run_id) if p.pid != parent.pid]
        os.kill(parent.pid, signal.SIGKILL)
    child.wait(timeout=10)
    assert training_processes(run.run_id) == []


def test_a_bug_in_the_child_is_told_with_its_traceback(
    resolve: Resolve, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the child wrote to standard error is in the message."""
    run = resolve()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "torch.py").write_text("raise RuntimeError('no such chip')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    with pytest.raises(TrainingError, match=r"(?s)exit code 1.*no such chip"):
        launch.train_stages(run.run_id, workspace.store, lambda event: None)
