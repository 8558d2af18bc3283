"""Approvals: a person's signed yes or no to a promotion that the policy wants one for.

A request says what is to become champion, on what evidence, and who may decide until when; its digest is what a person
signs, so that a signature is good for nothing else. Not here: where requests and decisions are kept, and what follows
from them (registry/approvals.py).
"""

import base64
import binascii
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import ClassVar, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from graftwork.database import now
from graftwork.errors import Problem, PromotionRefused, RecipeError
from graftwork.fingerprint import canonical_json, digest
from graftwork.keys import public_key
from graftwork.policy import ApprovalSection
from graftwork.promotion.history import Nomination

PURPOSE = "graftwork decision 1"  # what is signed begins so: no signature made for something else fits
Outcome = Literal["approve", "reject"]


@dataclass(frozen=True)
class Request:
    """A promotion that waits for a person. expected: the champion that the candidate was judged against.

    approvers: public keys in OpenSSH's form, by name. author: of the recipe, who may not decide; None if anybody may.
    """

    SCHEMA: ClassVar[int] = 1
    model: str
    nomination: Nomination
    expected: int | None
    approvers: dict[str, str]
    author: str | None
    requested_at: str
    expires_at: str

    @property
    def digest(self) -> str:
        """What a decision is about, and signs."""
        return digest(self)

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"{self.model}, version {self.nomination.version}"

    @property
    def is_expired(self) -> bool:
        return datetime.fromisoformat(now()) > datetime.fromisoformat(self.expires_at)


@dataclass(frozen=True)
class Decision:
    """What a person decided about a request. signature: Ed25519, base64, over everything else."""

    SCHEMA: ClassVar[int] = 1
    request: str
    outcome: Outcome
    approver: str
    reason: str
    decided_at: str
    signature: str

    @property
    def message(self) -> bytes:
        """What is signed."""
        fields = asdict(self)
        del fields["signature"]
        return canonical_json({"purpose": PURPOSE} | fields).encode("utf-8")


def make_request(
    model: str, nomination: Nomination, expected: int | None, approval: ApprovalSection, author: str | None
) -> Request:
    """The request for a promotion, from now on. Raises RecipeError if the recipe's author is wanted and not known."""
    if approval.four_eyes and author is None:
        problem = "the policy wants somebody else's approval than the recipe's author, whom the recipe does not name"
        raise RecipeError(Problem(problem, model, "author: NAME in the recipe, one of the policy's approvers or not"))
    barred = author if approval.four_eyes else None
    return Request(model, nomination, expected, dict(approval.approvers), barred, *_from_now(approval.valid))


def renew(request: Request, nomination: Nomination, expected: int | None, author: str | None) -> Request:
    """A request for another promotion of the model, to the same people and for as long, from now on.

    author: of this one's recipe, if that is known.
    """
    valid = datetime.fromisoformat(request.expires_at) - datetime.fromisoformat(request.requested_at)
    barred = request.author and (author or request.author)
    return Request(request.model, nomination, expected, request.approvers, barred, *_from_now(valid))


def _from_now(valid: timedelta) -> tuple[str, str]:
    """When a request is made, and when it expires."""
    start = now()
    return start, (datetime.fromisoformat(start) + valid).isoformat(timespec="seconds")


def decide(request: str, outcome: Outcome, approver: str, reason: str, key: Ed25519PrivateKey) -> Decision:
    """The signed decision about the request with this digest."""
    unsigned = Decision(request, outcome, approver, reason, now(), "")
    return replace(unsigned, signature=base64.b64encode(key.sign(unsigned.message)).decode("ascii"))


def check(request: Request, decision: Decision) -> None:
    """Raises PromotionRefused if the decision is about something else, not by who may decide, too late, or forged."""
    where = request.where
    if decision.request != request.digest:
        problem = f"the decision is about request {decision.request[:12]}, not {request.digest[:12]}"
        raise PromotionRefused(Problem(problem, where, "sign this one"))
    if not decision.reason.strip():
        raise PromotionRefused(Problem("a decision needs a reason", where, "give one with --reason"))
    if decision.approver not in request.approvers:
        known = ", ".join(sorted(request.approvers))
        raise PromotionRefused(Problem(f"{decision.approver!r} may not decide", where, f"the policy names {known}"))
    if decision.approver == request.author:
        problem = f"{decision.approver} wrote the recipe, and the policy wants somebody else"
        raise PromotionRefused(Problem(problem, where, "have another approver decide"))
    if datetime.fromisoformat(decision.decided_at) > datetime.fromisoformat(request.expires_at):
        raise PromotionRefused(expired(request))
    try:
        signature = base64.b64decode(decision.signature, validate=True)
        public_key(request.approvers[decision.approver]).verify(signature, decision.message)
    except (InvalidSignature, binascii.Error) as error:
        problem = f"the signature is not that of {decision.approver}'s key in the policy"
        raise PromotionRefused(Problem(problem, where, "sign with the key that belongs to it")) from error


def expired(request: Request) -> Problem:
    """What is wrong with a decision that comes too late."""
    return Problem(f"the request expired at {request.expires_at}", request.where, "run the recipe again: it asks anew")
