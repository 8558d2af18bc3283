"""A project that reviews land in, a trainer that only remembers, and a clock that goes when it is told to."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from data_projects import Project

from graftwork.monitoring.landing import RecipeSources, Retraining, Watched, Watcher

QUIET = timedelta(minutes=10)


@dataclass
class Clock:
    """Time in UTC."""

    now: datetime = datetime(2026, 11, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, time: timedelta) -> None:
        self.now += time


@dataclass
class Remembered:
    """Trainings by manifest, as a server with one key for each remembers them."""

    runs: dict[str, str] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)

    def start(self, retraining: Retraining) -> str:
        return self.runs.setdefault(retraining.manifest, f"run-{len(self.runs) + 1}")

    def is_over(self, run: str) -> bool:
        return run in self.over


@dataclass
class Landing:
    """A project whose only source is a landing folder, and who watches it."""

    project: Project
    policy: dict[str, object]
    trainer: Remembered = field(default_factory=Remembered)
    clock: Clock = field(default_factory=Clock)

    @property
    def watcher(self) -> Watcher:
        recipe = self.project.recipe(retrain=self.policy)
        sources = RecipeSources(recipe, self.project.workspace)
        database = self.project.workspace.database
        return Watcher(recipe.name, recipe.retrain, database, sources, self.trainer, self.clock)

    def look(self, after: timedelta = timedelta(seconds=30), **given: bool) -> Watched:
        """A look after some time."""
        self.clock.pass_(after)
        return self.watcher.look(**given)

    def look_after_quiet(self) -> Watched:
        """A look that sees what is there, and one after the quiet time."""
        self.look()
        return self.look(QUIET)

    def end_all(self) -> None:
        self.trainer.over |= set(self.trainer.runs.values())


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    """One good file has landed; nobody has looked yet."""
    project = Project(tmp_path)
    project.land()
    return Landing(project, {"quiet": "10m", "max_wait": "7d", "min_rows": 1})
