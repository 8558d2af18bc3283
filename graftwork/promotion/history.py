"""A model's history in the ledger: its entries, how one follows on another, and what they come to.

Nothing here touches the database: every question about a history is answered from its entries.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

from graftwork.database import now
from graftwork.errors import AuditError, Problem
from graftwork.fingerprint import digest

CHAMPION, CHALLENGER = "champion", "challenger"
AWAITING: Literal["awaiting approval"] = "awaiting approval"
BEFORE_THE_FIRST = ""
Rule = Literal[
    "baselines", "superiority", "non-inferiority", "by hand", "adopted", "rollback", "registered", "awaiting approval"
]
# A retraining that is only 'not worse' may not become the measure of the next: quality would walk off in small steps.
ANCHORING = frozenset({"baselines", "superiority", "by hand", "adopted"})


@dataclass(frozen=True)
class Nomination:
    """A version for an alias, and on what grounds. The digests name stored records.

    rule: `registered` or `awaiting approval` for the challenger, else how it earned its place.
    """

    version: int
    bundle_digest: str
    recipe_digest: str
    manifest_digest: str
    rule: Rule
    reason: str
    evidence_digest: str | None = None
    policy_digest: str | None = None


@dataclass(frozen=True)
class LedgerEntry:
    """One row of the ledger; the digests describe `to_version`. from_version: None for a model's first champion."""

    SCHEMA: ClassVar[int] = 1
    model: str
    alias: str
    sequence: int
    from_version: int | None
    to_version: int
    bundle_digest: str
    recipe_digest: str
    manifest_digest: str
    rule: Rule
    actor: str
    reason: str
    evidence_digest: str | None
    policy_digest: str | None
    created_at: str
    previous_hash: str
    hash: str

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"{self.model}@{self.alias}, entry {self.sequence}"


@dataclass(frozen=True)
class Standing:
    """What a history comes to. reigns: promotions that still count, the champion's last. revoked: bundle digests."""

    reigns: tuple[LedgerEntry, ...]
    revoked: frozenset[str]

    @property
    def champion(self) -> LedgerEntry | None:
        """The promotion by which the present champion came in."""
        return self.reigns[-1] if self.reigns else None

    @property
    def anchor(self) -> LedgerEntry | None:
        """The last champion that earned it: by beating the baselines or another model, or by hand."""
        return next((entry for entry in reversed(self.reigns) if entry.rule in ANCHORING), None)

    @property
    def predecessor(self) -> LedgerEntry | None:
        """The champion to go back to: the last one before this that no rollback has left."""
        left = self.revoked | {entry.bundle_digest for entry in self.reigns[-1:]}
        return next((entry for entry in reversed(self.reigns) if entry.bundle_digest not in left), None)


def replay(entries: Iterable[LedgerEntry]) -> Standing:
    """Where a model stands after these entries: promotions pile up, a rollback takes off those above its target."""
    reigns: list[LedgerEntry] = []
    revoked: set[str] = set()
    for entry in entries:
        if entry.rule != "rollback":
            reigns.append(entry)
            revoked.discard(entry.bundle_digest)
            continue
        revoked |= {left.bundle_digest for left in reigns[-1:]}
        reigns = reigns[:-1]
        while reigns and reigns[-1].to_version != entry.to_version:
            reigns.pop()
        if not reigns:
            problem = f"entry {entry.sequence} goes back to version {entry.to_version}, which was never champion"
            raise AuditError(
                Problem(problem, f"the ledger of {entry.model}", "`graftwork audit` lists what was altered")
            )
    return Standing(tuple(reigns), frozenset(revoked))


def follow(history: Sequence[LedgerEntry], model: str, alias: str, nomination: Nomination, actor: str) -> LedgerEntry:
    """The entry by which the nominated version takes the alias after this history."""
    last = history[-1] if history else None
    grounds = asdict(nomination)
    version = grounds.pop("version")
    fields = grounds | {
        "model": model,
        "alias": alias,
        "sequence": 1 if last is None else last.sequence + 1,
        "from_version": None if last is None else last.to_version,
        "to_version": version,
        "actor": actor,
        "created_at": now(),
        "previous_hash": BEFORE_THE_FIRST if last is None else last.hash,
    }
    return LedgerEntry(**fields, hash=digest(fields))


def broken_links(history: Iterable[LedgerEntry]) -> Iterator[Problem]:
    """Where a history, in the order of its numbers, is not the chain that was written."""
    sequence, previous = 0, BEFORE_THE_FIRST
    for entry in history:
        fields = asdict(entry)
        if fields.pop("hash") != digest(fields):
            yield Problem("it was altered after it was written: its hash does not fit", entry.where)
        if entry.sequence != sequence + 1:
            yield Problem(f"entries {sequence + 1} to {entry.sequence - 1} are missing before it", entry.where)
        elif entry.previous_hash != previous:
            yield Problem("it does not follow on the entry before it, which was replaced", entry.where)
        sequence, previous = entry.sequence, entry.hash
