"""Registration as a task."""

import logging

from prefect import task

from graftwork.evaluation.evaluation import Evaluation
from graftwork.promotion.gate import Verdict
from graftwork.registry import registration
from graftwork.registry.tracking import log_training
from graftwork.registry.versions import ModelVersion, find_version
from graftwork.training.bundle import ServingBundle
from graftwork.training.plan import open_run
from graftwork.workspace import Workspace
from tasks.policies import MINUTE_S, RETRIED

log = logging.getLogger("graftwork.tasks")


@task(task_run_name="register run {run_id}", tags=["cpu"], timeout_seconds=60 * MINUTE_S, **RETRIED)
def register_model(run_id: str, bundle: ServingBundle, evaluation: Evaluation, verdict: Verdict) -> ModelVersion:
    """The one model version of this bundle, with its training curves and its figures."""
    workspace = Workspace.open()
    found = find_version(workspace, bundle.name, bundle.digest)
    if found is not None:
        log.info("registered already: %s version %d", found.name, found.version)
        return found
    run = open_run(workspace.store, run_id)
    mlflow_run = log_training(workspace, run_id, run.plan, bundle.stages)
    version = registration.register_model(workspace, mlflow_run, bundle, run.manifest, evaluation, verdict)
    log.info("registered: %s version %d", version.name, version.version)
    return version
