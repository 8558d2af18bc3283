"""The ledger: who made which version the champion, when, why and on what evidence; the alias follows it.

Entries are only added, each compared with the champion its writer saw, each holding the hash of the one before. What
stands now is read off the whole history, never stored beside it. Not here: MLflow; moving an alias is an argument.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby

from sqlalchemy import Connection, insert, select

from graftwork.database import Database
from graftwork.database import ledger as table
from graftwork.errors import Problem, PromotionRefused
from graftwork.faults import fault
from graftwork.promotion.history import (
    AWAITING,
    CHALLENGER,
    CHAMPION,
    LedgerEntry,
    Nomination,
    Standing,
    broken_links,
    follow,
    replay,
)
from graftwork.promotion.witness import Witness
from graftwork.workspace import Workspace

MoveAlias = Callable[[str, str, int], None]  # model, alias, version

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Misplaced:
    """An alias that points elsewhere than the ledger says. found, due: versions, None for none.

    is_cut_off: it is where the last entry moved it from, so that a crash may have come between.
    """

    model: str
    alias: str
    found: int | None
    due: int | None
    is_cut_off: bool

    @property
    def problem(self) -> Problem:
        """What a person is told."""
        by_hand = "it was moved by hand: record that with `graftwork promote --reason`, or move it back"
        return Problem(
            f"the registry has version {self.found or 'none'}, the ledger {self.due or 'none'}",
            f"{self.model}@{self.alias}",
            "a promotion was cut off: the next run or promotion finishes it" if self.is_cut_off else by_hand,
        )


class Ledger:
    """The ledger table of a database, and the witness who sees what is entered."""

    def __init__(self, database: Database, witness: Witness) -> None:
        self.database, self.witness = database, witness

    @classmethod
    def of(cls, workspace: Workspace) -> "Ledger":
        """A workspace's ledger; its witness lies beside the store, where other processes find it, too."""
        return cls(workspace.database, Witness(workspace.store.root / "ledger"))

    def entries(self, model: str, alias: str = CHAMPION) -> tuple[LedgerEntry, ...]:
        """The whole history of an alias, oldest first."""
        with self.database.begin() as connection:
            return _read(connection, model, alias)

    def standing(self, model: str, alias: str = CHAMPION) -> Standing:
        """What that history comes to."""
        return replay(self.entries(model, alias))

    def champion(self, model: str) -> LedgerEntry | None:
        """The promotion by which the present champion came in; None before the first."""
        return self.standing(model).champion

    def anchor(self, model: str) -> LedgerEntry | None:
        """The promotion of the version that retrainings are measured against; None before the first."""
        return self.standing(model).anchor

    def is_revoked(self, model: str, bundle_digest: str) -> bool:
        """True if a rollback left this bundle and nobody has promoted it by hand since."""
        return bundle_digest in self.standing(model).revoked

    def append(
        self, model: str, nomination: Nomination, *, actor: str, expected: int | None, alias: str = CHAMPION
    ) -> LedgerEntry:
        """The new entry; if the version holds the alias already, the entry that gave it.

        expected: the version that the caller saw there, None for none.
        Raises PromotionRefused if there is another one by now, if a rollback left the bundle, or without a reason.
        """
        with self.database.begin(locking=table) as connection:
            history = _read(connection, model, alias)
            standing = replay(history)
            current = standing.champion
            if current is None or not _is_there(current, nomination):
                _check(model, nomination, standing, expected)
                current = _insert(connection, follow(history, model, alias, nomination, actor))
        return self._seen(history, current)

    def roll_back(self, model: str, *, leaving: int, actor: str, reason: str) -> LedgerEntry:
        """The new entry, from the champion to its predecessor; if the last entry did just that, that one.

        leaving: the version that the caller wants to leave. Raises PromotionRefused if it is not the champion, if
        there is none to go back to, or without a reason.
        """
        with self.database.begin(locking=table) as connection:
            history = _read(connection, model, CHAMPION)
            is_done = bool(history) and (history[-1].rule, history[-1].from_version) == ("rollback", leaving)
            if is_done:
                entry = history[-1]
            else:
                target = _rollback_target(model, replay(history), leaving, reason)
                grounds = (target.bundle_digest, target.recipe_digest, target.manifest_digest)
                nomination = Nomination(target.to_version, *grounds, rule="rollback", reason=reason)
                entry = _insert(connection, follow(history, model, CHAMPION, nomination, actor))
        return self._seen(history, entry)

    def all_entries(self) -> tuple[LedgerEntry, ...]:
        """Every entry of every model and alias, each history in its order."""
        with self.database.begin() as connection:
            rows = connection.execute(select(table).order_by(table.c.model, table.c.alias, table.c.sequence))
            return tuple(LedgerEntry(**row._mapping) for row in rows)

    def verify(self) -> tuple[Problem, ...]:
        """What was edited, taken out, put in between or cut off, by the chain itself and by its witness."""
        entries = self.all_entries()
        histories = groupby(entries, key=lambda entry: (entry.model, entry.alias))
        broken = [problem for _, history in histories for problem in broken_links(history)]
        return (*broken, *self.witness.contradictions(entries))

    def _seen(self, history: Iterable[LedgerEntry], entry: LedgerEntry) -> LedgerEntry:
        fault("promotion.before_witness")
        self.witness.see((*history, entry))
        return entry


