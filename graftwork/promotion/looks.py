"""Looks at a holdout: how many bundles of a model it has judged. Each look has to be surer than the one before."""

from sqlalchemy import func, insert, select

from graftwork.database import Database, holdout_looks, now


def take_look(database: Database, model: str, holdout_digest: str, bundle_digest: str, evidence_digest: str) -> int:
    """The number of this bundle's look at the holdout, counted from 1; asking again gives the same number.

    evidence_digest: of the evaluation that the first asking was for.
    """
    columns = holdout_looks.c
    of_holdout = (columns.model == model) & (columns.holdout_digest == holdout_digest)
    with database.begin(locking=holdout_looks) as connection:
        taken = connection.scalar(select(columns.look).where(of_holdout, columns.bundle_digest == bundle_digest))
        if taken is not None:
            return taken
        look = 1 + (connection.scalar(select(func.max(columns.look)).where(of_holdout)) or 0)
        row = {"bundle_digest": bundle_digest, "evidence_digest": evidence_digest, "look": look, "created_at": now()}
        connection.execute(insert(holdout_looks).values(model=model, holdout_digest=holdout_digest, **row))
        return look
