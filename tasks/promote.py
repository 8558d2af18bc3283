"""Promotions as tasks: by a verdict, by hand, and by a signed decision."""

import logging

from prefect import task
from prefect.artifacts import create_markdown_artifact

from graftwork.evaluation.evaluation import Evaluation
from graftwork.fingerprint import from_json
from graftwork.promotion.approval import Decision
from graftwork.promotion.gate import Verdict
from graftwork.promotion.history import AWAITING, LedgerEntry
from graftwork.registry import aliases
from graftwork.registry.approvals import carry_out
from graftwork.registry.versions import ModelVersion
from graftwork.training.bundle import ServingBundle
from graftwork.training.plan import open_run
from graftwork.workspace import Workspace
from tasks.policies import MINUTE_S, RETRIED

log = logging.getLogger("graftwork.tasks")


@task(task_run_name="nominate version {version.version}", tags=["cpu"], timeout_seconds=10 * MINUTE_S, **RETRIED)
def promote(
    run_id: str, version: ModelVersion, bundle: ServingBundle, evaluation: Evaluation, verdict: Verdict
) -> LedgerEntry:
    """The ledger entry that makes the version champion, or challenger where it is not to be promoted, or not yet."""
    workspace = Workspace.open()
    run = open_run(workspace.store, run_id)
    judged_against = evaluation.references.get("champion")
    champion = judged_against.version if judged_against else None
    entry = aliases.nominate(
        workspace, version, bundle, verdict, champion, run.policy.approval, run.recipe.get("author")
    )
    log.info("%s@%s is version %d", entry.model, entry.alias, entry.to_version)
    _show_request(entry)
    return entry


def _show_request(entry: LedgerEntry) -> None:
    """Where the entry waits for an approval, what to do about it, on the run's page."""
    if entry.rule == AWAITING:
        log.info("%s", entry.reason)
        command = f"graftwork approve {entry.model} {entry.to_version} --reason … --approver … --key …"
        text = f"# Waits for an approval\n\n{entry.reason}\n\nRequest `{entry.evidence_digest}`\n\n    {command}"
        create_markdown_artifact(key="approval", markdown=text)


@task(task_run_name="promote {model} version {version}", tags=["cpu"], timeout_seconds=10 * MINUTE_S, **RETRIED)
def promote_by_hand(model: str, version: int, reason: str, actor: str) -> LedgerEntry:
    """The ledger entry by which a person made the version champion, or challenger until somebody signs."""
    entry = aliases.promote_by_hand(Workspace.open(), model, version, reason, actor)
    _show_request(entry)
    return entry


@task(task_run_name="roll {model} back", tags=["cpu"], timeout_seconds=10 * MINUTE_S, **RETRIED)
def roll_back(model: str, reason: str, actor: str) -> LedgerEntry:
    """The ledger entry by which a person went back to the champion before."""
    return aliases.roll_back(Workspace.open(), model, reason, actor)


@task(task_run_name="decide on {model}", tags=["cpu"], timeout_seconds=10 * MINUTE_S, **RETRIED)
def decide(model: str, decision: str) -> LedgerEntry | None:
    """The champion's ledger entry after a signed decision, None if it was to reject."""
    return carry_out(Workspace.open(), model, from_json(Decision, decision))
