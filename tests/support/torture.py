"""Kills trainings at random points, resumes them, and compares the end with that of an unbroken one, bit for bit.

    python tests/support/torture.py --kills 200 [--seed 1]

Each attempt is a process of its own, forked from one that has torch imported already, and dies by SIGKILL.
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
        "l2_sp: 0.1, schedule: one-cycle}",
    ],
    "solved": [
        "stages.0={name: probe, train: head, solver: lbfgs}",
        "stages.1={name: top, train: [head, top:1], epochs: 2, learning_rate: 1e-3, head_start: 0.5}",
    ],
    "ruined": ["stages.1.epochs=3", "stages.1.learning_rate=0.05", "stages.1.schedule=constant"],
}
ATTEMPTS = 50
CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = [
    "torch",
    "torch._dynamo",
    "transformers.models.bert.modeling_bert",
    "peft",
    "graftwork.training.engine",
    "torture",
]


@dataclass
class Tally:
    """kills: how often each point ended an attempt. lost: steps between a kill and the step that was gone on from."""

    kills: Counter[str] = field(default_factory=Counter)
    lost: list[int] = field(default_factory=list)
    runs: int = 0
    different: list[str] = field(default_factory=list)
    torn: int = 0


def torture(runs: dict[str, ResolvedRun], home: Path, kills: int, seed: int) -> Tally:
    """Kill attempts at these runs until there were so many kills. The home's store holds the runs, nothing trained."""
    CONTEXT.set_forkserver_preload(PRELOADED)
    generator, tally = random.Random(seed), Tally()
    unbroken = {name: _unbroken(run, _copy(home, name)) for name, run in runs.items()}
    while tally.kills.total() < kills:
        name = generator.choice(sorted(runs))
        place = _copy(home, f"{name}-{tally.runs}")
        _kill_until_done(runs[name], place, generator, tally, kills)
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


def _kill_until_done(run: ResolvedRun, home: Path, generator: random.Random, tally: Tally, kills: int) -> None:
    """Attempts until one ends well; those before die at points that are drawn, the last few may live."""
    died_at = None
    for attempt in range(ATTEMPTS):
        point = generator.choice(sorted(POINTS))
        fault = f"{point}:{generator.randint(1, POINTS[point])}"
        if attempt > 4 or tally.kills.total() >= kills:
            fault = ""
        code, events = _attempt(run, home, fault)
        resumed = [event["step"] for event in events if event["event"] == "resumed"]
        if died_at is not None and resumed:
            tally.lost.append(died_at - resumed[0])
        tally.torn += sum(event["event"] == "lost" for event in events)
        tally.torn += (home / "store/rejected").exists()
        if code == 0:
            return
        if code != -signal.SIGKILL:
            raise AssertionError(f"exit code {code}\n{events}\n{(home / 'error').read_text()}")
        tally.kills[point] += 1
        steps = [event["step"] for event in events if event["event"] in {"step", "saved", "resumed"}]
        died_at = steps[-1] if steps else None
    raise AssertionError(f"run {run.run_id} did not end in {ATTEMPTS} attempts")


def _unbroken(run: ResolvedRun, home: Path) -> Any:
    code, events = _attempt(run, home, "")
    assert code == 0, events
    bundle = find_bundle(Store(home / "store"), run.plan.bundle_key)
    assert bundle is not None
    return facts(bundle)


def _copy(home: Path, name: str) -> Path:
    return Path(shutil.copytree(home, home.with_name(f"{home.name}-{name}")))


def _attempt(run: ResolvedRun, home: Path, fault: str) -> tuple[int | None, list[dict[str, Any]]]:
    process = CONTEXT.Process(target=_train, args=(run.run_id, str(home), fault))
    process.start()
    process.join(120)
    assert process.exitcode is not None, "it hangs"
    lines = (home / "events").read_text().splitlines() if (home / "events").exists() else []
    (home / "events").unlink(missing_ok=True)
    return process.exitcode, [json.loads(line) for line in lines if line.endswith("}")]


def _train(run_id: str, home: str, fault: str) -> None:
    os.environ |= {"GRAFTWORK_HOME": home, "GRAFTWORK_FAULT": fault, "GRAFTWORK_SAVE_SHARE": "1000"}
    sys.stderr = Path(home, "error").open("w")  # noqa: SIM115 - until the process ends
    import torch

    from graftwork.training import loop
    from graftwork.training.engine import run_stages
    from graftwork.training.plan import open_run

    torch.set_num_threads(1)
    loop.REPORT_EVERY_S = 0.0  # every step, so that steps lost can be counted
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
        for point, number in sorted(tally.kills.items()):
            print(f"  {point:28}{number:5}")
        print(f"runs that ended otherwise than unbroken: {len(tally.different)}")
        print(f"torn or damaged files met: {tally.torn}")
        print(f"steps lost by a kill, saving after every step: at most {max(tally.lost, default=0)}")
    sys.exit(bool(tally.different or tally.torn))


if __name__ == "__main__":
    main()
