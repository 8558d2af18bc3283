"""An audit as a task."""

import logging

from prefect import task
from prefect.artifacts import create_table_artifact

from graftwork.registry import audit as auditing
from graftwork.registry.audit import Audit
from graftwork.workspace import Workspace
from tasks.policies import MINUTE_S, RETRIED

log = logging.getLogger("graftwork.tasks")


@task(task_run_name="audit", tags=["cpu"], timeout_seconds=10 * MINUTE_S, **RETRIED)
def audit() -> Audit:
    """What is not as the ledger says, in the log and in an artifact."""
    done = auditing.audit(Workspace.open())
    for problem in done.problems:
        log.error("%s", problem)
    create_table_artifact(
        key="audit",
        table=[{"where": found.where, "what": found.message, "what to do": found.hint} for found in done.problems],
        description=f"{done.entries} entries of {len(done.models)} models.",
    )
    return done
