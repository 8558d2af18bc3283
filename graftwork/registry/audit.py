"""What is not as the ledger says: in the ledger itself, in the registry's aliases, and in the versions they point to.

An audit changes nothing. What a crash cut off is finished by the next run, promotion or rollback; the rest is for a
person.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from graftwork.errors import AuditError, Problem
from graftwork.promotion.history import CHALLENGER, CHAMPION, Standing, replay
from graftwork.promotion.ledger import Ledger, find_misplaced
from graftwork.registry.approvals import unapproved
from graftwork.registry.versions import RegisteredModel, read_registry
from graftwork.workspace import Workspace


@dataclass(frozen=True)
class Audit:
    """What was looked at, and what a person should look at. entries: of the ledger. models: names."""

    models: tuple[str, ...]
    entries: int
    problems: tuple[Problem, ...]


def audit(workspace: Workspace) -> Audit:
    """The ledger against itself, its witness and the registry. Raises ServiceUnavailable if the registry is away."""
    ledger, registry = Ledger.of(workspace), read_registry(workspace)
    entries = ledger.all_entries()
    ours = {entry.model for entry in entries} | {name for name, model in registry.items() if _is_ours(model)}
    problems, standings = [*ledger.verify()], {}
    for (name, alias), history in groupby(entries, key=lambda entry: (entry.model, entry.alias)):
        try:
            standings[name, alias] = replay(history)
        except AuditError as error:  # a history that no sequence of promotions and rollbacks gives
            problems += error.problems
    for name in sorted(ours):
        model = registry.get(name, RegisteredModel({}, {}))
        problems += [each.problem for each in find_misplaced(ledger, name, model.aliases)]
        if (name, CHAMPION) in standings:
            problems += _lost_champions(standings[name, CHAMPION], name, model)
        problems += unapproved(workspace, name)
    return Audit(tuple(sorted(ours)), len(entries), tuple(problems))


def _is_ours(model: RegisteredModel) -> bool:
    """True for a model whose champion or challenger Graftwork made."""
    return any(model.aliases.get(alias) in model.bundles for alias in (CHAMPION, CHALLENGER))


def _lost_champions(standing: Standing, name: str, model: RegisteredModel) -> Iterator[Problem]:
    """The version that serves and the one to go back to, where the registry has lost it or has another in its place."""
    for entry, role in ((standing.champion, "the champion"), (standing.predecessor, "the one to go back to")):
        if entry is None:
            continue
        found, where = model.bundles.get(entry.to_version), f"{name}, version {entry.to_version}"
        if found is None:
            yield Problem(f"{role} was deleted from the registry", where, "restore it, or promote another version")
        elif found != entry.bundle_digest:
            problem = f"{role} is bundle {found[:12]} in the registry, {entry.bundle_digest[:12]} in the ledger"
            yield Problem(problem, where, "its tag was edited: restore it, or promote another version")