def promote(
    ledger: Ledger,
    move_alias: MoveAlias,
    model: str,
    nomination: Nomination,
    *,
    actor: str,
    expected: int | None,
    alias: str = CHAMPION,
) -> LedgerEntry:
    """Enter the promotion, then move the alias; repeated after a crash in between, it does what is left.

    Raises PromotionRefused as `Ledger.append` does; then nothing was moved.
    """
    entry = ledger.append(model, nomination, actor=actor, expected=expected, alias=alias)
    fault("promotion.after_ledger")
    move_alias(model, alias, entry.to_version)
    fault("promotion.after_alias")
    return entry


def rollback(
    ledger: Ledger, move_alias: MoveAlias, model: str, *, leaving: int, actor: str, reason: str
) -> LedgerEntry:
    """Put the champion before `leaving` back and revoke the bundle that is left; safe to repeat after a crash.

    leaving: the version that serves now, as the registry's alias says. Raises PromotionRefused as `Ledger.roll_back`.
    """
    entry = ledger.roll_back(model, leaving=leaving, actor=actor, reason=reason)
    fault("promotion.after_ledger")
    move_alias(model, CHAMPION, entry.to_version)
    fault("promotion.after_alias")
    return entry


def reconcile(ledger: Ledger, move_alias: MoveAlias, model: str, aliases: Mapping[str, int]) -> tuple[Problem, ...]:
    """Finish what a crash left between ledger and alias; the aliases that somebody moved by hand, as problems.

    aliases: where they point in the registry. One that still points where the last entry moved it from is moved on.
    """
    problems = []
    for misplaced in find_misplaced(ledger, model, aliases):
        due = misplaced.due
        if misplaced.is_cut_off and due is not None:
            log.warning(
                "%s@%s: a promotion was cut off, moving the alias on to version %d", model, misplaced.alias, due
            )
            move_alias(model, misplaced.alias, due)
        else:
            problems.append(misplaced.problem)
    return tuple(problems)


def find_misplaced(ledger: Ledger, model: str, aliases: Mapping[str, int]) -> Iterator[Misplaced]:
    """The aliases that are not where the ledger says. aliases: where they point in the registry."""
    for alias in (CHAMPION, CHALLENGER):
        found, history = aliases.get(alias), ledger.entries(model, alias)
        due, before = (history[-1].to_version, history[-1].from_version) if history else (None, None)
        if found != due:
            yield Misplaced(model, alias, found, due, is_cut_off=due is not None and found == before)


def check_reason(where: str, reason: str) -> None:
    """Raise PromotionRefused without one. where: the version, as messages name it."""
    if not reason.strip():
        raise PromotionRefused(Problem("a promotion needs a reason", where, "give one with --reason"))


def _is_there(current: LedgerEntry, nomination: Nomination) -> bool:
    """True if the nomination would change nothing; a further request for approval does."""
    is_new_request = nomination.rule == AWAITING and current.evidence_digest != nomination.evidence_digest
    return current.to_version == nomination.version and not is_new_request


def _check(model: str, nomination: Nomination, standing: Standing, expected: int | None) -> None:
    """Raise PromotionRefused if the nomination may not follow on this standing."""
    where = f"{model}, version {nomination.version}"
    check_reason(where, nomination.reason)
    if nomination.rule != "by hand" and nomination.bundle_digest in standing.revoked:
        problem = "a rollback left this bundle, so only a person may promote it again"
        raise PromotionRefused(Problem(problem, where, "`graftwork promote --reason`"))
    found = standing.champion.to_version if standing.champion else None
    if found != expected:
        problem = f"it was compared with version {expected or 'none'}, the champion is version {found or 'none'} now"
        raise PromotionRefused(Problem(problem, where, "run again, to judge it against that one"))


def _rollback_target(model: str, standing: Standing, leaving: int, reason: str) -> LedgerEntry:
    champion, target = standing.champion, standing.predecessor
    if not reason.strip():
        raise PromotionRefused(Problem("a rollback needs a reason", model, "give one with --reason"))
    if champion is None or champion.to_version != leaving:
        found = "none" if champion is None else f"version {champion.to_version}"
        raise PromotionRefused(Problem(f"the champion is {found}, not version {leaving}", model))
    if target is None:
        problem = f"there is no champion before version {leaving} to go back to"
        raise PromotionRefused(Problem(problem, model, "promote another version with `graftwork promote --reason`"))
    return target


def _read(connection: Connection, model: str, alias: str) -> tuple[LedgerEntry, ...]:
    rows = select(table).where(table.c.model == model, table.c.alias == alias).order_by(table.c.sequence)
    return tuple(LedgerEntry(**row._mapping) for row in connection.execute(rows))


def _insert(connection: Connection, entry: LedgerEntry) -> LedgerEntry:
    connection.execute(insert(table).values(asdict(entry)))
    return entry
