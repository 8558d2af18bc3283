"""A run that is killed or stopped at any moment: the next ends as if nothing had happened, and nothing is left over.

Only the command itself is killed. Its server and its training process have to end by themselves.
"""

import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from projects import processes_below

from graftwork.storage import Store
from graftwork.training.state import RECORD

if TYPE_CHECKING:
    from projects import Project

pytestmark = pytest.mark.e2e

MODEL = "review-sentiment"
KILLED = -signal.SIGKILL
TRAINING_FAILED, PAUSED = 5, 75
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}  # of Prefect's state types
SEED = 20261121
# Ten moments of an unbroken run, one in each tenth of it, as shares of its duration; the last seconds are its clean-up.
MOMENTS = [0.95 * (tenth + random.Random(SEED + tenth).random()) / 10 for tenth in range(10)]
LONG_STAGE = ("--set=stages.1.epochs=20",)  # some seconds, so that there is a middle
# In the order in which a run passes them, with the exit code of the command: stages are trained in a child.
FAULTS = {
    "training.stage_switch": TRAINING_FAILED,
    "evaluation.before_publish": KILLED,
    "registry.after_log_model": KILLED,
    "registry.after_create_version": KILLED,
    "promotion.after_ledger": KILLED,
}


@pytest.mark.parametrize("pair", range(5))
def test_killed_at_random_moments(first_run, new_project, pair):
    """Killed early, and killed again late as it goes on: the third run ends like an unbroken one."""
    early, late = (share * first_run.seconds for share in (MOMENTS[pair], MOMENTS[-1 - pair]))
    project = kill_twice(new_project, early, late - early)
    check(project, project.run(), first_run.summary)


def test_killed_at_each_named_point(first_run, project):
    """Killed between an effect and its record, at one point after the other: each is done once in the end."""
    for point, code in FAULTS.items():
        process = project.start_run(GRAFTWORK_FAULT=point)
        _, log = process.communicate()
        assert process.returncode == code, f"{point}: exit code {process.returncode}\n{log}"
        wait_until_alone(project)
    check(project, project.run(), first_run.summary)


def test_stopped_by_a_signal(project):
    """SIGTERM and Ctrl-C end the command within 20 s as paused, closed in Prefect; the next run keeps what is done."""
    for number in (signal.SIGTERM, signal.SIGINT):
        process = project.start_run()
        log = read_until(process, "stage upper: 2 of 2 begins")
        asked = time.monotonic()
        process.send_signal(number)
        _, rest = process.communicate(timeout=60)
        assert (process.returncode, time.monotonic() - asked < 20) == (PAUSED, True), log + rest
        assert "Traceback" not in rest
        wait_until_alone(project)
        assert unfinished(project) == []
    assert "stage top: reused" in log


def test_goes_on_at_the_saved_step(new_project):
    """Flow and training killed in the middle of a stage: it goes on at what was saved, and no curve shows a seam."""
    unbroken = new_project()
    summary = unbroken.run(*LONG_STAGE)
    project = new_project()
    process = project.start_run(*LONG_STAGE, GRAFTWORK_SAVE_SHARE="0.2")
    read_until(process, "stage upper: 2 of 2 begins")
    while saved_step(project, index=1) == 0:
        assert process.poll() is None, "it was over before it had saved"
    kill_whole(process)
    wait_until_alone(project)
    step = saved_step(project, index=1)
    resumed, log = project.run_and_log(*LONG_STAGE)
    assert f"stage upper: goes on at step {step} of " in log
    check(project, resumed, summary)
    assert curves(project) == curves(unbroken)


def kill_twice(new_project: Callable[[], "Project"], first_s: float, second_s: float) -> "Project":
    """A project whose first two runs were killed then; sooner if this machine is faster than when it was measured."""
    while True:
        project = new_project()
        if all(kill_after(project, seconds) for seconds in (first_s, second_s)):
            return project
        first_s, second_s = 0.85 * first_s, 0.85 * second_s


