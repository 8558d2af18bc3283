"""Lands files, some of them twice, while hosts that look for them are killed, and checks that each row is taken once.

    python tests/support/landing_torture.py --landings 1000 [--seed 1]

Who hands a file in, and each host that looks, is a process of its own, forked from one that has pandas imported, and
dies by SIGKILL at a point that is drawn. Points that nobody died at yet come first: what was not reached is a failure.
Trainings are files, one for each manifest; when they are over is drawn, too.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from data_projects import Project, make_sentence
from sqlalchemy import select

from graftwork.data.manifest import load_rows, open_manifest
from graftwork.database import retrainings
from graftwork.monitoring.landing import Retraining

# Of a process that hands in, and of one that looks: a point, and the pass at which it dies is drawn from so many.
HANDS_IN = {"file.before_rename": 1}
LOOKS = {
    "store.before_fsync": 4,
    "store.before_rename": 4,
    "store.after_rename": 4,
    "landing.after_request": 1,
    "landing.after_start": 1,
}
FIRST_ROWS, ROWS = 60, 3  # of the first landing, and of any other
HOSTS = 2
ATTEMPTS = 50
CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = ["pandas", "pandera.pandas", "graftwork.data.manifest", "graftwork.monitoring.landing", "landing_torture"]


@dataclass(frozen=True)
class Trainings:
    """A file for each training that was started, and one in `over` when it has ended."""

    folder: Path

    def start(self, retraining: Retraining) -> str:
        (self.folder / retraining.manifest).touch()
        return retraining.manifest

    def is_over(self, run: str) -> bool:
        return (self.folder / "over" / run).exists()

    def end_all(self) -> None:
        for run in self.started():
            (self.folder / "over" / run).touch()

    def started(self) -> set[str]:
        return {path.name for path in self.folder.iterdir() if path.is_file()}


@dataclass
class Tally:
    """numbers: of the rows that landed. kills: how often each point ended a process."""

    numbers: set[int] = field(default_factory=set)
    landings: int = 0
    duplicates: int = 0
    looks: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """What is not as promised, or was not tried."""
        return [
            *(f"no kill at {point}" for point in sorted((HANDS_IN | LOOKS).keys() - self.kills.keys())),
            *self.wrong,
        ]


@dataclass
class Torture:
    """One project, and what is done to it."""

    project: Project
    generator: random.Random
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        CONTEXT.set_forkserver_preload(PRELOADED)
        self.trainings = Trainings(self.project.root / "trainings")
        (self.trainings.folder / "over").mkdir(parents=True)
        self.project.data["sources"] = [{"name": "reviews", "path": "landing"}]
        self.project.recipe(retrain={"quiet": "0s", "min_rows": 1})

    def run(self, landings: int) -> Tally:
        """So many landings, looks between them, and the end: all is taken that landed."""
        for number in range(landings):
            self.hand_in(self.draw_file(number))
            while self.generator.random() < 0.5:
                self.look_at_once()
            if self.generator.random() < 0.5:
                self.trainings.end_all()
        for _ in range(4):
            self.look_at_once()
            self.trainings.end_all()
        self.tally.wrong += self.check()
        return self.tally

    def draw_file(self, number: int) -> Path:
        """A file of new rows, or one that landed, under its own name or another."""
        self.tally.landings += 1
        landed = sorted(self.project.root.glob("handed/*.csv"))
        if number and self.generator.random() < 0.2:
            self.tally.duplicates += 1
            file = self.generator.choice(landed)
            return file if self.generator.random() < 0.5 else Path(shutil.copy(file, file.with_name(f"{number}.csv")))
        first = len(self.tally.numbers)
        numbers = range(first, first + (ROWS if number else FIRST_ROWS))
        self.tally.numbers |= set(numbers)
        return self.project.write_rows(f"handed/{number}.csv", numbers)

    def hand_in(self, file: Path) -> None:
        """Again and again until it is there, as a person would."""
        for _ in range(ATTEMPTS):
            if self.outlives(HANDS_IN, _hand_in, str(file)):
                return
        raise AssertionError(f"{file} was never handed in")

    def look_at_once(self) -> None:
        """Hosts that look at the same moment, each of which may be killed, until one was not."""
        for _ in range(ATTEMPTS):
            is_whole = self.generator.random() < 0.5
            faults = [self.draw_fault(LOOKS) for _ in range(HOSTS)]
            hosts = [self.begin(_look, fault, str(is_whole)) for fault in faults]
            self.tally.looks += HOSTS
            ended = [self.has_ended_well(host, fault) for host, fault in zip(hosts, faults, strict=True)]
            if any(ended):
                return
        raise AssertionError("nobody looked to the end")

    def outlives(self, points: dict[str, int], work: Any, *arguments: str) -> bool:
        fault = self.draw_fault(points)
        return self.has_ended_well(self.begin(work, fault, *arguments), fault)

    def draw_fault(self, points: dict[str, int]) -> str:
        """A point to die at, or none; those that nobody died at yet first."""
        point = self.generator.choice(["", *sorted(points.keys() - self.tally.kills.keys() or points)])
        return f"{point}:{self.generator.randint(1, points[point])}" if point else ""

    def begin(self, work: Any, *arguments: str) -> BaseProcess:
        process = CONTEXT.Process(target=work, args=(str(self.project.root), *arguments))
        process.start()
        return process

    def has_ended_well(self, process: BaseProcess, fault: str) -> bool:
        process.join(120)
        if process.exitcode == -signal.SIGKILL:
            self.tally.kills[fault.partition(":")[0]] += 1
        elif process.exitcode != 0:
            raise AssertionError(f"exit code {process.exitcode}\n{_log(self.project.root).read_text()}")
        return process.exitcode == 0

    def check(self) -> Iterator[str]:
        """Everything that is not so: a training for each manifest, and each row in one of them for the first time."""
        workspace = self.project.workspace
        with workspace.database.begin() as connection:
            asked = connection.execute(select(retrainings).order_by(retrainings.c.sequence)).all()
        manifests = [each.manifest_digest for each in asked]
        if len(set(manifests)) < len(manifests):
            yield "a manifest was trained on twice"
        if {each.run for each in asked} != self.trainings.started() or any(each.closed_at is None for each in asked):
            yield "not every training that was asked for was started, and ended"
        taken: set[str] = set()
        for manifest in manifests:
            texts = set(load_rows(workspace.store, open_manifest(workspace.store, manifest))["text"])
            if not taken < texts:
                yield f"manifest {manifest[:12]} lacks rows of one before it, or has no new ones"
            taken |= texts
        if taken != {make_sentence(number) for number in self.tally.numbers}:
            yield f"{len(taken)} rows were taken, {len(self.tally.numbers)} landed"


def _hand_in(root: str, fault: str, file: str) -> None:
    from graftwork.data.handover import hand_in
    from graftwork.recipe import load_recipe

    _prepare(root, fault)
    hand_in(load_recipe(Path(root, "recipe.yaml")), Path(file))


def _look(root: str, fault: str, is_whole: str) -> None:
    from graftwork.monitoring.landing import Watcher
    from graftwork.recipe import load_recipe
    from graftwork.settings import Settings
    from graftwork.workspace import Workspace

    _prepare(root, fault)
    workspace = Workspace.open(Settings(home=Path(root, ".graftwork")))
    trainings = Trainings(Path(root, "trainings"))
    Watcher.of(load_recipe(Path(root, "recipe.yaml")), workspace, trainings).look(is_whole == "True")


def _prepare(root: str, fault: str) -> None:
    os.environ["GRAFTWORK_FAULT"] = fault
    sys.stderr = _log(Path(root)).open("a")


def _log(root: Path) -> Path:
    return root / "errors"


def main() -> None:
    """Land files, say what was done, and end with 1 if a row was lost or taken twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--landings", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        torture = Torture(Project(Path(folder)), random.Random(options.seed))
        tally = torture.run(options.landings)
        trainings = len(torture.trainings.started())
    print(
        f"{tally.landings} landings, {tally.duplicates} of them again, {len(tally.numbers)} rows, {tally.looks} looks"
    )
    print(f"{tally.kills.total()} kills, {trainings} trainings, {time.monotonic() - started:.0f} s")
    for point, count in sorted(tally.kills.items()):
        print(f"  {point:28}{count:5}")
    print("\n".join(tally.failures) or "each row was taken once, each manifest trained on once, nothing was lost")
    sys.exit(bool(tally.failures))


if __name__ == "__main__":
    main()
