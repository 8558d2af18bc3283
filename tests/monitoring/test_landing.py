"""A landing is taken when it is whole and enough, once, whatever is killed and however many look."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from graftwork.data.manifest import load_rows, open_manifest
from graftwork.data.sources import stamp_files
from graftwork.monitoring.landing import RecipeSources

LOOK = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from graftwork.monitoring.landing import RecipeSources, Watcher
from graftwork.recipe import load_recipe
from graftwork.settings import Settings
from graftwork.workspace import Workspace

root, moment = Path(sys.argv[1]), datetime.fromisoformat(sys.argv[2])
workspace, recipe = Workspace.open(Settings(home=root / ".graftwork")), load_recipe(root / "recipe.yaml")

class Trainer:
    def start(self, retraining):
        with (root / "started").open("a") as file:
            print(retraining.manifest, file=file)
        return "run-of-" + retraining.manifest
    def is_over(self, run):
        return False

sources = RecipeSources(recipe, workspace)
print(Watcher(recipe.name, recipe.retrain, workspace.database, sources, Trainer(), lambda: moment).look().outcome)
"""


def test_what_landed_is_taken_once_it_is_quiet(landing) -> None:
    """Seen, waited for, taken; under way until its run is over, and then there is nothing more to do."""
    told = [landing.look().outcome, landing.look().outcome]
    taken = landing.look(timedelta(minutes=10))
    assert [*told, taken.outcome, taken.reason] == ["waiting", "waiting", "started", "200 rows came or went"]
    assert (taken.retraining.sequence, taken.retraining.run) == (1, "run-1")
    manifest = open_manifest(landing.project.workspace.store, taken.retraining.manifest)
    assert manifest.counts.kept == 200
    assert landing.look().outcome == "under way"
    landing.end_all()
    assert [landing.look(timedelta(days=1)).outcome for _ in range(2)] == ["nothing new"] * 2
    assert len(landing.trainer.runs) == 1


def test_a_file_that_grows_is_waited_for(landing) -> None:
    """Each change begins the quiet time anew."""
    path = landing.project.root / "landing/a.csv"
    for number in range(200, 205):
        assert landing.look(timedelta(minutes=9)).outcome == "waiting"
        with path.open("a") as file:
            file.write(f"{number},{number} {number * 7} {number * 13},good\n")
    assert landing.look_after_quiet().reason == "205 rows came or went"


def test_what_never_rests_is_taken_in_the_end(landing) -> None:
    """Some file lands every few minutes: after the longest wait what is there is taken, if it stayed for one look."""
    landing.policy["max_wait"] = "1h"
    for number in range(12):
        landing.project.write_rows(f"landing/{number:02}.csv", range(1000 * number, 1000 * number + 5))
        assert landing.look(timedelta(minutes=5)).outcome == "waiting"
    assert landing.look(timedelta(minutes=5)).outcome == "started"


def test_what_lands_meanwhile_joins_the_next(landing) -> None:
    """Two landings during a run are one retraining after it."""
    landing.look_after_quiet()
    for number in (1, 2):
        landing.project.write_rows(f"landing/more-{number}.csv", range(1000 * number, 1000 * number + 50))
        assert landing.look(timedelta(hours=1)).outcome == "under way"
    landing.end_all()
    taken = landing.look(timedelta(hours=1))
    assert (taken.outcome, taken.reason, taken.retraining.sequence) == ("started", "100 rows came or went", 2)


def test_rows_that_are_known_ask_for_nothing(landing) -> None:
    """The same file under another name, or a file without a new row."""
    landing.look_after_quiet()
    landing.end_all()
    landing.project.write_rows("landing/again.csv")
    assert landing.look_after_quiet().outcome == "nothing new"
    assert len(landing.trainer.runs) == 1


def test_rows_that_are_taken_away_ask_for_a_training(landing) -> None:
    landing.project.write_rows("landing/b.csv", range(1000, 1050))
    landing.look_after_quiet()
    landing.end_all()
    (landing.project.root / "landing/b.csv").unlink()
    assert landing.look_after_quiet().reason == "50 rows came or went"


def test_data_that_was_trained_on_before_is_not_again(landing) -> None:
    """A file comes and goes: the manifest without it has its run already."""
    extra = landing.project.root / "landing/b.csv"
    for _ in range(2):
        landing.look_after_quiet()
        landing.end_all()
        landing.project.write_rows("landing/b.csv", range(1000, 1050))
        landing.look_after_quiet()
        landing.end_all()
        extra.unlink()
    assert landing.look_after_quiet().outcome == "nothing new"
    assert len(landing.trainer.runs) == 2


