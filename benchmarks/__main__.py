"""Measures what is missing, cell by cell, and writes RESULTS.md from all that is known: `python -m benchmarks`.

Interrupted, it goes on where it was; a cell that is measured stays so until what decides it changes.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.cells import Cell, CellFailed, Job, Measurement, Results, run_cell, today
from benchmarks.experiments import ARMS, EXPERIMENTS, Experiment
from benchmarks.machine import Machine, library_versions, sources_digest, this_commit, this_machine
from benchmarks.report import write_report
from benchmarks.workload import PreparedHome, Size, Workload, prepare
from graftwork.fingerprint import digest
from graftwork.phrases import duration

RESULTS, REPORT = Path("benchmarks/results"), Path("benchmarks/RESULTS.md")
TRIES = Path(".graftwork/benchmarks")


@dataclass
class Session:
    """One experiment on this machine, and what has been measured of it.

    repeat_disturbed: also measure again, once, what others disturbed. failed, repeated: cells of this session.
    """

    experiment: Experiment
    seeds: int
    workload: Workload
    home: PreparedHome
    machine: Machine
    results: Results
    repeat_disturbed: bool = False
    failed: set[Cell] = field(default_factory=set)
    repeated: set[Cell] = field(default_factory=set)

    def states(self) -> Iterator[tuple[Cell, str]]:
        """Every cell with what is known of it, in the order of measuring."""
        found = self.results.read()
        for cell in self.experiment.cells(self.seeds, found):
            yield cell, self._state(cell, found.get(cell))

    def _state(self, cell: Cell, measurement: Measurement | None) -> str:
        if measurement is None:
            return "missing"
        if measurement.version != self.version(cell):
            return "out of date"
        return "disturbed" if measurement.usage.is_disturbed else "measured"

    def version(self, cell: Cell) -> str:
        """The digest of all that decides a cell's result on this machine."""
        arm, home = ARMS[cell.arm], self.home
        ours = (home.bundle, sources_digest(arm.code)) if arm.code else ()
        facts = (cell.arm, arm.version, arm.settings, home.manifest, home.checkpoint, ours, self.workload.size)
        return digest([*facts, self.machine, library_versions()])

    def measure(self) -> None:
        """Measure cell after cell until none is missing."""
        while (cell := self._next()) is not None:
            print(f"{cell} …", end=" ", flush=True)
            try:
                measurement = self._measure(cell)
            except CellFailed as error:
                self.failed.add(cell)
                print(error, file=sys.stderr)
            else:
                usage = measurement.usage
                print(f"{duration(usage.wall_s)}, {100 * usage.others:.0f} % of the machine used by others")

    def _next(self) -> Cell | None:
        for cell, state in self.states():
            is_again = state == "disturbed" and self.repeat_disturbed and cell not in self.repeated
            if (state in ("missing", "out of date") or is_again) and cell not in self.failed:
                return cell
        return None

    def _measure(self, cell: Cell) -> Measurement:
        with tempfile.TemporaryDirectory() as folder:
            version, commit = self.version(cell), this_commit()  # of now: the code may change while the cell runs
            outcome, usage = run_cell(Job(cell, self.workload), self.home, Path(folder))
            measurement = Measurement(
                cell=cell,
                version=version,
                commit=commit,
                measured_at=today(),
                machine=self.machine,
                libraries=library_versions(),
                precision=outcome.precision,
                usage=usage,
                values=outcome.values,
            )
            if self._counts(measurement, self.results.read().get(cell)):
                self.results.keep(measurement, Path(folder))
        return measurement

    def _counts(self, measurement: Measurement, before: Measurement | None) -> bool:
        """Of two measurements of the same, the less disturbed counts, whatever they found."""
        if before is None or before.version != measurement.version:
            return True
        self.repeated.add(measurement.cell)
        return measurement.usage.others < before.usage.others


def main() -> int:
    """0 if all that was asked for is measured, 1 if a cell failed."""
    asked = _arguments()
    names = asked.only or [name for name, experiment in EXPERIMENTS.items() if not experiment.needs_gpu]
    is_try, machine = asked.limit_rows is not None, this_machine()
    if machine.gpu is None and not is_try and any(EXPERIMENTS[name].needs_gpu for name in names):
        print("there is no GPU here that torch can use: nothing is measured", file=sys.stderr)
        return 1
    size = Size.limited(asked.limit_rows) if is_try else Size()
    folder = TRIES / f"{asked.limit_rows}-rows" if is_try else RESULTS
    failed: set[Cell] = set()
    for name in names:
        workload = EXPERIMENTS[name].workload(size)
        with tempfile.TemporaryDirectory() as home:
            session = Session(
                experiment=EXPERIMENTS[name],
                seeds=asked.seeds,
                workload=workload,
                home=prepare(workload, Path(home)),
                machine=machine,
                results=Results(folder / machine.name),
                repeat_disturbed=asked.repeat_disturbed,
            )
            if asked.list:
                print("\n".join(f"{cell}: {state}" for cell, state in session.states()))
            else:
                session.measure()
                failed |= session.failed
    if not asked.list:
        report = folder / REPORT.name if is_try else REPORT
        write_report(folder, report)
        print(f"wrote {report}")
    return int(bool(failed))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=EXPERIMENTS, help="this experiment; may be given again")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of a training, rounds of anything else")
    parser.add_argument("--list", action="store_true", help="say what is measured and what is missing, and end")
    parser.add_argument("--repeat-disturbed", action="store_true", help="measure again what others disturbed")
    parser.add_argument("--limit-rows", type=int, help="a try of everything on so many rows, kept out of RESULTS.md")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on")
