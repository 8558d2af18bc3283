"""Moving aliases: every move is a ledger entry first, whoever asks for it."""

import getpass
import logging
import os
import socket
from functools import partial

from graftwork.policy import ApprovalSection
from graftwork.promotion.approval import make_request
from graftwork.promotion.gate import Verdict
from graftwork.promotion.history import CHALLENGER, CHAMPION, LedgerEntry, Nomination
from graftwork.promotion.ledger import Ledger, check_reason, promote, reconcile, rollback
from graftwork.registry.approvals import ask, request_by_hand
from graftwork.registry.versions import ModelVersion, move_alias, read_aliases, read_bundle, resolve_version
from graftwork.training.bundle import ServingBundle
from graftwork.workspace import Workspace

AUTOMATIC = "graftwork"

log = logging.getLogger(__name__)


def nominate(
    workspace: Workspace,
    version: ModelVersion,
    bundle: ServingBundle,
    verdict: Verdict,
    champion: int | None,
    approval: ApprovalSection | None = None,
    author: str | None = None,
) -> LedgerEntry:
    """Make the judged version the champion, or the challenger if the verdict is not to promote it.

    The champion, judged again, stays what it is: only a person can take it back. champion: the version it was judged
    against. approval: who has to approve, if somebody has to; until then the version is challenger. author: of the
    recipe. Raises PromotionRefused if the champion is another one by now.
    """
    is_promoted = verdict.outcome == "promote"
    nomination = Nomination(
        version=version.version,
        bundle_digest=bundle.digest,
        recipe_digest=bundle.recipe_digest,
        manifest_digest=bundle.manifest,
        rule=verdict.rule if is_promoted else "registered",
        reason=verdict.reason,
        evidence_digest=verdict.digest,
        policy_digest=verdict.policy,
    )
    ledger, move = Ledger.of(workspace), partial(move_alias, workspace)
    for problem in reconcile(ledger, move, version.name, read_aliases(workspace, version.name)):
        log.warning("%s", problem)
    held = ledger.champion(version.name)
    is_held = held is not None and held.to_version == version.version
    if is_promoted and not is_held and approval is not None:
        nomination = ask(workspace, make_request(version.name, nomination, champion, approval, author))
    elif is_promoted or is_held:
        return promote(ledger, move, version.name, nomination, actor=AUTOMATIC, expected=champion)
    return _challenge(workspace, version.name, nomination, actor=AUTOMATIC)


def promote_by_hand(
    workspace: Workspace, model: str, version: int, reason: str, actor: str | None = None
) -> LedgerEntry:
    """Make a version the champion because a person says so. actor: who that is; by default whoever is at the keyboard.

    Where the model's policy wants a signature it becomes challenger, and a request waits for one.
    Raises RegistryError if there is no such version, PromotionRefused without a reason.
    """
    check_reason(f"{model}, version {version}", reason)
    found = resolve_version(workspace, f"{model}/{version}")
    bundle = read_bundle(workspace, found)
    nomination = Nomination(version, bundle.digest, bundle.recipe_digest, bundle.manifest, "by hand", reason)
    ledger, move, who = Ledger.of(workspace), partial(move_alias, workspace), actor or person()
    champion = ledger.champion(model)
    expected = champion.to_version if champion else None
    request = None if expected == version else request_by_hand(workspace, found, nomination, champion)
    if request is not None:
        return _challenge(workspace, model, ask(workspace, request), actor=who)
    return promote(ledger, move, model, nomination, actor=who, expected=expected)


def roll_back(workspace: Workspace, model: str, reason: str, actor: str | None = None) -> LedgerEntry:
    """Put the previous champion back; no policy stands in the way. Raises PromotionRefused if there is none."""
    serving = resolve_version(workspace, f"{model}@{CHAMPION}").version
    ledger = Ledger.of(workspace)
    *_, last = (None, *ledger.entries(model))
    if last is not None and last.rule != "rollback" and last.from_version == serving:
        serving = last.to_version  # a promotion was cut off before it moved the alias: that one is to be left
    move = partial(move_alias, workspace)
    return rollback(ledger, move, model, leaving=serving, actor=actor or person(), reason=reason)


def _challenge(workspace: Workspace, model: str, nomination: Nomination, actor: str) -> LedgerEntry:
    ledger = Ledger.of(workspace)
    seen = ledger.standing(model, CHALLENGER).champion
    expected, move = seen.to_version if seen else None, partial(move_alias, workspace)
    return promote(ledger, move, model, nomination, actor=actor, expected=expected, alias=CHALLENGER)


def person() -> str:
    """Who is at the keyboard: user@host; the user's number in a container that has no name for it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
