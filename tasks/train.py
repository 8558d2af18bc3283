"""Training by a run of another deployment, in another pool, as a task."""

import itertools
import logging
import time
from typing import Any

from prefect import task
from prefect.client.schemas.objects import FlowRun
from prefect.utilities.urls import url_for

from graftwork.errors import Problem, TrainingError
from graftwork.training.bundle import ServingBundle, find_bundle
from graftwork.training.plan import open_run
from graftwork.workspace import Workspace
from tasks.deployed import final_state, start_once
from tasks.policies import RETRIED

POLL_S = 2.0

log = logging.getLogger("graftwork.tasks")


@task(task_run_name="have run {run_id} trained by {deployment}", tags=["cpu"], **RETRIED)
def train_elsewhere(
    run_id: str,
    deployment: str,
    restart: bool = False,
    accept_drift: tuple[str, ...] = (),
    time_limit_s: float | None = None,
) -> ServingBundle:
    """All stages of the run, trained by one run of the deployment, which whoever asks again waits for, too.

    Raises TrainingError if that run fails or is cancelled, or leaves its bundle in a store that is not this one.
    """
    store = Workspace.open().store
    key = open_run(store, run_id).plan.bundle_key
    if (bundle := find_bundle(store, key)) is not None:
        log.info("training: reused")
        return bundle
    wish = {"restart": restart, "accept_drift": list(accept_drift), "time_limit_s": time_limit_s}
    child = _run_for(deployment, run_id, {"run_id": run_id} | wish)
    page = url_for(child) or child.name
    log.info("%s trains: %s", deployment, page)
    while (state := final_state(child.id)) is None:
        time.sleep(POLL_S)
    if not state.is_completed():
        problem = f"the run of {deployment} ended as {state.name}: {state.message or 'it did not say why'}"
        raise TrainingError(Problem(problem, page, "its log says more; started again, it goes on where it was"))
    if (bundle := find_bundle(store, key)) is None:
        problem, hint = f"what it trained is not in {store.root}", "all machines must share one GRAFTWORK_STORE"
        raise TrainingError(Problem(problem, page, hint))
    return bundle


def _run_for(deployment: str, run_id: str, parameters: dict[str, Any]) -> FlowRun:
    """The run of the deployment that trains the run now; a new one where all before it are over."""
    runs = (start_once(deployment, f"{run_id}:{number}", parameters, is_child=True) for number in itertools.count(1))
    return next(run for run in runs if final_state(run.id) is None)
