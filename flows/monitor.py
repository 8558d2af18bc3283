"""Compares the ledger with itself and the registry, on a schedule."""

from prefect import flow

from graftwork.errors import AuditError, raise_if
from graftwork.registry.audit import Audit
from tasks.monitor import audit


@flow(name="monitor", persist_result=False)
def monitor() -> Audit:
    """What `graftwork audit` does; the run fails if there is something that a person should look at."""
    done = audit()
    raise_if(done.problems, AuditError)
    return done
