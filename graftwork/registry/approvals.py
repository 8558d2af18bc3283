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
from graftwork.promotion.approval import Decision, Request, check, expired, make_request, renew
from graftwork.promotion.history import AWAITING, CHALLENGER, CHAMPION, LedgerEntry, Nomination
from graftwork.promotion.ledger import Ledger, promote
from graftwork.registry.client import reach_mlflow
from graftwork.registry.tracking import RUN_ID
from graftwork.registry.versions import ModelVersion, move_alias
from graftwork.storage import Store
from graftwork.training.plan import ResolvedRun, open_run
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


def ask(workspace: Workspace, request: Request) -> Nomination:
    """The nomination as challenger of what was to become champion, with the request that now waits for a person.

    What was asked before on the same grounds, and is neither decided nor expired, is not asked again.
    """
    nomination, champion = request.nomination, request.expected
    for known in find_requests(workspace, request.model, nomination.version):
        if known.state == "open" and (known.request.nomination, known.request.expected) == (nomination, champion):
            request = known.request
    _keep(workspace.store, f"request/{request.digest}", RECORD, to_json(request))
    reason = f"{nomination.reason.rstrip('. ')}. It waits for an approval until {request.expires_at}."
    return replace(nomination, rule=AWAITING, reason=reason, evidence_digest=request.digest)


def find_requests(workspace: Workspace, model: str, version: int | None = None) -> Iterator[Approval]:
    """Every request for the model, or one version of it, oldest first, with what became of it."""
    for entry in Ledger.of(workspace).entries(model, CHALLENGER):
        if entry.rule == AWAITING and version in (None, entry.to_version):
            yield open_approval(workspace.store, entry)


def request_by_hand(
    workspace: Workspace, version: ModelVersion, nomination: Nomination, champion: LedgerEntry | None
) -> Request | None:
    """The request that a promotion by hand has to make; None if nobody has to sign.

    Somebody has to if the policy that the version was judged by says so; else, if the champion was signed for, or the
    version was asked about before, the same people as then.
    """
    expected = champion.to_version if champion else None
    run = _run_of(workspace, version)
    author = run.recipe.get("author") if run else None
    if run is not None and run.policy.approval is not None:
        return make_request(version.name, nomination, expected, run.policy.approval, author)
    found = [
        asked.request
        for asked in find_requests(workspace, version.name)
        if asked.request.nomination.version == version.version or (champion and asked.is_behind(champion))
    ]
    return renew(found[-1], nomination, expected, author) if found else None


def _run_of(workspace: Workspace, version: ModelVersion) -> ResolvedRun | None:
    """What the run that made the version had resolved, if this store has it."""
    if version.adopted is not None:
        return None
    with reach_mlflow(workspace.settings) as client:
        run_id = client.get_run(version.mlflow_run).data.tags.get(RUN_ID, "")
    return open_run(workspace.store, run_id) if workspace.store.find(f"run/{run_id}") else None


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
    ledger, move = Ledger.of(workspace), partial(move_alias, workspace)
    history = ledger.entries(model)
    done = next((entry for entry in history if asked.is_behind(entry)), None)
    if done is None and request.is_expired:
        raise PromotionRefused(expired(request))
    if done is not None and done != history[-1]:
        problem = f"it was carried out before, at {done.created_at}, and is good for once"
        raise PromotionRefused(Problem(problem, request.where, "`graftwork promote` asks anew"))
    kept = _keep_first(workspace.store, request, decision)
    if kept.outcome != decision.outcome:
        problem = f"{kept.approver} decided to {kept.outcome} at {kept.decided_at}: {kept.reason}"
        raise PromotionRefused(Problem(problem, request.where, "run the recipe again for another request"))
    if kept.outcome == "reject":
        return None
    nomination = replace(request.nomination, reason=f"{kept.reason} ({request.nomination.reason})")
    return promote(
        ledger,
        move,
        model,
        replace(nomination, evidence_digest=request.digest),
        actor=f"{kept.approver} (signed)",
        expected=request.expected,
    )


def unapproved(workspace: Workspace, model: str) -> Iterator[Problem]:
    """Champions of the model that should have been approved and were not; for the audit.

    A version has to be, once it was asked about.
    """
    ledger = Ledger.of(workspace)
    awaited = [entry for entry in ledger.entries(model, CHALLENGER) if entry.rule == AWAITING]
    for entry in ledger.entries(model, CHAMPION):
        asked = [
            each for each in awaited if each.to_version == entry.to_version and each.created_at <= entry.created_at
        ]
        if not asked or entry.rule == "rollback":
            continue
        try:
            found = (open_approval(workspace.store, each) for each in asked)
            if not any(each.state == "approved" and each.is_behind(entry) for each in found):
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
