"""The ledger: who made which version the champion, when, why and on what evidence; the alias follows it.

Entries are only added, each compared with the champion its writer saw, each holding the hash of the one before. What
stands now is read off the whole history, never stored beside it. Not here: MLflow; moving an alias is an argument.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import groupby

from sqlalchemy import Connection, insert, select

from graftwork.database import Database
from graftwork.database import ledger as table
from graftwork.errors import Problem, PromotionRefused
from graftwork.faults import fault
from graftwork.promotion.history import (
    CHALLENGER,
    CHAMPION,
    LedgerEntry,
    Nomination,
    Standing,
    broken_links,
    follow,
    replay,
)

MoveAlias = Callable[[str, str, int], None]  # model, alias, version

log = logging.getLogger(__name__)


class Ledger:
    """The ledger table of a database."""

    def __init__(self, database: Database) -> None:
        self.database = database

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
            if current is not None and current.to_version == nomination.version:
                return current
            _check(model, nomination, standing, expected)
            return _insert(connection, follow(history, model, alias, nomination, actor))

    def roll_back(self, model: str, *, leaving: int, actor: str, reason: str) -> LedgerEntry:
        """The new entry, from the champion to its predecessor; if the last entry did just that, that one.

        leaving: the version that the caller wants to leave. Raises PromotionRefused if it is not the champion, if
        there is none to go back to, or without a reason.
        """
        with self.database.begin(locking=table) as connection:
            history = _read(connection, model, CHAMPION)
            if history and (history[-1].rule, history[-1].from_version) == ("rollback", leaving):
                return history[-1]
            target = _rollback_target(model, replay(history), leaving, reason)
            grounds = (target.bundle_digest, target.recipe_digest, target.manifest_digest)
            nomination = Nomination(target.to_version, *grounds, rule="rollback", reason=reason)
            return _insert(connection, follow(history, model, CHAMPION, nomination, actor))

    def verify(self) -> tuple[Problem, ...]:
        """What was edited, taken out or put in between. A cut tail leaves no trace here: compare with the aliases."""
        with self.database.begin() as connection:
            rows = connection.execute(select(table).order_by(table.c.model, table.c.alias, table.c.sequence))
            entries = [LedgerEntry(**row._mapping) for row in rows]
        histories = groupby(entries, key=lambda entry: (entry.model, entry.alias))
        return tuple(problem for _, history in histories for problem in broken_links(history))


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
    for alias in (CHAMPION, CHALLENGER):
        found, history = aliases.get(alias), ledger.entries(model, alias)
        due = history[-1].to_version if history else None
        if found == due:
            continue
        if due is not None and found == history[-1].from_version:
            log.warning("%s@%s: a promotion was cut off, moving the alias on to version %d", model, alias, due)
            move_alias(model, alias, due)
            continue
        problem = f"the registry has version {found or 'none'}, the ledger {due or 'none'}"
        hint = "it was moved by hand: record that with `graftwork promote --reason`, or move it back"
        problems.append(Problem(problem, f"{model}@{alias}", hint))
    return tuple(problems)


def _check(model: str, nomination: Nomination, standing: Standing, expected: int | None) -> None:
    """Raise PromotionRefused if the nomination may not follow on this standing."""
    where = f"{model}, version {nomination.version}"
    if not nomination.reason.strip():
        raise PromotionRefused(Problem("a promotion needs a reason", where, "give one with --reason"))
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
