"""Approvals: a signed word of who may decide, about what was judged, in time; the ledger and the audit hold it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tiny import write_project

from graftwork.checkpoints.retrieve import retrieve_checkpoint
from graftwork.data.manifest import validate_data
from graftwork.errors import PromotionRefused, RecipeError
from graftwork.evaluation.evaluation import Evaluation
from graftwork.fingerprint import to_json
from graftwork.keys import read_private_key
from graftwork.models.catalog import FAMILIES
from graftwork.policy import ApprovalSection, Policy
from graftwork.promotion import approval as approving
from graftwork.promotion.approval import Decision, decide
from graftwork.promotion.gate import Verdict
from graftwork.promotion.history import LedgerEntry
from graftwork.recipe import load_recipe
from graftwork.registry.aliases import nominate, promote_by_hand, roll_back
from graftwork.registry.approvals import Approval, carry_out, find_requests
from graftwork.registry.audit import audit
from graftwork.registry.registration import register_model
from graftwork.registry.tracking import log_training
from graftwork.registry.versions import ModelVersion, read_aliases
from graftwork.training.bundle import ServingBundle
from graftwork.training.engine import run_stages
from graftwork.training.plan import plan_run
from graftwork.workspace import Workspace

MODEL, AUTHOR = "review-sentiment", "carol"
KEYS = {name: Ed25519PrivateKey.generate() for name in ("alice", "bob", AUTHOR, "mallory")}


def public_line(name: str) -> str:
    """What stands in the person's .pub file."""
    public = KEYS[name].public_key()
    return public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


@pytest.fixture
def approval() -> ApprovalSection:
    """Three people may approve, but not what they wrote."""
    return ApprovalSection(approvers={name: public_line(name) for name in ("alice", "bob", AUTHOR)})


@pytest.fixture
def ask(
    workspace: Workspace,
    register: Callable[[], ModelVersion],
    bundle: ServingBundle,
    verdict: Verdict,
    approval: ApprovalSection,
) -> Callable[[], LedgerEntry]:
    """What a run does whose verdict is to promote."""
    return lambda: nominate(workspace, register(), bundle, verdict, None, approval, AUTHOR)


@pytest.fixture
def asked(workspace: Workspace, ask: Callable[[], LedgerEntry]) -> Approval:
    """The request that waits after a first run."""
    ask()
    (found,) = find_requests(workspace, MODEL)
    return found


def yes(asked: Approval, name: str = "alice", **changes: str) -> Decision:
    """An approval by someone; changes are made before it is signed."""
    facts = {"request": asked.request.digest, "outcome": "approve", "approver": name, "reason": "it reads well"}
    return decide(**(facts | changes), key=KEYS[name])  # type: ignore[arg-type]


def test_without_an_approval_it_is_challenger(workspace: Workspace, ask: Callable[[], LedgerEntry]) -> None:
    """The gate's word alone moves no champion; asked again, nothing more is asked."""
    entry = ask()
    assert (entry.alias, entry.rule) == ("challenger", "awaiting approval")
    assert ask() == entry
    assert read_aliases(workspace, MODEL) == {"challenger": 1}
    assert [each.state for each in find_requests(workspace, MODEL)] == ["open"]
    assert audit(workspace).problems == ()


def test_an_approval_makes_it_champion_once(
    workspace: Workspace, asked: Approval, ask: Callable[[], LedgerEntry]
) -> None:
    """By the rule that it was judged by, with the approver's name and reason; again, it is the same entry."""
    entry = carry_out(workspace, MODEL, yes(asked))
    assert entry is not None
    assert (entry.rule, entry.actor, entry.evidence_digest) == ("baselines", "alice (signed)", asked.request.digest)
    assert entry.reason.startswith("it reads well (")
    assert carry_out(workspace, MODEL, yes(asked, "bob")) == entry
    assert ask() == entry
    assert read_aliases(workspace, MODEL)["champion"] == 1
    assert [each.decision.approver for each in find_requests(workspace, MODEL) if each.decision] == ["alice"]
    assert audit(workspace).problems == ()


