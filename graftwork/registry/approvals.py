"""Requests for approval and the decisions about them: kept in the store, carried out through the ledger.

A request is named by the ledger's entry of the challenger that it is for, so that nobody can put another in its place.
There is one decision about a request, the first that was rightly signed; it is kept before it is carried out, so that
what a crash cuts off is finished by whoever comes next.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from graftwork.errors import AuditError, GraftworkError, Problem, PromotionRefused
from graftwork.fingerprint import from_json, to_json
from graftwork.policy import ApprovalSection
from graftwork.promotion.approval import Decision, Request, check, expired, make_request
from graftwork.promotion.history import AWAITING, CHALLENGER, CHAMPION, LedgerEntry, Nomination
from graftwork.promotion.ledger import Ledger, promote
from graftwork.registry.versions import move_alias
from graftwork.storage import Store
from graftwork.workspace import Workspace

RECORD = "request.json"
DECISION = "decision.json"
State = Literal["open", "approved", "rejected", "expired"]


@dataclass(frozen=True)
class Approval:
    """A request, and what became of it."""

    request: Request
    decision: Decision | None

    @property
    def state(self) -> State:
        if self.decision is not None:
            return "approved" if self.decision.outcome == "approve" else "rejected"
        return "expired" if self.request.is_expired else "open"

    def is_behind(self, entry: LedgerEntry) -> bool:
        """True if a version became champion because this was approved."""
        return entry.evidence_digest == self.request.digest


def ask(
    workspace: Workspace,
    model: str,
    nomination: Nomination,
    expected: int | None,
    approval: ApprovalSection,
    author: str | None,
) -> Nomination:
    """The nomination as challenger of what was to become champion, with the request that now waits for a person.

    What was asked before on the same grounds, and is neither decided nor expired, is not asked again.
    """
    request = make_request(model, nomination, expected, approval, author)
    for known in find_requests(workspace, model, nomination.version):
        if known.state != "expired" and known.request.nomination == nomination:
            request = known.request
    _keep(workspace.store, f"request/{request.digest}", RECORD, to_json(request))
    reason = f"{nomination.reason} It waits for an approval until {request.expires_at}."
    return replace(nomination, rule=AWAITING, reason=reason, evidence_digest=request.digest)


def find_requests(workspace: Workspace, model: str, version: int | None = None) -> Iterator[Approval]:
    """Every request for the model, or one version of it, oldest first, with what became of it."""
    for entry in Ledger.of(workspace).entries(model, CHALLENGER):
        if entry.rule == AWAITING and version in (None, entry.to_version):
            yield open_approval(workspace.store, entry)


def newest_request(workspace: Workspace, model: str, version: int) -> Request:
    """The last that was asked about the version. Raises PromotionRefused if nothing was."""
    found = [known.request for known in find_requests(workspace, model, version)]
    if not found:
        hint = "`graftwork approvals` lists what waits; a policy without `approval` asks for none"
        raise PromotionRefused(Problem("nobody asked for its approval", f"{model}, version {version}", hint))
    return found[-1]


def open_approval(store: Store, entry: LedgerEntry) -> Approval:
    """The request that a challenger's entry is about. Raises AuditError if it is gone, or not what was asked."""
    folder = store.open(f"request/{entry.evidence_digest}")
    hint = "run the recipe again: it asks anew"
    if folder is None:
        raise AuditError(Problem("its request for approval is not in the store", entry.where, hint))
    request = from_json(Request, (folder / RECORD).read_text(encoding="utf-8"))
    if request.digest != entry.evidence_digest:
        raise AuditError(Problem("its request for approval was altered", entry.where, hint))
    return Approval(request, _decision(store, request))


def carry_out(workspace: Workspace, model: str, decision: Decision) -> LedgerEntry | None:
    """Keep the decision, and promote if it approves; the champion's entry then, None for a rejection.

    Repeated after a crash, it does what is left. Raises PromotionRefused if nobody asked, if the decision may not be
    made (`promotion.approval.check`), if another was made before, or if the champion changed meanwhile.
    """
    asked = {known.request.digest: known for known in find_requests(workspace, model)}.get(decision.request)
    if asked is None:
        hint = "`graftwork approvals` lists what waits"
        raise PromotionRefused(Problem(f"nobody asked for a decision on {decision.request[:12]}", model, hint))
    request = asked.request
    check(request, decision)
    if asked.state == "expired":
        raise PromotionRefused(expired(request))
    kept = _keep_first(workspace.store, request, decision)
    if kept.outcome != decision.outcome:
        problem = f"{kept.approver} decided to {kept.outcome} at {kept.decided_at}: {kept.reason}"
        raise PromotionRefused(Problem(problem, request.where, "run the recipe again for another request"))
    if kept.outcome == "reject":
        return None
    nomination = replace(request.nomination, reason=f"{kept.reason} ({request.nomination.reason})")
    ledger, move = Ledger.of(workspace), partial(move_alias, workspace)
    return promote(
        ledger,
        move,
        model,
        replace(nomination, evidence_digest=request.digest),
        actor=f"{kept.approver} (signed)",
        expected=request.expected,
    )


def unapproved(workspace: Workspace, model: str) -> Iterator[Problem]:
    """Champions of the model that should have been approved and were not; for the audit."""
    ledger = Ledger.of(workspace)
    awaited = {entry.to_version: entry for entry in ledger.entries(model, CHALLENGER) if entry.rule == AWAITING}
    for entry in ledger.entries(model, CHAMPION):
        asked = awaited.get(entry.to_version)
        if asked is None or entry.rule == "rollback":
            continue
        try:
            found = open_approval(workspace.store, asked)
            if found.state != "approved" or not found.is_behind(entry):
                yield Problem("it became champion without the approval that its policy asks for", entry.where)
        except GraftworkError as error:
            yield from error.problems


def _keep_first(store: Store, request: Request, decision: Decision) -> Decision:
    """The decision that is kept about the request: this one, unless there is one already."""
    _keep(store, f"decision/{request.digest}", DECISION, to_json(decision))
    kept = _decision(store, request)
    assert kept is not None
    return kept


def _decision(store: Store, request: Request) -> Decision | None:
    """What was decided. Raises PromotionRefused for a decision in the store that nobody rightly signed."""
    folder = store.open(f"decision/{request.digest}")
    if folder is None:
        return None
    decision = from_json(Decision, (folder / DECISION).read_text(encoding="utf-8"))
    check(request, decision)
    return decision


def _keep(store: Store, key: str, name: str, text: str) -> None:
    if not store.find(key):
        with store.writing(key) as folder:
            (folder / name).write_text(text, encoding="utf-8")
