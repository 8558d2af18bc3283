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

from graftwork.errors import GraftworkError, Problem, RecipeError, ServiceUnavailable, raise_if
from graftwork.monitoring.landing import Retraining, Watched, Watcher
from graftwork.recipe import Recipe, load_recipe
from graftwork.workspace import Workspace
from tasks.policies import RETRIED

# A run that crashed is started again by an automation: until then it is not over.
RECOVERED_WITHIN = timedelta(minutes=2)

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
        """True if the flow run has ended and will not be started again, or was deleted."""
        with get_client(sync_client=True) as client:
            try:
                state = client.read_flow_run(UUID(run)).state
            except ObjectNotFound:
                return True
        if state is None or not state.is_final():
            return False
        return not state.is_crashed() or datetime.now(UTC) - state.timestamp > RECOVERED_WITHIN
