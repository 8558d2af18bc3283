"""Cells: what is measured once each, in a process of its own, and the files that keep what was measured."""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import TypeAdapter

from benchmarks.machine import Machine, busy_seconds
from benchmarks.workload import PreparedHome, Workload
from graftwork.fingerprint import canonical_json
from graftwork.settings import PATIENT_THREADS
from graftwork.storage import whole_file

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# Beyond this share of the machine's processors used by others, a time says too much of them.
DISTURBED = 0.05
RECORDS = "cells.jsonl"
JOB, OUTCOME, PREDICTIONS, LOG = "job.json", "outcome.json", "predictions.parquet", "log.txt"
SHOWN_LOG = 3000


class CellFailed(Exception):
    """The process of a cell did not end well."""


@dataclass(frozen=True, order=True)
class Cell:
    """One arm, measured once. seed: of its training, or the number of the round."""

    arm: str
    seed: int

    def __str__(self) -> str:
        return f"{self.arm} {self.seed}"


@dataclass(frozen=True)
class Job:
    """What the process of a cell is given."""

    cell: Cell
    workload: Workload


@dataclass(frozen=True)
class Outcome:
    """What an arm found. predictions: of each row that it judged: row_id, label, group, p_0 … p_k."""

    precision: str
    values: dict[str, Any]
    predictions: "pd.DataFrame | None" = None


class Measure(Protocol):
    """Does what an arm is, and measures it."""

    def __call__(self, job: Job) -> Outcome: ...


@dataclass(frozen=True)
class Arm:
    """A way of doing what an experiment compares.

    settings: what the peer is given. code: files and folders of ours that decide its result. version: raised by hand
    when what it measures changes; then it is measured again.
    """

    measure: Measure
    settings: Mapping[str, Any] = field(default_factory=dict)
    code: tuple[str, ...] = ()
    version: int = 1


@dataclass(frozen=True)
class Usage:
    """What the process of a cell used. others: the share of the machine's processors that went elsewhere meanwhile."""

    wall_s: float
    cpu_s: float
    others: float

    @property
    def is_disturbed(self) -> bool:
        return self.others > DISTURBED


@dataclass(frozen=True)
class Measurement:
    """A measured cell. version: the digest of what decides its result."""

    cell: Cell
    version: str
    commit: str
    measured_at: str
    machine: Machine
    libraries: dict[str, str]
    precision: str
    usage: Usage
    values: dict[str, Any]


_measurement = TypeAdapter(Measurement)


class Results:
    """What was measured on one machine: a line for each cell, and the predictions of those that judged rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> dict[Cell, Measurement]:
        path = self.folder / RECORDS
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return {found.cell: found for found in map(_measurement.validate_json, lines)}

    def keep(self, measurement: Measurement, folder: Path) -> None:
        """Add a measurement, with what its process left in `folder`, or put it in the place of the cell's last one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if (folder / PREDICTIONS).exists():
            shutil.copyfile(folder / PREDICTIONS, self._predictions(measurement.cell))
        found = self.read() | {measurement.cell: measurement}
        lines = "".join(f"{canonical_json(found[cell])}\n" for cell in sorted(found))
        with whole_file(self.folder / RECORDS) as aside:
            aside.write_text(lines, encoding="utf-8")

    def predictions(self, cell: Cell) -> "pd.DataFrame":
        import pandas as pd

        return pd.read_parquet(self._predictions(cell))

    def _predictions(self, cell: Cell) -> Path:
        return self.folder / f"{cell.arm.replace('/', '-')}-{cell.seed}.parquet"


def all_results(folder: Path) -> Iterator[Results]:
    """Those of each machine."""
    return (Results(path.parent) for path in sorted(folder.glob(f"*/{RECORDS}")))


def run_cell(job: Job, home: PreparedHome, folder: Path) -> tuple[Outcome, Usage]:
    """What a cell finds in a process of its own, in a copy of the prepared home; predictions stay in the folder.

    Raises CellFailed with the end of its log.
    """
    shutil.copytree(home.folder, folder / "home")
    (folder / JOB).write_text(canonical_json(job), encoding="utf-8")
    environment = PATIENT_THREADS | os.environ | {"GRAFTWORK_HOME": str(folder / "home")}
    began, busy, own = time.perf_counter(), busy_seconds(), _children_seconds()
    with (folder / LOG).open("w", encoding="utf-8") as log:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.process", str(folder)],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    wall, cpu = time.perf_counter() - began, _children_seconds() - own
    others = max(0.0, busy_seconds() - busy - cpu) / (wall * (os.cpu_count() or 1))
    if done.returncode != 0:
        said = (folder / LOG).read_text(encoding="utf-8", errors="replace")[-SHOWN_LOG:]
        raise CellFailed(f"{job.cell}: its process ended with exit code {done.returncode}\n{said}")
    outcome = Outcome(**json.loads((folder / OUTCOME).read_text(encoding="utf-8")))
    return outcome, Usage(round(wall, 1), round(cpu, 1), round(others, 3))


def read_job(folder: Path) -> Job:
    """What `run_cell` wrote."""
    return TypeAdapter(Job).validate_json((folder / JOB).read_text(encoding="utf-8"))


def predictions_of(rows: "pd.DataFrame", probabilities: "np.ndarray") -> "pd.DataFrame":
    """What is kept of a model's judgement of rows: probabilities, (rows, classes), to four decimals."""
    rounded = probabilities.astype("float32").round(4)
    columns = {f"p_{index}": rounded[:, index] for index in range(rounded.shape[1])}
    return rows[["row_id", "label", "group"]].assign(**columns)


def today() -> str:
    """The date, as a measurement says it."""
    return datetime.now(UTC).date().isoformat()


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