def test_a_rejection_stands(workspace: Workspace, asked: Approval) -> None:
    """Nobody approves afterwards what was rejected."""
    assert carry_out(workspace, MODEL, yes(asked, outcome="reject")) is None
    with pytest.raises(PromotionRefused, match="alice decided to reject"):
        carry_out(workspace, MODEL, yes(asked, "bob"))
    assert read_aliases(workspace, MODEL) == {"challenger": 1}


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        (lambda asked: yes(asked, "mallory"), "'mallory' may not decide"),
        (lambda asked: yes(asked, AUTHOR), "carol wrote the recipe"),
        (lambda asked: replace(yes(asked, "mallory"), approver="alice"), "not that of alice's key"),
        (lambda asked: replace(yes(asked, outcome="reject"), outcome="approve"), "not that of alice's key"),
        (lambda asked: replace(yes(asked), reason="it was bob's idea"), "not that of alice's key"),
        (lambda asked: replace(yes(asked), signature="***"), "not that of alice's key"),
        (lambda asked: yes(asked, request="9" * 64), "nobody asked for a decision on 999999999999"),
        (lambda asked: yes(asked, reason=" "), "needs a reason"),
    ],
)
def test_a_decision_that_is_not_rightly_signed_is_refused(
    workspace: Workspace, asked: Approval, forge: Callable[[Approval], Decision], said: str
) -> None:
    """And nothing is kept of it: the next one who may decides."""
    with pytest.raises(PromotionRefused, match=said):
        carry_out(workspace, MODEL, forge(asked))
    assert read_aliases(workspace, MODEL) == {"challenger": 1}
    assert carry_out(workspace, MODEL, yes(asked, "bob")) is not None


