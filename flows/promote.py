"""What a person decides, as flows: on the Prefect page their parameters are a form."""

from prefect import flow

from graftwork.promotion.history import LedgerEntry
from tasks import promote as tasks
from tasks.events import tell_outcome

# Whoever may start a run may fill in the form: the ledger says that the name was given there, not proved.
SAID = "{who} (said on the Prefect page)"


@flow(name="promote", flow_run_name="promote-{model}-{version}", persist_result=False)
def promote(model: str, version: int, reason: str, who: str) -> LedgerEntry:
    """Make a version the champion; where its policy wants a signature, ask for one.

    reason: why, in a sentence for the ledger. who: your name, for the ledger.
    """
    entry = tasks.promote_by_hand(model, version, reason, SAID.format(who=who))
    tell_outcome(entry)
    return entry


@flow(name="rollback", flow_run_name="rollback-{model}", persist_result=False)
def rollback(model: str, reason: str, who: str) -> LedgerEntry:
    """Go back to the champion before this one; what is left can't be promoted automatically again.

    reason: why, in a sentence for the ledger. who: your name, for the ledger.
    """
    entry = tasks.roll_back(model, reason, SAID.format(who=who))
    tell_outcome(entry)
    return entry


@flow(name="decide", flow_run_name="decide-{model}", persist_result=False)
def decide(model: str, decision: str) -> LedgerEntry | None:
    """Carry out a signed decision on a promotion that waits for one.

    decision: what `graftwork approve`, or `reject`, printed with `--request`.
    """
    entry = tasks.decide(model, decision)
    if entry is not None:
        tell_outcome(entry)
    return entry
