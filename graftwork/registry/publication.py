"""The end of a run in MLflow: its report beside its other artifacts, the verdict on its version, the run closed."""

from pathlib import Path

from graftwork.promotion.gate import Verdict
from graftwork.registry.client import reach_mlflow
from graftwork.registry.registration import record_verdict
from graftwork.registry.tracking import attach_files, close_run
from graftwork.registry.versions import ModelVersion
from graftwork.settings import hide_password
from graftwork.storage import MANIFEST
from graftwork.workspace import Workspace

REPORT = "graftwork.report"
NOTE = "mlflow.note.content"  # what MLflow shows on the run's page, as Markdown


def publish_report(
    workspace: Workspace, version: ModelVersion, verdict: Verdict, folder: Path, flow_run: str | None = None
) -> bool:
    """Attach the report's files to the version's run and close it; False if that was done before.

    folder: as `store_report` gives it; its name, a digest, marks the run once everything is there. flow_run: the page
    of what made it, for whoever looks at the run in MLflow.
    """
    with reach_mlflow(workspace.settings) as client:
        run = client.get_run(version.mlflow_run)
        if run.data.tags.get(REPORT) == folder.name and run.info.status == "FINISHED":
            return False
        attach_files(workspace, version.mlflow_run, sorted(path for path in folder.iterdir() if path.name != MANIFEST))
        record_verdict(workspace, version, verdict)
        if flow_run is not None and NOTE not in run.data.tags:
            client.set_tag(version.mlflow_run, NOTE, f"Made by [this flow run]({flow_run}) in Prefect.")
        client.set_tag(version.mlflow_run, REPORT, folder.name)
        close_run(workspace, version.mlflow_run)
        return True


def page_of(workspace: Workspace, version: ModelVersion) -> str | None:
    """The page of the version's run on the team's MLflow server; None where there is no server."""
    uri = hide_password(workspace.settings.mlflow_pages or workspace.settings.mlflow_uri)
    if not uri.startswith(("http://", "https://")):
        return None
    with reach_mlflow(workspace.settings) as client:
        experiment = client.get_run(version.mlflow_run).info.experiment_id
    return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{version.mlflow_run}"