def test_a_request_expires_and_can_be_made_again(
    workspace: Workspace, asked: Approval, ask: Callable[[], LedgerEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A week and a day later nobody approves it any more, however the decision is dated; the next run asks anew."""
    early = yes(asked)
    later = asked.request.expires_at[:-1] if asked.request.expires_at.endswith("Z") else asked.request.expires_at
    monkeypatch.setattr(approving, "now", lambda: _after(later, timedelta(days=1)))
    for late in (early, yes(asked)):
        with pytest.raises(PromotionRefused, match="the request expired"):
            carry_out(workspace, MODEL, late)
    ask()
    first, second = find_requests(workspace, MODEL)
    assert (first.state, second.state) == ("expired", "open")
    assert carry_out(workspace, MODEL, yes(second)) is not None


def test_a_promotion_by_hand_asks_too(workspace: Workspace, asked: Approval, register_other: ModelVersion) -> None:
    """Neither what waits nor what would follow on an approved champion goes around it; going back is always allowed."""
    assert promote_by_hand(workspace, MODEL, 1, "I say so").alias == "challenger"
    assert read_aliases(workspace, MODEL) == {"challenger": 1}
    carry_out(workspace, MODEL, yes(asked))
    with pytest.raises(PromotionRefused, match="no champion before"):
        roll_back(workspace, MODEL, "complaints")
    with pytest.raises(PromotionRefused, match="needs a reason"):
        promote_by_hand(workspace, MODEL, register_other.version, " ")
    entry = promote_by_hand(workspace, MODEL, register_other.version, "the gate is too strict", "dora")
    assert (entry.alias, entry.rule, entry.actor) == ("challenger", "awaiting approval", "dora")
    assert entry.reason.startswith("the gate is too strict. It waits for an approval until ")
    assert promote_by_hand(workspace, MODEL, register_other.version, "the gate is too strict", "dora") == entry
    *_, last = find_requests(workspace, MODEL)
    decision = yes(last)
    champion = carry_out(workspace, MODEL, decision)
    assert champion is not None
    assert carry_out(workspace, MODEL, decision) == champion
    assert (champion.rule, champion.to_version, champion.actor) == ("by hand", 2, "alice (signed)")
    assert roll_back(workspace, MODEL, "complaints").to_version == 1
    with pytest.raises(PromotionRefused, match="and is good for once"):
        carry_out(workspace, MODEL, decision)
    again = promote_by_hand(workspace, MODEL, 2, "the gate is too strict")
    assert (again.alias, read_aliases(workspace, MODEL)["champion"]) == ("challenger", 1)
    *_, before, last = find_requests(workspace, MODEL)
    assert (before.state, last.state) == ("approved", "open")
    carry_out(workspace, MODEL, yes(last, outcome="reject"))
    promote_by_hand(workspace, MODEL, 2, "the gate is too strict")
    *_, before, last = find_requests(workspace, MODEL)
    assert (before.state, last.state) == ("rejected", "open")
    assert audit(workspace).problems == ()


def test_a_champion_from_before_the_policy_needs_no_signature_for_what_it_was(
    workspace: Workspace,
    register: Callable[[], ModelVersion],
    bundle: ServingBundle,
    verdict: Verdict,
    approval: ApprovalSection,
    register_other: ModelVersion,
) -> None:
    """It is asked about when it is to come back; that it served before is no finding of the audit."""
    nominate(workspace, register(), bundle, verdict, None)
    other = replace(bundle, digest=register_other.bundle)
    nominate(workspace, register_other, other, replace(verdict, rule="superiority"), 1, approval, AUTHOR)
    *_, asked = find_requests(workspace, MODEL)
    carry_out(workspace, MODEL, yes(asked))
    assert promote_by_hand(workspace, MODEL, 1, "as it was").alias == "challenger"
    assert audit(workspace).problems == ()
    *_, asked = find_requests(workspace, MODEL)
    assert carry_out(workspace, MODEL, yes(asked)) is not None
    assert audit(workspace).problems == ()


def test_what_the_gate_kept_is_asked_about_by_its_own_policy(
    tmp_path: Path,
    workspace: Workspace,
    tiny_checkpoint: Path,
    evaluation: Evaluation,
    verdict: Verdict,
    approval: ApprovalSection,
) -> None:
    """Nothing was ever signed for this model; its author is the one that its recipe names."""
    write_project(tmp_path, tiny_checkpoint)
    path = tmp_path / "recipe.yaml"
    path.write_text(f"author: {AUTHOR}\n{path.read_text()}")
    recipe = load_recipe(path)
    manifest, lock = validate_data(recipe, workspace), retrieve_checkpoint(recipe, workspace, FAMILIES)
    run = plan_run(recipe, manifest, lock, Policy(approval=approval), workspace.store)
    bundle = run_stages(run, workspace, lambda event: None, lambda: False)
    mlflow_run = log_training(workspace, run.run_id, run.plan, bundle.stages)
    kept = replace(verdict, outcome="keep")
    version = register_model(workspace, mlflow_run, bundle, manifest, evaluation, kept)
    assert nominate(workspace, version, bundle, kept, None, approval, AUTHOR).rule == "registered"
    assert promote_by_hand(workspace, "tiny", 1, "I like it").rule == "awaiting approval"
    (asked,) = find_requests(workspace, "tiny")
    assert (asked.request.author, read_aliases(workspace, "tiny")) == (AUTHOR, {"challenger": 1})
    entry = carry_out(workspace, "tiny", yes(asked))
    assert entry is not None
    assert (entry.rule, entry.to_version) == ("by hand", 1)


def test_an_audit_finds_what_nobody_approved(
    workspace: Workspace, asked: Approval, bundle: ServingBundle, verdict: Verdict, register: Callable[[], ModelVersion]
) -> None:
    """Whoever may write to the ledger left the approval out."""
    nominate(workspace, register(), bundle, verdict, None)
    (problem,) = audit(workspace).problems
    assert "without the approval that its policy asks for" in problem.message


def test_a_recipe_without_an_author_can_not_have_four_eyes(
    workspace: Workspace,
    register: Callable[[], ModelVersion],
    bundle: ServingBundle,
    verdict: Verdict,
    approval: ApprovalSection,
) -> None:
    """Unless the policy does not ask for them."""
    with pytest.raises(RecipeError, match="author: NAME in the recipe"):
        nominate(workspace, register(), bundle, verdict, None, approval, None)
    one_pair = approval.model_copy(update={"four_eyes": False})
    assert nominate(workspace, register(), bundle, verdict, None, one_pair, None).rule == "awaiting approval"


@pytest.mark.parametrize("passphrase", [None, "open sesame"])
def test_keys_are_what_ssh_keygen_writes(tmp_path: Path, passphrase: str | None) -> None:
    """With a passphrase or without."""
    encryption = (
        serialization.NoEncryption()
        if passphrase is None
        else serialization.BestAvailableEncryption(passphrase.encode())
    )
    content = KEYS["alice"].private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, encryption)
    (tmp_path / "id_ed25519").write_bytes(content)
    key = read_private_key(tmp_path / "id_ed25519", lambda: passphrase or "")
    assert key.public_key() == KEYS["alice"].public_key()


def test_other_keys_are_refused(tmp_path: Path) -> None:
    """It says which file, and how to make one."""
    (tmp_path / "key").write_text("not a key")
    with pytest.raises(RecipeError, match="ssh-keygen -t ed25519"):
        read_private_key(tmp_path / "key", lambda: "")
    with pytest.raises(RecipeError, match="can't be read"):
        read_private_key(tmp_path / "none", lambda: "")


def test_a_decision_survives_being_copied(asked: Approval) -> None:
    """As text, from one machine's terminal into a form on another's page."""
    from graftwork.fingerprint import from_json

    decision = yes(asked)
    assert from_json(Decision, to_json(decision)) == decision


def _after(moment: str, length: timedelta) -> str:
    from datetime import datetime

    return (datetime.fromisoformat(moment) + length).isoformat()
