"""Watchers on several hosts who look at one landing at the same moment, in each database that Graftwork supports."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from graftwork.database import Database
from graftwork.monitoring.landing import Retraining, Watched, Watcher
from graftwork.recipe import RetrainSection

HOSTS = 20
POLICY = RetrainSection.model_validate({"quiet": "1m"})


@dataclass
class Elsewhere:
    """One listing of ten rows, and a server with one run for each key."""

    asked: list[Retraining] = field(default_factory=list)

    def list(self) -> str:
        return "listing"

    def read(self) -> str:
        return "manifest"

    def rows_changed(self, manifest: str, before: str | None) -> int:
        return 10

    def start(self, retraining: Retraining) -> str:
        self.asked.append(retraining)
        return f"run of {retraining.manifest}"

    def is_over(self, run: str) -> bool:
        return False


def test_many_who_look_at_once_ask_for_one_training(database: Database) -> None:
    """Twenty at the same moment: whoever starts one starts the same; who comes after the request finds nothing new."""
    elsewhere, moment = Elsewhere(), datetime(2026, 11, 1, tzinfo=UTC)

    def look(_host: int) -> Watched:
        return Watcher("reviews", POLICY, database, elsewhere, elsewhere, lambda: moment).look()

    look(0)
    moment += timedelta(minutes=1)
    with ThreadPoolExecutor(HOSTS) as pool:
        told = list(pool.map(look, range(HOSTS)))
    assert "started" in {each.outcome for each in told} <= {"started", "under way", "nothing new"}
    assert {(each.sequence, each.manifest) for each in elsewhere.asked} == {(1, "manifest")}
    assert look(0).retraining == Retraining("reviews", 1, "manifest", "10 rows came or went", "run of manifest")
