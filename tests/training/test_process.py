"""The training process under real signals: stopped, stopped for good, paused past its lease and woken again."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tiny import facts

from graftwork.storage import Store
from graftwork.training import launch
from graftwork.training.bundle import find_bundle
from graftwork.training.launch import STOP_WITHIN_S
from graftwork.training.plan import ResolvedRun
from graftwork.workspace import Workspace

pytestmark = pytest.mark.e2e

SEED = 20261121
LONG = ("stages.1.epochs=60", "stages.1.schedule=constant")
SIGNALS = [(number, is_twice) for number in (signal.SIGTERM, signal.SIGINT) for is_twice in (False, True)]
MOMENTS, PAUSES = 10, 5
AT_ONCE_S, LEASE_S = 1.0, 1.5
PAUSED, TRAINING_FAILED = 75, 5


class Attempt:
    """A training process of a run, and what it has reported so far."""

    def __init__(self, run: ResolvedRun) -> None:
        self.events: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "graftwork.training.process", run.run_id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.events.extend(json.loads(line) for line in self.process.stdout if line.startswith("{"))

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        return [event for event in list(self.events) if event["event"] in kinds]

    def wait_for(self, kind: str, **values: Any) -> None:
        """Return when it has reported such an event."""
        while not any(values.items() <= event.items() for event in self.of(kind)):
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.events}"
            time.sleep(0.005)

    def end(self, within_s: float | None = None) -> int:
        """Its exit code."""
        try:
            return self.process.wait(within_s)
        finally:
            self.process.kill()
            self._reader.join()


@pytest.fixture
def run(resolve: Callable[..., ResolvedRun], monkeypatch: pytest.MonkeyPatch) -> ResolvedRun:
    """A run of some seconds, saved about ten times in one."""
    monkeypatch.setenv("GRAFTWORK_SAVE_SHARE", "0.2")
    monkeypatch.setenv("GRAFTWORK_LEASE_SECONDS", str(LEASE_S))
    return resolve(*LONG)


@pytest.fixture
def unbroken(run: ResolvedRun, workspace: Workspace, tmp_path: Path) -> Any:
    """What it gives if nothing disturbs it."""
    with pytest.MonkeyPatch.context() as patch:
        home = shutil.copytree(workspace.settings.home, tmp_path / "unbroken")
        patch.setenv("GRAFTWORK_HOME", str(home))
        return facts(launch.train_stages(run.run_id, Store(home / "store"), lambda event: None))


def check_end(run: ResolvedRun, workspace: Workspace, unbroken: Any) -> None:
    """The bundle is the unbroken one, nothing torn was met, and no state is left."""
    bundle = find_bundle(workspace.store, run.plan.bundle_key)
    assert bundle is not None and facts(bundle) == unbroken
    assert not (workspace.store.root / "rejected").exists()
    assert workspace.store.keys("state") + workspace.store.keys("weights") == []


def test_signals_pause_it_or_end_it_at_once(run: ResolvedRun, workspace: Workspace, unbroken: Any) -> None:
    """The first saves the step that it is at; a second does not wait; whatever it was, the end is the unbroken one."""
    chance, position, at_once = random.Random(SEED), -1, 0
    for moment in range(MOMENTS):
        number, is_twice = SIGNALS[moment % len(SIGNALS)]
        attempt = Attempt(run)
        attempt.wait_for("step", stage="top")
        time.sleep(chance.random() / 10)
        attempt.process.send_signal(number)
        if is_twice:
            time.sleep(chance.random() / 20)
            attempt.process.send_signal(number)
        asked = time.monotonic()
        code = attempt.end(STOP_WITHIN_S)
        if is_twice and code != PAUSED:  # two that come together are one
            assert (code, time.monotonic() - asked < AT_ONCE_S) == (128 + number, True)
            at_once += 1
        else:
            assert code == PAUSED
        assert attempt.of("lost") == []
        begun = [event["step"] for event in attempt.of("resumed")]
        assert begun == [position] or (position < 0 and not begun) or begun[0] > position
        position = max([position, *(event["step"] for event in attempt.of("saved") if event["stage"] == "top")])
    assert at_once
    assert Attempt(run).end() == 0
    check_end(run, workspace, unbroken)


def test_one_that_slept_past_its_lease_writes_nothing(run: ResolvedRun, workspace: Workspace, unbroken: Any) -> None:
    """Again and again the holder is paused and another takes over; the woken one is told, and the steps go on."""
    holder = Attempt(run)
    holder.wait_for("saved", stage="top")
    pause(holder.process, workspace)
    for _ in range(PAUSES):
        heir = Attempt(run)
        heir.wait_for("waiting")
        heir.wait_for("saved", stage="top")
        pause(heir.process, workspace)
        noted, states = len(holder.events), workspace.store.keys("state")
        holder.process.send_signal(signal.SIGCONT)
        assert holder.end(STOP_WITHIN_S) == TRAINING_FAILED
        assert "has taken this run over" in holder.events[-1]["problems"][0]["message"]
        assert [event for event in holder.events[noted:] if event["event"] == "saved"] == []
        assert set(states) <= set(workspace.store.keys("state"))
        assert heir.of("resumed")[0]["step"] >= holder.of("saved")[-1]["step"]
        holder = heir
    holder.process.send_signal(signal.SIGCONT)  # nobody came in between, so that the run is still its own
    assert holder.end() == 0
    check_end(run, workspace, unbroken)


def pause(process: "subprocess.Popen[str]", workspace: Workspace) -> None:
    """Stop a process in its tracks, but not while it keeps everybody else from writing to the database."""
    while True:
        os.kill(process.pid, signal.SIGSTOP)
        try:
            with closing(sqlite3.connect(workspace.settings.home / "graftwork.db", timeout=0.1)) as database:
                database.execute("BEGIN IMMEDIATE")
                return
        except sqlite3.OperationalError:
            os.kill(process.pid, signal.SIGCONT)
            time.sleep(0.01)
