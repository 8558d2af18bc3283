"""Looks at what has landed as a task, and trainings as runs of a deployment."""

import logging
import time
from pathlib import Path
from uuid import UUID

from prefect import task

from graftwork.errors import GraftworkError, RecipeError, ServiceUnavailable, raise_if
from graftwork.monitoring.landing import Retraining, Watched, Watcher
from graftwork.recipe import Recipe, load_recipe
from graftwork.workspace import Workspace
from tasks.deployed import final_state, start_once
from tasks.events import tell_refused
from tasks.policies import RETRIED

log = logging.getLogger("graftwork.tasks")


@task(task_run_name="look at what has landed", tags=["cpu"], **RETRIED)
def look_around(recipes: list[str], looks: int, every_s: float, is_whole: bool) -> dict[str, Watched]:
    """What has landed for each recipe, and what is done about it: so many looks, so far apart; the last ones' results.

    A recipe that can't be looked at keeps nobody from the others; its error is raised in the end, as ServiceUnavailable
    if nothing but services that are away kept anybody.
    """
    found: dict[str, Watched] = {}
    errors: list[GraftworkError] = []
    for number in range(looks):
        if number:
            time.sleep(every_s)
        errors.clear()
        for path in recipes:
            try:
                _look(load_recipe(Path(path)), is_whole, found)
            except GraftworkError as error:
                log.error("%s: %s", path, error)
                errors.append(error)
    are_away = all(isinstance(error, ServiceUnavailable) for error in errors)
    problems = (problem for error in errors for problem in error.problems)
    raise_if(problems, ServiceUnavailable if are_away else RecipeError)
    return found


def _look(recipe: Recipe, is_whole: bool, found: dict[str, Watched]) -> None:
    """Look once, and say so if it is not what was said last."""
    trainings = DeployedTrainings(f"finetune/{recipe.name}")
    now = Watcher.of(recipe, Workspace.open(), trainings).look(is_whole)
    if found.get(recipe.name) != now:
        tell = log.warning if now.outcome == "refused" else log.info
        tell("%s: %s, %s", recipe.name, now.outcome, now.reason)
        if now.outcome == "refused":
            tell_refused(recipe.name, now.reason)
    found[recipe.name] = now


class DeployedTrainings:
    """Runs of a deployment, `flow/deployment`: one for each manifest."""

    def __init__(self, deployment: str) -> None:
        self.deployment = deployment

    def start(self, retraining: Retraining) -> str:
        """The id of the flow run. Raises RecipeError if there is no such deployment."""
        return str(start_once(self.deployment, retraining.manifest, {"manifest": retraining.manifest}).id)

    def is_over(self, run: str) -> bool:
        """True if the flow run has ended, or was deleted."""
        return final_state(UUID(run)) is not None
