"""Data validation as a task."""

from prefect import task
from prefect.artifacts import create_table_artifact

from graftwork.data import manifest as data
from graftwork.data.manifest import DatasetManifest
from graftwork.recipe import Recipe
from graftwork.workspace import Workspace
from tasks.narration import narrated
from tasks.policies import MINUTE_S, RETRIED


@task(task_run_name="open data {digest}", tags=["cpu"], timeout_seconds=10 * MINUTE_S, **RETRIED)
def accepted_data(digest: str) -> DatasetManifest:
    """The manifest of that digest, which was made when the data landed."""
    return data.open_manifest(Workspace.open().store, digest)


@task(task_run_name="validate data of {recipe.name}", tags=["cpu"], timeout_seconds=120 * MINUTE_S, **RETRIED)
def validate_data(recipe: Recipe) -> DatasetManifest:
    """The accepted rows of the recipe's sources; an artifact counts them file by file."""
    workspace = Workspace.open()
    with narrated("data", workspace.store):
        manifest = data.validate_data(recipe, workspace)
    create_table_artifact(
        key="data",
        table=[{"source": file.source, "file": file.path, **vars(file.counts)} for file in manifest.every_source],
        description=f"Rows of manifest {manifest.digest[:12]}: read = kept + quarantined + duplicates.",
    )
    return manifest
