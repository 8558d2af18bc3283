"""The report as a task."""

from pathlib import Path

from prefect import task
from prefect.artifacts import create_link_artifact
from prefect.runtime import flow_run
from prefect.utilities.urls import url_for

from graftwork.database import now
from graftwork.evaluation.evaluation import Evaluation
from graftwork.promotion.gate import Verdict
from graftwork.promotion.history import LedgerEntry
from graftwork.registry import publication
from graftwork.registry.versions import ModelVersion
from graftwork.report.examples import find_examples
from graftwork.report.facts import ReportFacts, installed_libraries, this_machine
from graftwork.report.files import PAGE, copy_page, store_report
from graftwork.training.bundle import ServingBundle
from graftwork.training.plan import open_run
from graftwork.training.reading import find_reading
from graftwork.workspace import Workspace
from tasks.narration import narrated
from tasks.policies import MINUTE_S, RETRIED


@task(task_run_name="report on run {run_id}", tags=["cpu"], timeout_seconds=10 * MINUTE_S, **RETRIED)
def publish_report(
    run_id: str,
    bundle: ServingBundle,
    evaluation: Evaluation,
    verdict: Verdict,
    version: ModelVersion,
    entry: LedgerEntry,
    command: str,
) -> Path:
    """The path of the run's report; its files are attached to the MLflow run, which is closed, and each page links."""
    workspace = Workspace.open()
    run = open_run(workspace.store, run_id)
    facts = ReportFacts(
        run=run,
        bundle=bundle,
        evaluation=evaluation,
        verdict=verdict,
        version=version,
        entry=entry,
        command=command,
        created_at=now(),
        machine=this_machine(),
        libraries=installed_libraries(),
        reading=find_reading(workspace.store, run.plan),
        examples=find_examples(workspace.store, evaluation, run.manifest),
    )
    with narrated("report", workspace.store):
        folder = store_report(workspace.store, facts)
        publication.publish_report(workspace, version, verdict, folder, url_for("flow-run", flow_run.id))
    page = publication.page_of(workspace, version)
    if page is not None:
        report = f"[Report and model card]({page}/artifacts/{PAGE}), learning curves, and who serves since when."
        create_link_artifact(
            page, f"{version.name} version {version.version} in MLflow", key="mlflow", description=report
        )
    return copy_page(folder, workspace.settings.home / "reports" / f"{version.name}-{version.version}.html")