def test_too_few_rows_wait_for_more_or_for_long(landing) -> None:
    """Nothing is read again as long as nothing changes."""
    landing.policy |= {"min_rows": 60, "max_wait": "2d"}
    landing.look_after_quiet()
    landing.end_all()
    landing.project.write_rows("landing/b.csv", range(1000, 1050))
    for _ in range(3):
        assert landing.look_after_quiet().reason == "50 of 60 rows have landed"
    landing.project.write_rows("landing/c.csv", range(2000, 2020))
    assert landing.look_after_quiet().reason == "70 rows came or went"
    landing.end_all()
    landing.project.write_rows("landing/d.csv", range(3000, 3020))
    assert landing.look_after_quiet().outcome == "waiting"
    assert landing.look(timedelta(days=2)).reason == "20 rows came or went"


def test_bad_data_is_refused_once(landing) -> None:
    """It is told once, remembered, and looked at again when somebody has put it right."""
    landing.project.write("landing/b.csv", "id,text,label\n" + "1,,\n" * 300)
    refused = landing.look_after_quiet()
    assert refused.outcome == "refused"
    again = landing.look(timedelta(days=1))
    assert (again.outcome, again.reason) == ("nothing new", f"what landed was refused: {refused.reason}")
    landing.project.write_rows("landing/b.csv", range(1000, 1050))
    assert landing.look_after_quiet().reason == "250 rows came or went"


def test_files_that_were_handed_in_whole_are_not_waited_for(landing) -> None:
    assert landing.look(is_whole=True).outcome == "started"


def test_a_file_that_lands_while_others_are_read_is_not_taken_by_half(landing, monkeypatch) -> None:
    """It was not there when the quiet time passed, so nobody knows whether it is whole."""
    read = RecipeSources.read

    def read_meanwhile(sources: RecipeSources) -> str:
        landing.project.write_rows("landing/b.csv", range(1000, 1020))
        return read(sources)

    monkeypatch.setattr(RecipeSources, "read", read_meanwhile)
    assert landing.look_after_quiet().outcome == "waiting"
    monkeypatch.undo()
    landing.project.write_rows("landing/b.csv", range(1000, 1050))
    assert landing.look_after_quiet().reason == "250 rows came or went"


@pytest.mark.parametrize("jump", [timedelta(hours=-1), timedelta(hours=1)])
def test_a_clock_that_jumps_delays_by_no_more_than_the_quiet_time(landing, jump: timedelta) -> None:
    landing.look()
    landing.look(jump)
    assert landing.look(timedelta(minutes=10)).outcome in ("started", "under way")


@pytest.mark.parametrize("point", ["landing.after_request", "landing.after_start"])
def test_a_watcher_that_is_killed_is_followed_up(landing, point: str) -> None:
    """Between request and start, and between start and record: the next look names the same manifest, and no other."""
    landing.look()
    landing.clock.pass_(timedelta(minutes=10))
    command = [sys.executable, "-c", LOOK, str(landing.project.root), landing.clock.now.isoformat()]
    landing.project.recipe(retrain=landing.policy)
    killed = subprocess.run(command, env=os.environ | {"GRAFTWORK_FAULT": point}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "started\n"
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "under way\n"
    started = (landing.project.root / "started").read_text().splitlines()
    assert len(set(started)) == 1
    assert len(started) == (1 if point == "landing.after_request" else 2)


def test_stamps_tell_every_change(tmp_path: Path) -> None:
    """A new file, one more byte, another file under the same name; hidden and unfinished ones do not count."""
    place = tmp_path / "landing/deep/er"
    place.mkdir(parents=True)

    def stamps() -> list[object]:
        return stamp_files("reviews", Path("landing"), tmp_path)

    seen = [stamps()]
    (place / "a.csv").write_text("1")
    seen.append(stamps())
    (place / "a.csv").write_text("12")
    seen.append(stamps())
    (place / "b.csv").write_text("12")
    (place / "b.csv").replace(place / "a.csv")
    seen.append(stamps())
    (place / "\udcff -x\n.csv").write_text("12")
    seen.append(stamps())
    assert all(before != after for before, after in pairwise(seen))
    (place / ".hidden").write_text("")
    (place / "c.csv.part").write_text("")
    assert stamps() == seen[-1]
    assert stamp_files("reviews", Path("nowhere"), tmp_path) == []


def test_each_row_is_new_once(landing) -> None:
    """Over several landings with duplicates: the manifests that were trained on add each row exactly once."""
    store = landing.project.workspace.store
    for number in range(4):
        landing.project.write_rows(f"landing/{number}.csv", range(1000 * number, 1000 * number + 60))
        landing.project.write_rows(f"landing/{number}-again.csv", range(1000 * number + 30, 1000 * number + 90))
        assert landing.look_after_quiet().outcome == "started"
        landing.end_all()
    known: set[str] = set()
    for manifest in landing.trainer.runs:
        rows = set(load_rows(store, open_manifest(store, manifest))["text"])
        assert rows > known
        known = rows
    assert len(known) == 200 + 3 * 90
