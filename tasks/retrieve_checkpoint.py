"""Checkpoint retrieval as a task."""

from prefect import task

from graftwork.checkpoints import retrieve
from graftwork.checkpoints.lock import CheckpointLock
from graftwork.models.catalog import families_for
from graftwork.recipe import Recipe
from graftwork.workspace import Workspace
from tasks.narration import narrated
from tasks.policies import MINUTE_S, RETRIED


@task(task_run_name="retrieve {recipe.checkpoint.source}", tags=["cpu"], timeout_seconds=120 * MINUTE_S, **RETRIED)
def retrieve_checkpoint(recipe: Recipe) -> CheckpointLock:
    """The pinned, verified checkpoint, in the store."""
    workspace = Workspace.open()
    with narrated("checkpoint", workspace.store):
        return retrieve.retrieve_checkpoint(recipe, workspace, families_for(recipe.input.modality))
