"""Any sequence of landings, looks from several hosts, crashes, jumps of the clock and ended runs: each row once."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from unittest.mock import patch

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from graftwork.database import Database
from graftwork.errors import DataError, ServiceUnavailable
from graftwork.fingerprint import digest
from graftwork.monitoring.landing import Retraining, Watched, Watcher
from graftwork.recipe import RetrainSection

NAMES = count()
POLICY = RetrainSection.model_validate({"quiet": "10m", "max_wait": "1d", "min_rows": 4})
# `make simulate` runs 10,000 schedules of 20 steps.
SCHEDULES, STEPS = (int(number) for number in os.environ.get("LANDING_SCHEDULES", "60x20").split("x"))
DEATHS = st.sampled_from(["", "", "before", "after", "away"])


class KilledError(Exception):
    """The process ended here."""


class World:
    """Files of numbered rows, one of which may be unreadable, and the server on which trainings run, one a key."""

    def __init__(self) -> None:
        self.files: dict[str, frozenset[int]] = {}
        self.is_bad = False
        self.manifests: dict[str, frozenset[int]] = {}
        self.runs: dict[str, str] = {}
        self.over: set[str] = set()
        self.now = datetime(2026, 11, 1, tzinfo=UTC)
        self.dies = ""

    @property
    def rows(self) -> frozenset[int]:
        return frozenset().union(*self.files.values())

    def list(self) -> str:
        return digest([sorted((name, sorted(rows)) for name, rows in self.files.items()), self.is_bad])

    def read(self) -> str:
        if self.is_bad or not self.files:
            raise DataError("it can't be read")
        manifest = digest(sorted(self.rows))
        self.manifests[manifest] = self.rows
        return manifest

    def rows_changed(self, manifest: str, before: str | None) -> int:
        return len(self.manifests[manifest] ^ (self.manifests[before] if before else frozenset()))

    def start(self, retraining: Retraining) -> str:
        self.reach()
        if self.dies == "before":
            raise KilledError
        run = self.runs.setdefault(retraining.manifest, f"run-{len(self.runs) + 1}")
        if self.dies == "after":
            raise KilledError
        return run

    def is_over(self, run: str) -> bool:
        self.reach()
        return run in self.over

    def reach(self) -> None:
        if self.dies == "away":
            raise ServiceUnavailable("the server does not answer")


class Landings(RuleBasedStateMachine):
    """`asked` is what was started, in its order."""

    database: Database
    watcher: type[Watcher] = Watcher

    def __init__(self) -> None:
        super().__init__()
        self.world, self.lineage = World(), f"recipe-{next(NAMES)}"
        self.asked: list[str] = []

    def look(self, is_whole: bool = False) -> Watched | None:
        world = self.world
        watcher = self.watcher(self.lineage, POLICY, self.database, world, world, lambda: world.now)
        try:
            return watcher.look(is_whole)
        except (KilledError, ServiceUnavailable):
            return None
        finally:
            self.asked += [run for run in world.runs.values() if run not in self.asked]

    @rule(name=st.sampled_from("abc"), rows=st.frozensets(st.integers(0, 12), min_size=1, max_size=8))
    def land(self, name: str, rows: frozenset[int]) -> None:
        """A new file, or another under the same name."""
        self.world.files[name] = rows

    @rule(name=st.sampled_from("abc"), copy=st.sampled_from("xyz"))
    def land_again(self, name: str, copy: str) -> None:
        """A duplicate under another name."""
        if name in self.world.files:
            self.world.files[copy] = self.world.files[name]

    @rule(name=st.sampled_from("abcxyz"))
    def take_away(self, name: str) -> None:
        self.world.files.pop(name, None)

    @rule()
    def break_or_mend(self) -> None:
        self.world.is_bad = not self.world.is_bad

    @rule(minutes=st.sampled_from([1, 9, 10, 60, 60 * 24, -60]))
    def pass_time(self, minutes: int) -> None:
        """Minus an hour is a clock that is put back."""
        self.world.now += timedelta(minutes=minutes)

    @rule(dies=DEATHS, is_whole=st.booleans())
    def look_once(self, dies: str, is_whole: bool) -> None:
        self.world.dies = dies
        self.look(is_whole)
        self.world.dies = ""

    @rule(dies=DEATHS)
    def look_after_quiet(self, dies: str) -> None:
        self.look()
        self.world.now += timedelta(minutes=10)
        self.look_once(dies, is_whole=False)

    @rule()
    def end_a_run(self) -> None:
        self.world.over |= set(self.asked[-1:])

    @invariant()
    def one_run_at_a_time(self) -> None:
        """A run starts after all before it are over."""
        assert len(set(self.asked) - self.world.over) <= 1

    @invariant()
    def a_run_for_each_manifest(self) -> None:
        assert len(self.world.runs) == len(set(self.world.runs)) == len(self.asked)

    def teardown(self) -> None:
        """When all is quiet and every run has ended, what there is was trained on, unless it can't be."""
        for _ in range(6):
            self.world.now += timedelta(days=2)
            self.look()
            self.world.over |= set(self.asked)
        if self.world.rows and not self.world.is_bad:
            assert digest(sorted(self.world.rows)) in self.world.runs


class ForgetsWhatWasAsked(Watcher):
    """A request that a crash left without a run is taken for done."""

    def _start(self, retraining: Retraining) -> Watched:
        self._write(retraining, run="-")
        return super()._start(retraining)


class StartsBesideAnother(Watcher):
    """What is under way is not looked at."""

    def _follow_up(self) -> Watched | None:
        found = super()._follow_up()
        with self.database.begin() as connection:
            last = self._last(connection)
        if found is not None and found.outcome == "under way" and last is not None:
            self._write(Retraining(self.lineage, last.sequence, "", ""), closed_at="now")
            return None
        return found


class SettlesTooEarly(Watcher):
    """A landing counts as done before its training is asked for."""

    def _take(self, landing):  # type: ignore[no-untyped-def]
        self._settle(landing)
        return super()._take(landing)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """One for all sequences, each under a recipe name of its own."""
    database = Database.open(f"sqlite:///{tmp_path_factory.mktemp('landings') / 'graftwork.db'}")
    yield database
    database.engine.dispose()


def run_machine(database: Database, watcher: type[Watcher], schedules: settings) -> None:
    with patch.object(Landings, "database", database, create=True), patch.object(Landings, "watcher", watcher):
        run_state_machine_as_test(Landings, settings=schedules)


def test_each_landing_is_trained_on_once_whatever_happens(database: Database) -> None:
    run_machine(database, Watcher, settings(max_examples=SCHEDULES, stateful_step_count=STEPS, deadline=None))


@pytest.mark.e2e
@pytest.mark.parametrize("faulty", [ForgetsWhatWasAsked, StartsBesideAnother, SettlesTooEarly])
def test_a_seeded_fault_is_found(database: Database, faulty: type[Watcher]) -> None:
    """The machine would be worth nothing if it did not find these; how short a way there is does not matter."""
    many = settings(max_examples=10 * SCHEDULES, stateful_step_count=STEPS, deadline=None, derandomize=True)
    with pytest.raises(AssertionError):
        run_machine(database, faulty, settings(many, phases=[Phase.generate]))
