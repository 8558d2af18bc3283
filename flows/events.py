"""Events that we tell the Prefect server: automations act on them, and the pages show them."""

import uuid
from datetime import UTC, datetime

from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.runtime import flow_run

from graftwork.data.handover import HandedIn
from graftwork.promotion.gate import Verdict
from graftwork.promotion.history import AWAITING, CHAMPION, LedgerEntry

LANDED = "graftwork.data.landed"
# What became of a candidate, with the words for it. They begin alike, so that one automation can expect them all.
OUTCOMES = {
    "graftwork.model.promoted": "is the champion",
    "graftwork.model.awaiting-approval": "waits for an approval",
    "graftwork.model.inconclusive": "may or may not be better: it stays challenger",
    "graftwork.model.kept-out": "is not to become champion",
}


def tell_outcome(verdict: Verdict, entry: LedgerEntry) -> None:
    """What became of the candidate that this flow run entered into the ledger.

    A run that found all done before tells nothing again. It is told in the background; who is not there misses it.
    """
    started = flow_run.get_scheduled_start_time()
    if datetime.fromisoformat(entry.created_at) < started:
        return
    name = outcome_of(verdict, entry)
    emit_event(
        name,
        resource={"prefect.resource.id": f"graftwork.model.{entry.model}", "prefect.resource.name": entry.model},
        payload={
            "version": entry.to_version,
            "subject": f"{entry.model}: version {entry.to_version} {OUTCOMES[name]}",
            "reason": entry.reason,
        },
        id=uuid.uuid5(uuid.NAMESPACE_OID, entry.hash),
    )


def outcome_of(verdict: Verdict, entry: LedgerEntry) -> str:
    """The event's name, of OUTCOMES."""
    if entry.alias == CHAMPION:
        return "graftwork.model.promoted"
    if entry.rule == AWAITING:
        return "graftwork.model.awaiting-approval"
    return "graftwork.model.inconclusive" if verdict.outcome == "inconclusive" else "graftwork.model.kept-out"


def tell_landed(handed_in: HandedIn) -> None:
    """That a file was handed in: an automation then looks at it at once."""
    event = {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": LANDED,
        "resource": {
            "prefect.resource.id": f"graftwork.recipe.{handed_in.model}",
            "prefect.resource.name": handed_in.model,
        },
        "payload": {"recipe": handed_in.recipe, "file": handed_in.name, "sha256": handed_in.sha256},
    }
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[event])
