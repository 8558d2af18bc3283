"""Pruning: what a registered model, a run or the next data goes on from stays, as evidence does; the rest goes."""

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from tiny import resolve_run, write_project

from graftwork.retention import find_leftovers, remove_leftovers
from graftwork.training.engine import run_stages
from graftwork.training.lease import hold
from graftwork.training.plan import ResolvedRun
from graftwork.workspace import Workspace

LONG_AGO = 40 * 24 * 3600
MONTH = timedelta(days=30)


@pytest.fixture
def run(tmp_path: Path, workspace: Workspace, tiny_checkpoint: Path) -> ResolvedRun:
    """A run that was trained, and never registered."""
    write_project(tmp_path, tiny_checkpoint)
    run = resolve_run(tmp_path, workspace)
    run_stages(run, workspace, lambda event: None, lambda: False)
    return run


def age(workspace: Workspace) -> None:
    """Let everything in the store have been made long ago."""
    then = time.time() - LONG_AGO
    for place in workspace.store.root.glob("*/*"):
        os.utime(place, (then, then))


def keys(workspace: Workspace) -> set[str]:
    return {each.key for each in find_leftovers(workspace, MONTH)}


def test_what_is_young_stays(workspace: Workspace, run: ResolvedRun) -> None:
    assert keys(workspace) == set()


def test_an_old_run_that_nobody_registered_goes_with_what_it_made(workspace: Workspace, run: ResolvedRun) -> None:
    """But not its data, from which the recipe's next manifest inherits the sides of its rows."""
    age(workspace)
    made = {run.key, run.lock.key, run.plan.bundle_key, *(stage.key for stage in run.plan.stages)}
    assert keys(workspace) == made
    assert {each.key for each in remove_leftovers(workspace, MONTH)} == made
    assert not any(workspace.store.find(key) for key in made)
    assert workspace.store.find(run.manifest.key)
    assert keys(workspace) == set()


def test_what_a_living_process_trains_stays(workspace: Workspace, run: ResolvedRun) -> None:
    """However old it is."""
    age(workspace)
    with hold(workspace.database, run.run_id, 60, on_wait=lambda owner: None):
        assert keys(workspace) == set()
    assert run.key in keys(workspace)


def test_what_a_registered_model_needs_stays(
    workspace: Workspace, run: ResolvedRun, register: Callable[[], object], bundle: object
) -> None:
    """Its bundle; and evidence stays, whatever it is about."""
    register()
    with workspace.store.writing(f"verdict/{'1' * 64}") as folder:
        (folder / "verdict.json").write_text("{}")
    age(workspace)
    found = keys(workspace)
    assert bundle.key not in found  # type: ignore[attr-defined]
    assert not [key for key in found if key.startswith("verdict/")]
    assert run.plan.bundle_key in found


def test_what_was_set_aside_goes(workspace: Workspace) -> None:
    """Folders that were found altered."""
    (workspace.store.root / "rejected/stage-abc").mkdir(parents=True)
    (workspace.store.root / "rejected/stage-abc/x").write_text("half")
    age(workspace)
    assert keys(workspace) == {"rejected/stage-abc"}
    remove_leftovers(workspace, MONTH)
    assert list((workspace.store.root / "rejected").iterdir()) == []