def kill_after(project: "Project", seconds: float) -> bool:
    """Run, and kill the command, and it alone; False if it ended before."""
    process = project.start_run()
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until_alone(project)
    return process.returncode == KILLED


def kill_whole(process: Any) -> None:
    """Kill the command and all that it started, at once."""
    command = psutil.Process(process.pid)
    for each in (command, *command.children(recursive=True)):
        each.kill()
    process.communicate()


def saved_step(project: "Project", index: int) -> int:
    """The step at which the training of that stage would go on now; 0 if none of it is saved."""
    with closing(sqlite3.connect(f"file:{project.home / 'graftwork.db'}?mode=ro", uri=True)) as database:
        heads = database.execute("SELECT run_id || state_digest FROM run_heads WHERE state_digest IS NOT NULL")
        names = [name for (name,) in heads]
    try:
        states = [json.loads((project.home / "store/state" / name / RECORD).read_text()) for name in names]
    except FileNotFoundError:  # the next one was just saved
        return saved_step(project, index)
    return max((state["progress"]["step"] for state in states if state["index"] == index), default=0)


def curves(project: "Project") -> Any:
    """Each stage's metrics as MLflow shows them: step and value of each point, by name."""
    with project.mlflow() as client:
        runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
        return {
            (run.data.tags["graftwork.stage"], key): [
                (point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)
            ]
            for run in runs
            for key in run.data.metrics
            if run.data.tags["graftwork.stage"]
        }


def read_until(process: Any, words: str) -> str:
    """What the command told up to the line with these words."""
    log = ""
    for line in process.stderr:
        log += line
        if words in line:
            return log
    raise AssertionError(f"it ended without {words!r}\n{log}")


def wait_until_alone(project: "Project", within_s: float = 15) -> None:
    """Return when no process works in the project any more."""
    deadline = time.monotonic() + within_s
    while left := processes_below(project.folder):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.2)


def check(project: "Project", summary: Any, unbroken: Any) -> None:
    """The project is as an unbroken run leaves it."""
    assert summary["bundle"] == unbroken["bundle"]
    assert summary["evaluation"]["metrics"] == unbroken["evaluation"]["metrics"]
    assert (summary["version"], summary["alias"]) == (1, "champion")
    assert [entry["rule"] for entry in project.json("history", MODEL)] == ["baselines"]
    check_mlflow(project)
    assert unfinished(project) == []
    check_store(project)
    wait_until_alone(project)


def check_mlflow(project: "Project") -> None:
    """One version of one logged model, one run with its two stages, all ended, each point of a curve once."""
    with project.mlflow() as client:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(experiments)
        models = client.search_logged_models(experiments)
        versions = client.search_model_versions(f"name = '{MODEL}'")
        points = Counter(
            (run.info.run_id, key, point.step)
            for run in runs
            for key in run.data.metrics
            for point in client.get_metric_history(run.info.run_id, key)
        )
        assert client.get_registered_model(MODEL).aliases == {"champion": 1}
    assert sorted(run.data.tags["graftwork.stage"] for run in runs) == ["", "top", "upper"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert [str(model.status) for model in models] == ["READY"]
    assert len(versions) == 1
    assert set(points.values()) == {1}


def unfinished(project: "Project") -> list[tuple[Any, ...]]:
    """Flow runs and task runs that Prefect believes to be under way or to come."""
    query = " UNION ALL ".join(f"SELECT name, state_type FROM {table}" for table in ("flow_run", "task_run"))
    return [row for row in project.ask_prefect(query) if row[1] not in ENDED]


def check_store(project: "Project") -> None:
    """Everything in it is whole, nothing was rejected, and nothing half-written is left."""
    store = Store(project.home / "store")
    assert all(store.open(key) is not None for key in project.stored_keys())
    assert not (store.root / "rejected").exists()
    assert list((store.root / "staging").iterdir()) == []
