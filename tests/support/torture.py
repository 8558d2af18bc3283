"""Kills trainings at random points, resumes them, and compares the end with that of an unbroken one, bit for bit.

    python tests/support/torture.py --kills 200 [--seed 1]

Each attempt is a process of its own, forked from one that has torch imported already, and dies by SIGKILL. Points that
no attempt died at yet come first, and so do kinds of runs: 25 kills reach them all, and what was not reached is a
failure. Of the runs after that, some save as often as by default: by the clock.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny import facts, resolve_run, write_checkpoint, write_project

from graftwork.settings import Settings
from graftwork.storage import Store
from graftwork.training.bundle import find_bundle
from graftwork.training.plan import ResolvedRun
from graftwork.workspace import Workspace

# The pass of each point at which an attempt dies is drawn from so many; one that is never reached is no kill.
POINTS = {
    "training.step": 40,
    "training.epoch_end": 3,
    "training.before_publish": 2,
    "training.stage_switch": 1,
    "state.before_publish": 20,
    "state.before_head": 20,
    "state.after_head": 20,
    "store.before_fsync": 20,
    "store.before_rename": 20,
    "store.after_rename": 20,
}
RUNS = {
    "head": ["stages=head-only"],
    "gradual": ["stages=gradual"],
    "full": ["stages=full"],
    "lora": ["stages={preset: lora, lora: {rank: 4, dropout: 0.1, dora: true, blocks: 'top:2'}}"],
    "augmented": ["stages={preset: full, augment: {word_dropout: 0.3}}"],
    "options": [
        "input.pooling=attention",
        "stages={preset: full, augment: {word_dropout: 0.2}, accumulate: 2, average: {ema: 0.9, after: 0.2}, "
        "l2_sp: 0.1, schedule: one-cycle, adversary: {epsilon: 0.5}}",
    ],
    "solved": [
        "stages.0={name: probe, train: head, solver: lbfgs}",
        "stages.1={name: top, train: [head, top:1], epochs: 2, learning_rate: 1e-3, head_start: 0.5}",
    ],
    "adapted": [
        "stages.0={name: adapt, objective: masked-language-modelling, train: 'top:2', epochs: 2, learning_rate: 1e-3}",
    ],
    "few": [
        "stages.0={name: pairs, objective: contrastive, train: 'top:2', epochs: 2, learning_rate: 1e-3}",
        "stages.1={name: head, train: head, solver: lbfgs}",
    ],
    "ruined": ["stages.1.epochs=3", "stages.1.learning_rate=0.05", "stages.1.schedule=constant"],
}
ATTEMPTS = 50
DEATHS = 5  # of one run, at most; what comes then may live
EVERY_STEP, BY_THE_CLOCK = "after every step", "by the clock"
Events = list[dict[str, Any]]
CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = [
    "torch",
    "torch._dynamo",
    "transformers.models.bert.modeling_bert",
    "peft",
    "graftwork.training.engine",
    "torture",
]


@dataclass(frozen=True)
class Loss:
    """What a kill cost. saving: how. steps: done again by the next attempt. since_save: done since the last save."""

    saving: str
    steps: int
    since_save: int


@dataclass
class Tally:
    """kills, killed: how often each point ended an attempt, and each kind of run was killed."""

    kills: Counter[str] = field(default_factory=Counter)
    killed: Counter[str] = field(default_factory=Counter)
    losses: list[Loss] = field(default_factory=list)
    runs: int = 0
    different: list[str] = field(default_factory=list)
    torn: int = 0

    def failures(self, kinds: Collection[str]) -> list[str]:
        """What is not as promised, or was not tried; kinds: of runs."""
        missed = [f"no kill at {point}" for point in sorted(POINTS.keys() - self.kills.keys())]
        missed += [f"no kill of a run {kind!r}" for kind in sorted(set(kinds) - self.killed.keys())]
        lost = [f"{loss} is more than was done since the save" for loss in self.losses if loss.steps > loss.since_save]
        torn = [f"torn or damaged files were met {self.torn} times"] * bool(self.torn)
        return [*missed, *lost, *torn, *(f"{run} ended otherwise than unbroken" for run in self.different)]


def torture(runs: dict[str, ResolvedRun], home: Path, kills: int, seed: int) -> Tally:
    """Kill attempts at these runs until there were so many kills. The home's store holds the runs, nothing trained."""
    CONTEXT.set_forkserver_preload(PRELOADED)
    generator, tally = random.Random(seed), Tally()
    unbroken = {name: _unbroken(run, _copy(home, name)) for name, run in runs.items()}
    deaths = min(DEATHS, max(1, kills // len(runs)))
    while tally.kills.total() < kills:
        name = generator.choice(sorted(runs.keys() - tally.killed.keys() or runs))
        place = _copy(home, f"{name}-{tally.runs}")
        victim = Victim(name, runs[name], place, _draw_saving(generator, tally))
        _kill_until_done(victim, generator, tally, min(deaths, kills - tally.kills.total()))
        found = find_bundle(Store(place / "store"), runs[name].plan.bundle_key)
        if found is None or facts(found) != unbroken[name]:
            tally.different.append(f"{name} at {place}")
        else:
            shutil.rmtree(place)
        tally.runs += 1
    return tally


def make_runs(folder: Path) -> tuple[dict[str, ResolvedRun], Path]:
    """Runs on a tiny checkpoint that train by different stages, in a fresh home below the folder."""
    for name in ("checkpoint", "project"):
        (folder / name).mkdir()
    write_checkpoint(folder / "checkpoint")
    write_project(folder / "project", folder / "checkpoint")
    workspace = Workspace.open(Settings(home=folder / "home"))
    runs = {name: resolve_run(folder / "project", workspace, *overrides) for name, overrides in RUNS.items()}
    return runs, folder / "home"


@dataclass
class Victim:
    """A run that is killed. done, saved: the last step done, and the last one saved, with their stages."""

    kind: str
    run: ResolvedRun
    home: Path
    saving: str
    done: tuple[str, int] = ("", 0)
    saved: tuple[str, int] = ("", 0)

    def loss(self, events: Events) -> Loss | None:
        """What the last kill cost, by the events of the attempt after it; None if it was in no stage's middle."""
        stage, done = self.done
        if not done or any(event["event"] == "reused" and event["stage"] == stage for event in events):
            return None
        begins = [event["step"] for event in events if event["event"] == "resumed" and event["stage"] == stage]
        saved = self.saved[1] if self.saved[0] == stage else 0
        return Loss(self.saving, done - (begins[0] if begins else 0), done - saved)

    def follow(self, events: Events) -> None:
        """Take down how far an attempt came."""
        for event in events:
            if event["event"] in {"step", "saved", "resumed"}:
                self.done = (event["stage"], event["step"])
            if event["event"] in {"saved", "resumed"}:
                self.saved = self.done


def _draw_saving(generator: random.Random, tally: Tally) -> str:
    """By the clock, some points are hardly ever passed."""
    is_all_hit = POINTS.keys() <= tally.kills.keys()
    return generator.choice((EVERY_STEP, BY_THE_CLOCK)) if is_all_hit else EVERY_STEP


def _kill_until_done(victim: Victim, generator: random.Random, tally: Tally, deaths: int) -> None:
    """Attempts until one ends well; those before die at points that are drawn, after so many deaths they may live."""
    for _ in range(ATTEMPTS):
        point = generator.choice(sorted(POINTS.keys() - tally.kills.keys() or POINTS))
        fault = f"{point}:{generator.randint(1, POINTS[point])}" if deaths else ""
        code, events = _attempt(victim.run, victim.home, fault, victim.saving)
        loss = victim.loss(events)
        tally.losses += [loss] if loss else []
        tally.torn += sum(event["event"] == "lost" for event in events)
        tally.torn += (victim.home / "store/rejected").exists()
        if code == 0:
            return
        if code != -signal.SIGKILL:
            raise AssertionError(f"exit code {code}\n{events}\n{(victim.home / 'error').read_text()}")
        tally.kills[point] += 1
        tally.killed[victim.kind] += 1
        victim.follow(events)
        deaths -= 1
    raise AssertionError(f"run {victim.run.run_id} did not end in {ATTEMPTS} attempts")


def _unbroken(run: ResolvedRun, home: Path) -> Any:
    code, events = _attempt(run, home, "", BY_THE_CLOCK)
    assert code == 0, events
    bundle = find_bundle(Store(home / "store"), run.plan.bundle_key)
    assert bundle is not None
    return facts(bundle)


def _copy(home: Path, name: str) -> Path:
    return Path(shutil.copytree(home, home.with_name(f"{home.name}-{name}")))


def _attempt(run: ResolvedRun, home: Path, fault: str, saving: str) -> tuple[int | None, Events]:
    process = CONTEXT.Process(target=_train, args=(run.run_id, str(home), fault, saving))
    process.start()
    process.join(120)
    assert process.exitcode is not None, "it hangs"
    lines = (home / "events").read_text().splitlines() if (home / "events").exists() else []
    (home / "events").unlink(missing_ok=True)
    return process.exitcode, [json.loads(line) for line in lines if line.endswith("}")]


def _train(run_id: str, home: str, fault: str, saving: str) -> None:
    os.environ |= {"GRAFTWORK_HOME": home, "GRAFTWORK_FAULT": fault}
    if saving == EVERY_STEP:
        os.environ["GRAFTWORK_SAVE_SHARE"] = "1000"
    sys.stderr = Path(home, "error").open("w")  # noqa: SIM115 - until the process ends
    import torch

    from graftwork.training import loop, state
    from graftwork.training.engine import run_stages
    from graftwork.training.plan import open_run

    torch.set_num_threads(1)
    loop.REPORT_EVERY_S = 0.0  # every step, so that steps lost can be counted
    state.FIRST_COST_S = 0.001  # the run is over before the clock allows as much as is assumed otherwise
    workspace = Workspace.open(Settings(home=Path(home)))
    workspace.store.sweep()
    with Path(home, "events").open("w", buffering=1) as events:
        run = open_run(workspace.store, run_id)
        run_stages(run, workspace, lambda event: print(json.dumps(event), file=events), lambda: False)


def main() -> None:
    """Torture tiny models, say what was done, and end with 1 if anything differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        runs, home = make_runs(Path(folder))
        tally = torture(runs, home, options.kills, options.seed)
        print(f"{tally.kills.total()} kills in {tally.runs} runs, {time.monotonic() - started:.0f} s")
        for name in (*sorted(POINTS), *sorted(runs)):
            print(f"  {name:28}{(tally.kills | tally.killed)[name]:5}")
        for saving in (EVERY_STEP, BY_THE_CLOCK):
            losses = [loss for loss in tally.losses if loss.saving == saving]
            lost, since = (max((getattr(loss, name) for loss in losses), default=0) for name in ("steps", "since_save"))
            print(f"saving {saving}, {len(losses)} kills: at most {lost} steps lost, {since} done since the last save")
        failures = tally.failures(runs)
        print("\n".join(failures) or "every run ended as an unbroken one, to the bit; nothing was torn")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
