"""The projects that end-to-end tests work in, and one whole run that several of them look at."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from projects import Project, make_project


@dataclass(frozen=True)
class FinishedRun:
    """A fresh project's first run: its summary, its log, and how long the command took."""

    project: Project
    summary: Any
    log: str
    seconds: float


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh project."""
    return make_project(tmp_path)


@pytest.fixture(scope="session")
def new_project(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Project]:
    """Makes a fresh project at each call."""
    return lambda: make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def first_run(new_project: Callable[[], Project]) -> FinishedRun:
    """A run that nothing interrupted. test_demo.py goes on in its project; what stands here stays true."""
    project, started = new_project(), time.monotonic()
    summary, log = project.run_and_log()
    return FinishedRun(project, summary, log, time.monotonic() - started)
