"""How often a flow run may die: a process that is killed leaves an attempt open, and too many of them end the run.

Prefect counts how often a run was started, which is more: a worker reports a dead process twice, some seconds apart,
and an automation that starts it again after each report may start a second process beside the first.
"""

import logging
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.runtime import flow_run

from graftwork.claims import claim, open_claims, settle
from graftwork.errors import Problem, TrainingError
from graftwork.owners import is_alive, this_owner
from graftwork.workspace import Workspace

KIND = "attempt"
DEATHS = 3

log = logging.getLogger("graftwork.tasks")


def begin_attempt() -> None:
    """This process works on its flow run now. Raises TrainingError if DEATHS processes have died of it before."""
    database, prefix = Workspace.open().database, f"{flow_run.id}/"
    left = [each for each in open_claims(database, KIND) if each.key.startswith(prefix)]
    died = [each.owner for each in left if not is_alive(each.owner)]
    if len(died) >= DEATHS:
        problem = f"its process died {len(died)} times, the last one was {died[-1]}"
        hint = "its log says what it did last, `graftwork plan --probe` whether it fits into the memory"
        raise TrainingError(Problem(problem, f"flow run {flow_run.id}", hint))
    if died:
        log.warning("the process before this one died: attempt %d of %d", len(died) + 1, DEATHS)
    claim(database, KIND, prefix + this_owner())


def end_attempt(_flow: Flow[..., Any], run: FlowRun, _state: State[Any]) -> None:
    """This process is done with its flow run, however that ended."""
    database, mine = Workspace.open().database, f"{run.id}/{this_owner()}"
    if any(each.key == mine for each in open_claims(database, KIND)):
        settle(database, KIND, mine, "ended")


# For a flow that begins attempts: however it ends, short of being killed, its attempt does.
ENDED: dict[str, Any] = {
    hook: [end_attempt] for hook in ("on_completion", "on_failure", "on_cancellation", "on_crashed")
}
