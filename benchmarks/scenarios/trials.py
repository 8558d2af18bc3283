"""Trials: each arm of a scenario under each seed, kept as soon as it is measured, and the table made of them."""

import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from benchmarks.cells import today
from benchmarks.comparison import mean_gain
from benchmarks.machine import library_versions, sources_digest, this_commit, this_machine
from graftwork.fingerprint import canonical_json, digest
from graftwork.storage import whole_file

# What decides what an arm of ours finds, beside its settings.
CODE = ("graftwork/training", "graftwork/models", "graftwork/data/batches.py", "graftwork/evaluation/robustness.py")


@dataclass(frozen=True)
class Found:
    """What a trial found. cpu_s: processor seconds of the training alone.

    right: by what is judged, (rows,) whether the model has each holdout row right. groups: of the rows, from 0 on.
    """

    cpu_s: float
    right: Mapping[str, np.ndarray]
    groups: np.ndarray


@dataclass(frozen=True)
class Arm:
    """One way. measure: under a seed, in an empty folder. settings: what decides it. is_peer: not made of our code.

    What is measured otherwise under equal settings gets another `number`, which is raised by hand.
    """

    measure: Callable[[int, Path], Found]
    settings: object
    is_peer: bool = False
    number: int = 1

    @property
    def version(self) -> str:
        """The digest of all that decides what it finds."""
        code = None if self.is_peer else sources_digest(CODE)
        return digest([self.settings, self.number, code, library_versions()])


@dataclass(frozen=True)
class Scenario:
    """Arms that are measured under the same seeds; the others are compared with the first."""

    arms: Mapping[str, Arm]
    seeds: int


@dataclass(frozen=True)
class Trial:
    """A measured arm. right: rows judged rightly, in hex, eight a byte. groups: of the rows; empty if each is one."""

    arm: str
    seed: int
    version: str
    commit: str
    measured_at: str
    machine: str
    cpu_s: float
    rows: int
    right: dict[str, str]
    groups: tuple[int, ...] = field(default=())

    @classmethod
    def of(cls, arm: str, seed: int, version: str, found: Found) -> "Trial":
        is_plain = len(np.unique(found.groups)) == len(found.groups)
        return cls(
            arm=arm,
            seed=seed,
            version=version,
            commit=this_commit(),
            measured_at=today(),
            machine=str(this_machine()),
            cpu_s=round(found.cpu_s, 1),
            rows=len(found.groups),
            right={name: np.packbits(is_right).tobytes().hex() for name, is_right in found.right.items()},
            groups=() if is_plain else tuple(map(int, found.groups)),
        )

    def is_right(self, name: str) -> np.ndarray:
        """(rows,) 1 where the row was judged rightly, else 0."""
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(self.right[name]), dtype=np.uint8))
        return bits[: self.rows].astype(float)

    @property
    def codes(self) -> np.ndarray:
        """(rows,) the group of each."""
        return np.array(self.groups) if self.groups else np.arange(self.rows)


_trial = TypeAdapter(Trial)
Trials = dict[tuple[str, int], Trial]


def read_trials(file: Path) -> Trials:
    """All that were measured, by arm and seed."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {(found.arm, found.seed): found for found in map(_trial.validate_json, lines)}


def measure(scenario: Scenario, seeds: int, file: Path) -> None:
    """Measure what is missing or out of date, seed by seed, so that all arms stand beside each other at any time."""
    for seed in range(1, seeds + 1):
        for arm_name, arm in scenario.arms.items():
            version, known = arm.version, read_trials(file).get((arm_name, seed))
            if known is not None and known.version == version:
                continue
            with tempfile.TemporaryDirectory() as folder:
                trial = Trial.of(arm_name, seed, version, arm.measure(seed, Path(folder)))
            _keep(file, trial)
            shares = ", ".join(f"{what} {trial.is_right(what).mean():.3f}" for what in trial.right)
            print(f"{arm_name} {seed}: {shares}, {trial.cpu_s:.0f} s", flush=True)


def table(scenario: Scenario, seeds: int, trials: Trials) -> Iterator[str]:
    """Lines of Markdown: mean and standard error over seeds, and the difference to the first arm with its interval.

    Of those seeds that every arm was measured under; nothing if there are none.
    """
    whole = [seed for seed in range(1, seeds + 1) if all((arm, seed) in trials for arm in scenario.arms)]
    if not whole:
        return
    first = [trials[next(iter(scenario.arms)), seed] for seed in whole]
    judged = list(first[0].right)
    columns = ["", *(text for name in judged for text in (name, f"{name}: difference (95 %)")), "processor s", "time"]
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for arm in scenario.arms:
        found = [trials[arm, seed] for seed in whole]
        shown = [text for name in judged for text in (_mean(found, name), _difference(found, first, name))]
        seconds, least = (statistics.mean(trial.cpu_s for trial in some) for some in (found, first))
        yield f"| {' | '.join([arm, *shown, f'{seconds:.0f}', f'{seconds / max(least, 0.1):.1f}'])} |"


def _mean(found: Sequence[Trial], name: str) -> str:
    shares = [float(trial.is_right(name).mean()) for trial in found]
    error = statistics.stdev(shares) / math.sqrt(len(shares)) if len(shares) > 1 else math.nan
    return f"{statistics.mean(shares):.3f} ± {error:.3f}"


def _difference(found: Sequence[Trial], first: Sequence[Trial], name: str) -> str:
    if found == first:
        return "–"
    gains = np.stack([our.is_right(name) - their.is_right(name) for our, their in zip(found, first, strict=True)])
    gain = mean_gain(gains, first[0].codes)
    return f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"


def _keep(file: Path, trial: Trial) -> None:
    """Add it, or put it in the place of the last one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    trials = read_trials(file) | {(trial.arm, trial.seed): trial}
    with whole_file(file) as aside:
        aside.write_text("".join(f"{canonical_json(trials[key])}\n" for key in sorted(trials)), encoding="utf-8")
