"""A run on a tiny checkpoint and made-up reviews, resolved and ready to be trained."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tiny import land_reviews, resolve_run, train_until, write_project

from graftwork.settings import Settings
from graftwork.training.bundle import ServingBundle
from graftwork.training.plan import ResolvedRun
from graftwork.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A fresh home, also for the processes that are started."""
    monkeypatch.setenv("GRAFTWORK_HOME", str(tmp_path / "home"))
    return Workspace.open(Settings(home=tmp_path / "home"))


@pytest.fixture
def resolve(tmp_path: Path, workspace: Workspace, tiny_checkpoint: Path) -> Callable[..., ResolvedRun]:
    """Resolves the tiny recipe, with `--set` overrides, into a run that is in the store."""
    write_project(tmp_path, tiny_checkpoint)
    return partial(resolve_run, tmp_path, workspace)


@pytest.fixture
def base(resolve: Callable[..., ResolvedRun], tmp_path: Path, workspace: Workspace) -> ServingBundle:
    """A model from the checkpoint, trained when 200 reviews had landed; by now there are 240."""
    land_reviews(tmp_path, 200)
    bundle = train_until(resolve("start.from=champion"), workspace)
    land_reviews(tmp_path, 240)
    return bundle
