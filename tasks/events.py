"""Events that we tell the Prefect server: automations act on them, and the pages show them."""

import uuid
from datetime import UTC, datetime

from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.runtime import flow_run

from graftwork.data.handover import HandedIn
from graftwork.promotion.gate import Verdict
from graftwork.promotion.history import AWAITING, CHAMPION, LedgerEntry

LANDED, REFUSED = "graftwork.data.landed", "graftwork.data.refused"
# What became of a version, with the words for it.
OUTCOMES = {
    "graftwork.model.promoted": "is the champion",
    "graftwork.model.rolled-back": "is the champion again",
    "graftwork.model.awaiting-approval": "waits for an approval",
    "graftwork.model.inconclusive": "may or may not be better: it stays challenger",
    "graftwork.model.kept-out": "is not to become champion",
}


def tell_outcome(entry: LedgerEntry, verdict: Verdict | None = None) -> None:
    """What became of the version that this flow run entered into the ledger. verdict: on a candidate of this run.

    A run that found all done before tells nothing again. It is told in the background; who is not there misses it.
    """
    if datetime.fromisoformat(entry.created_at) < flow_run.get_scheduled_start_time():
        return
    name = outcome_of(entry, verdict)
    payload = {
        "version": entry.to_version,
        "subject": f"{entry.model}: version {entry.to_version} {OUTCOMES[name]}",
        "reason": entry.reason,
    }
    emit_event(name, _resource("model", entry.model), payload=payload, id=uuid.uuid5(uuid.NAMESPACE_OID, entry.hash))


def outcome_of(entry: LedgerEntry, verdict: Verdict | None) -> str:
    """The event's name, of OUTCOMES."""
    if entry.alias == CHAMPION:
        return "graftwork.model.rolled-back" if entry.rule == "rollback" else "graftwork.model.promoted"
    if entry.rule == AWAITING:
        return "graftwork.model.awaiting-approval"
    is_open = verdict is not None and verdict.outcome == "inconclusive"
    return "graftwork.model.inconclusive" if is_open else "graftwork.model.kept-out"


def tell_refused(model: str, reason: str) -> None:
    """That what landed for a model can't be trained on."""
    payload = {"subject": f"{model}: what landed was refused", "reason": reason}
    emit_event(REFUSED, _resource("recipe", model), payload=payload)


def tell_landed(handed_in: HandedIn) -> None:
    """That a file was handed in: an automation then looks at it at once."""
    event = {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": LANDED,
        "resource": _resource("recipe", handed_in.model),
        "payload": {"recipe": handed_in.recipe, "file": handed_in.name, "sha256": handed_in.sha256},
    }
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[event])


def _resource(kind: str, name: str) -> dict[str, str]:
    return {"prefect.resource.id": f"graftwork.{kind}.{name}", "prefect.resource.name": name}
