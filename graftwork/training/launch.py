"""Starts the training process of a run, passes its progress on, and says how it ended."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, TextIO

from graftwork.errors import (
    CheckpointError,
    DataError,
    GraftworkError,
    Paused,
    Problem,
    ServiceUnavailable,
    TrainingError,
)
from graftwork.phrases import duration
from graftwork.settings import PATIENT_THREADS
from graftwork.storage import Store
from graftwork.training.bundle import ServingBundle, find_bundle
from graftwork.training.estimate import Estimate, Outcome, StageEstimate, Trial, estimate_run, keep_estimate
from graftwork.training.plan import ResolvedRun, open_run

STOP_WITHIN_S = 20
SHOWN_LOG = 2000
# As Python, torch, CUDA, C++ and the kernel, asked for one more thread, say it on standard error.
OUT_OF_MEMORY = (
    "MemoryError",
    "can't allocate memory",
    "out of memory",
    "bad_alloc",
    "Resource temporarily unavailable",
)
ERRORS: dict[int, type[GraftworkError]] = {
    error.exit_code: error for error in (DataError, CheckpointError, TrainingError, ServiceUnavailable, Paused)
}


class OutOfMemory(TrainingError):
    """The training process asked for more memory than there is, or was killed, as systems do then."""


def train_stages(
    run_id: str,
    store: Store,
    on_progress: Callable[[dict[str, Any]], None],
    restart: bool = False,
    accept_drift: Sequence[str] = (),
    time_limit: timedelta | None = None,
) -> ServingBundle:
    """The serving bundle of a run: from the store, or trained in a process of its own that ends with this one.

    on_progress is given one event after the other: `reused`, `waiting`, `stage`, `resumed`, `step` (stage, step,
    steps, loss), `saved`, `epoch`. restart, accept_drift: what to do with the state of an earlier attempt if it can't
    be continued exactly. time_limit: after which this attempt saves and ends. Raises Paused if training was asked to
    stop, TrainingError if it failed, its process died or its time was over.
    """
    plan = open_run(store, run_id).plan
    bundle = find_bundle(store, plan.bundle_key)
    if bundle is None:
        wish = ["--restart"] * restart + [f"--accept-drift={field}" for field in accept_drift]
        _run_process([*wish, run_id], on_progress, time_limit)
        bundle = find_bundle(store, plan.bundle_key)
    else:
        for result in bundle.stages:
            on_progress({"event": "reused", "stage": result.stage, "seconds": result.seconds})
    if bundle is None:
        raise TrainingError(f"run {run_id}: training ended well but left no bundle at {plan.bundle_key}")
    return bundle


def probe_run(run: ResolvedRun, store: Store, on_progress: Callable[[int, int], None] | None = None) -> Estimate:
    """What the run will take, measured in processes as those that train, and kept beside the run.

    on_progress is told how many stages of how many are done; more than once where the recipe does not fit, and smaller
    ones are tried. Raises as `train_stages` does, but not for want of memory.
    """
    estimate = estimate_run(run, partial(_probe, run.run_id, on_progress))
    keep_estimate(store, estimate)
    return estimate


def _probe(run_id: str, on_progress: Callable[[int, int], None] | None, trial: Trial) -> Outcome:
    free, stages = 0, list[StageEstimate]()

    def collect(event: dict[str, Any]) -> None:
        nonlocal free
        kind = event.pop("event")
        if kind == "free":
            free = event["bytes"]
        elif kind == "probed":
            stages.append(StageEstimate(**event))
        elif on_progress:
            on_progress(event["done"], event["of"])

    try:
        _run_process([f"--probe={trial.batch_tokens},{trial.groups}", run_id], collect)
    except OutOfMemory:
        return Outcome(free, tuple(stages), is_whole=False)
    return Outcome(free, tuple(stages), is_whole=True)


def _run_process(
    arguments: Sequence[str], on_progress: Callable[[dict[str, Any]], None], time_limit: timedelta | None = None
) -> None:
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as log,
        _process(arguments, log) as process,
        _limited(process, time_limit),
    ):
        await_end(process, log, on_progress)


@contextmanager
def _limited(process: subprocess.Popen[str], time_limit: timedelta | None) -> Iterator[None]:
    """Stop the process when its time is over, so that it saves; the pause that this is becomes a TrainingError."""
    if time_limit is None:
        yield
        return
    is_over = threading.Event()

    def stop() -> None:
        is_over.set()
        _stop(process)

    timer = threading.Timer(time_limit.total_seconds(), stop)
    timer.start()
    try:
        yield
    except Paused as error:
        if not is_over.is_set():
            raise
        problem = f"its time limit of {duration(time_limit.total_seconds())} is over: {error.problems[0].message}"
        raise TrainingError(Problem(problem, "resources.time_limit", "with a higher one it goes on there")) from error
    finally:
        timer.cancel()


@contextmanager
def _process(arguments: Sequence[str], log: TextIO) -> Iterator[subprocess.Popen[str]]:
    """The running child; if the block ends before it does, it is asked to stop, once, and then killed."""
    process = start_process(arguments, log)
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask it to stop, if it has not ended, and then insist."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def start_process(arguments: Sequence[str], log: TextIO) -> subprocess.Popen[str]:
    """A training process that ends with this one. It has a session of its own, so that Ctrl-C reaches it through us."""
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "graftwork.training.process", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        encoding="utf-8",
        env=PATIENT_THREADS | os.environ,
        start_new_session=True,
    )


def await_end(
    process: subprocess.Popen[str],
    log: TextIO,
    on_progress: Callable[[dict[str, Any]], None],
    name: str = "the training process",
) -> None:
    """Pass the process's events on until it ends. log: its standard error.

    Raises the error that it told of, or else TrainingError with how it ended.
    """
    problems: list[Problem] = []
    for event in _events(process):
        if event["event"] == "error":
            problems = [Problem(**problem) for problem in event["problems"]]
        else:
            on_progress(event)
    code = process.wait()
    if code != 0:
        raise _failure(name, code, problems, _tail(log))


def _events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            yield json.loads(line)


def _failure(name: str, code: int, problems: list[Problem], log: str) -> GraftworkError:
    """What an exit code means to the person who must act."""
    if problems:
        return ERRORS.get(code, TrainingError)(*problems)
    if code == -signal.SIGKILL or any(words in log for words in OUT_OF_MEMORY):
        how = "was killed (SIGKILL), most often for want of memory" if code == -signal.SIGKILL else "ran out of memory"
        return OutOfMemory(Problem(f"{name} {how}", hint="`graftwork plan --probe` says what would fit"))
    if code < 0:
        return TrainingError(f"{name} died of {signal.Signals(-code).name}\n{log}")
    return TrainingError(f"{name} ended with exit code {code}{os.linesep}{log}")


def _tail(log: TextIO) -> str:
    log.seek(0)
    return log.read()[-SHOWN_LOG:].strip()
