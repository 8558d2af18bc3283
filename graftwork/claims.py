"""Claims: who does a thing that must be done once, and what came of it.

A claim is a row that only one process can insert. Its owner settles it with an outcome (a version, a run id); an open
claim whose owner died on this machine is taken over by the next one who asks. Not here: the work itself.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from graftwork.database import Database, claims, now
from graftwork.owners import is_alive, this_owner


@dataclass(frozen=True)
class Claim:
    """won: the caller is to do the work. owner: who is. outcome: what came of it, None while it is open."""

    kind: str
    key: str
    won: bool
    owner: str
    outcome: str | None


def claim(database: Database, kind: str, key: str) -> Claim:
    """The claim on `key`, won by exactly one process; the same process asking again (a retry) has won it still."""
    owner = this_owner()
    try:
        with database.begin() as connection:
            row = {"kind": kind, "key": key, "owner": owner, "created_at": now()}
            connection.execute(insert(claims).values(row))
            return Claim(kind, key, won=True, owner=owner, outcome=None)
    except IntegrityError:
        with database.begin() as connection:
            return _take_over(connection, kind, key, owner)


def settle(database: Database, kind: str, key: str, outcome: str) -> Claim:
    """Close this process's claim with what came of it; a claim that was settled before keeps its first outcome."""
    owner = this_owner()
    with database.begin() as connection:
        mine = _is(kind, key) & (claims.c.owner == owner) & claims.c.outcome.is_(None)
        connection.execute(update(claims).where(mine).values(outcome=outcome, closed_at=now()))
        return _read(connection, kind, key, owner)


def outcome_of(database: Database, kind: str, key: str) -> str | None:
    """What came of the claim; None if nothing has yet, or nobody made it."""
    with database.begin() as connection:
        return connection.scalar(select(claims.c.outcome).where(_is(kind, key)))


def open_claims(database: Database, kind: str) -> tuple[Claim, ...]:
    """Claims of a kind that nobody settled, oldest first; `won` tells which of them are this process's."""
    wanted = select(claims).where(claims.c.kind == kind, claims.c.outcome.is_(None)).order_by(claims.c.created_at)
    with database.begin() as connection:
        return tuple(_as_claim(row, this_owner()) for row in connection.execute(wanted))


def _take_over(connection: Connection, kind: str, key: str, owner: str) -> Claim:
    found = _read(connection, kind, key, owner)
    if found.outcome is None and not is_alive(found.owner):
        left_open = _is(kind, key) & (claims.c.owner == found.owner) & claims.c.outcome.is_(None)
        connection.execute(update(claims).where(left_open).values(owner=owner, created_at=now()))
    return _read(connection, kind, key, owner)


def _read(connection: Connection, kind: str, key: str, owner: str) -> Claim:
    return _as_claim(connection.execute(select(claims).where(_is(kind, key))).one(), owner)


def _as_claim(row: Row, owner: str) -> Claim:
    return Claim(row.kind, row.key, row.owner == owner and row.outcome is None, row.owner, row.outcome)


def _is(kind: str, key: str):  # type: ignore[no-untyped-def]  # SQLAlchemy's own type has a name of five parts
    return (claims.c.kind == kind) & (claims.c.key == key)
