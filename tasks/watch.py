"""Looks at what has landed as a task, and trainings as runs of a deployment."""

import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast
from uuid import UUID

from prefect import task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry

from graftwork.errors import GraftworkError, Problem, RecipeError, ServiceUnavailable, raise_if
from graftwork.monitoring.landing import Retraining, Watched, Watcher
from graftwork.recipe import Recipe, load_recipe
from graftwork.workspace import Workspace
from tasks.policies import RETRIED

# A run that crashed is started again by an automation. On SQLite the server may lose the event that asks for that, and
# a worker reports a dead process a second time after some seconds: later than this, whoever looks does it.
RECOVERED_WITHIN = timedelta(seconds=20)
MOST_STARTS = 10

log = logging.getLogger("graftwork.tasks")


@task(task_run_name="look at what has landed", tags=["cpu"], **RETRIED)
def look_around(recipes: list[str], looks: int, every_s: float, is_whole: bool) -> dict[str, Watched]:
    """What has landed for each recipe, and what is done about it: so many looks, so far apart; the last ones' results.

    A recipe that can't be looked at keeps nobody from the others; its error is raised in the end.
    """
    found: dict[str, Watched] = {}
    problems: list[Problem] = []
    for number in range(looks):
        if number:
            time.sleep(every_s)
        problems.clear()
        for path in recipes:
            try:
                _look(load_recipe(Path(path)), is_whole, found)
            except ServiceUnavailable:
                raise
            except GraftworkError as error:
                log.error("%s: %s", path, error)
                problems += error.problems
    raise_if(problems, RecipeError)
    return found


def _look(recipe: Recipe, is_whole: bool, found: dict[str, Watched]) -> None:
    """Look once, and say so if it is not what was said last."""
    trainings = DeployedTrainings(f"finetune/{recipe.name}")
    now = Watcher.of(recipe, Workspace.open(), trainings).look(is_whole)
    if found.get(recipe.name) != now:
        tell = log.warning if now.outcome == "refused" else log.info
        tell("%s: %s, %s", recipe.name, now.outcome, now.reason)
    found[recipe.name] = now


class DeployedTrainings:
    """Runs of a deployment, `flow/deployment`: one for each manifest."""

    def __init__(self, deployment: str) -> None:
        self.deployment = deployment

    def start(self, retraining: Retraining) -> str:
        """The id of the flow run. Prefect keeps one run for a key, whoever asks and however often.

        Raises RecipeError if there is no such deployment.
        """
        try:
            run = cast(
                "FlowRun",
                run_deployment(
                    self.deployment,
                    parameters={"manifest": retraining.manifest},
                    idempotency_key=f"{self.deployment}:{retraining.manifest}",
                    timeout=0,
                    as_subflow=False,
                ),
            )
        except ObjectNotFound as error:
            hint = "`graftwork deploy RECIPE` makes it"
            raise RecipeError(Problem("there is no such deployment", self.deployment, hint)) from error
        return str(run.id)

    def is_over(self, run: str) -> bool:
        """True if the flow run has ended, or was deleted; one that crashed and was left so is started again."""
        with get_client(sync_client=True) as client:
            try:
                found = client.read_flow_run(UUID(run))
            except ObjectNotFound:
                return True
            state = found.state
            if state is None or not state.is_final():
                return False
            if not state.is_crashed() or found.run_count >= MOST_STARTS:
                return True
            if datetime.now(UTC) - state.timestamp > RECOVERED_WITHIN:
                log.warning("run %s crashed and was left so: it is started again", run)
                client.set_flow_run_state(found.id, AwaitingRetry(), force=True)
        return False
