"""Promotion as a task."""

import logging

from prefect import task

from graftwork.evaluation.evaluation import Evaluation
from graftwork.promotion.gate import Verdict
from graftwork.promotion.history import LedgerEntry
from graftwork.registry.aliases import nominate
from graftwork.registry.versions import ModelVersion
from graftwork.training.bundle import ServingBundle
from graftwork.workspace import Workspace
from tasks.policies import MINUTE_S, RETRIED

log = logging.getLogger("graftwork.tasks")


@task(task_run_name="nominate version {version.version}", tags=["cpu"], timeout_seconds=10 * MINUTE_S, **RETRIED)
def promote(version: ModelVersion, bundle: ServingBundle, evaluation: Evaluation, verdict: Verdict) -> LedgerEntry:
    """The ledger entry that makes the version champion, or challenger where the verdict is not to promote."""
    judged_against = evaluation.references.get("champion")
    champion = judged_against.version if judged_against else None
    entry = nominate(Workspace.open(), version, bundle, verdict, champion)
    log.info("%s@%s is version %d", entry.model, entry.alias, entry.to_version)
    return entry
