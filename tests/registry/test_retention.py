"""Pruning: what a registered model, a run or the next data goes on from stays, as evidence does; the rest goes."""

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete
from tiny import resolve_run, write_image_project, write_project, write_stripes

from graftwork.data.manifest import validate_data
from graftwork.database import manifests
from graftwork.recipe import load_recipe
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


def test_pictures_stay_as_long_as_data_that_lists_them(tmp_path: Path, workspace: Workspace) -> None:
    """Those of the recipe's newest data, whichever pack they came in; and of young data that nothing else needs."""
    write_image_project(tmp_path, tmp_path / "checkpoint")
    recipe = load_recipe(tmp_path / "recipe.yaml")
    validate_data(recipe, workspace)
    write_stripes(tmp_path / "pictures", 5, first=80)
    newest = validate_data(recipe, workspace)
    with workspace.store.writing(f"media/{'1' * 64}") as folder:
        (folder / "media.arrow").write_bytes(b"of no data")
    assert len(newest.media) == 2
    age(workspace)
    assert not keys(workspace) & {newest.key, *newest.media}
    assert f"media/{'1' * 64}" in keys(workspace)

    write_stripes(tmp_path / "pictures", 5, first=90)
    last = validate_data(load_recipe(tmp_path / "recipe.yaml", ["name=other"]), workspace)
    age(workspace)
    with workspace.database.begin() as connection:
        connection.execute(delete(manifests).where(manifests.c.lineage == "other"))
    assert {last.key, *last.media} <= keys(workspace)
    os.utime(workspace.store.root / last.key)
    assert not keys(workspace) & {last.key, *last.media}
    remove_leftovers(workspace, MONTH)
    assert not workspace.store.find(f"media/{'1' * 64}")
    assert all(workspace.store.find(key) for key in (*newest.media, *last.media))


def test_what_was_set_aside_goes(workspace: Workspace) -> None:
    """Folders that were found altered."""
    (workspace.store.root / "rejected/stage-abc").mkdir(parents=True)
    (workspace.store.root / "rejected/stage-abc/x").write_text("half")
    age(workspace)
    assert keys(workspace) == {"rejected/stage-abc"}
    remove_leftovers(workspace, MONTH)
    assert list((workspace.store.root / "rejected").iterdir()) == []
