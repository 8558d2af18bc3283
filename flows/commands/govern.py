"""Answering for models: their history, approvals, promotions."""

import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.commands.shared import Json, Reason, project_of, tell
from graftwork.errors import AuditError, raise_if

if TYPE_CHECKING:
    from graftwork.promotion.approval import Outcome


@Parameter(name="*")
@dataclass(frozen=True)
class SignedWord:
    """Who decides on a request for approval, why, and by which key."""

    reason: Reason
    approver: Annotated[str, Parameter("--approver", help="Who decides: a name among the policy's approvers.")]
    key: Annotated[
        Path, Parameter("--key", help="The approver's OpenSSH private key, Ed25519, such as ~/.ssh/id_ed25519.")
    ]
    request: Annotated[
        str | None,
        Parameter(
            "--request", help="Sign this request and print the decision, for the form `decide`; nothing is reached."
        ),
    ] = None


def history(model: str, *, json: Json = False) -> None:
    """Show the ledger of a model: every promotion and rollback, by whom and why."""
    from flows import console
    from graftwork import api

    entries = api.history(model)
    tell(json, [vars(entry) for entry in entries], console.history_table(entries))


def audit(*, json: Json = False) -> None:
    """Look for what is not as the ledger says; nothing is changed.

    Found are entries that were altered, taken out or cut off, aliases that were moved by hand, and champions that were
    deleted from the registry or are another bundle there. Exit code 8 if there is anything.
    """
    from graftwork import api

    done = api.audit()
    if json or not done.problems:
        tell(json, asdict(done), f"all is as the ledger says: {done.entries} entries, {len(done.models)} models")
    raise_if(done.problems, AuditError)


def approvals(model: str, *, json: Json = False) -> None:
    """List what waits, or waited, for a person's approval: version, evidence, who may decide and until when."""
    from flows import console
    from graftwork import api

    found = api.approvals(model)
    tell(json, [asdict(each) | {"state": each.state} for each in found], console.approvals_table(found))


def approve(model: str, version: int, *, word: SignedWord, json: Json = False) -> None:
    """Let a version serve that waits for an approval; the ledger keeps your signed word for it."""
    _decide("approve", model, version, word, json)


def reject(model: str, version: int, *, word: SignedWord, json: Json = False) -> None:
    """Keep a version from serving that waits for an approval; it stays challenger."""
    _decide("reject", model, version, word, json)


def adopt(
    model: Annotated[str, Parameter(help="MODEL@ALIAS or MODEL/VERSION, as it is registered in MLflow.")],
    *,
    recipe: Annotated[Path, Parameter(help="The recipe whose candidates will be judged against it.")],
    reason: Reason,
    json: Json = False,
) -> None:
    """Begin with what you have: make a model that others registered the first champion of a recipe's model.

    Any pyfunc will do that reads the recipe's text columns and gives a column p_<class> for each class; it is tried on
    a few rows. Its code runs in a process of its own, by the Python that GRAFTWORK_ADOPTED_PYTHON names: adopt what you
    trust. It serves under the recipe's name as it did under its own.
    """
    from graftwork import api

    with project_of(recipe):
        entry = api.adopt(recipe, model, reason)
    tell(json, vars(entry), f"{entry.model}: {model} is the champion, as version {entry.to_version}")


def promote(model: str, version: int, *, reason: Reason, json: Json = False) -> None:
    """Make a version the champion by hand; the ledger records who and why.

    Where the model's policy wants an approval, one is asked for, and the version is challenger until it is given.
    """
    from graftwork import api

    entry = api.promote(model, version, reason)
    done = "is the champion" if entry.alias == "champion" else "waits for an approval: `graftwork approve`"
    tell(json, vars(entry), f"{model}: version {entry.to_version} {done}")


def rollback(model: str, *, reason: Reason, json: Json = False) -> None:
    """Go back to the champion before this one; what is left can't be promoted automatically again."""
    from graftwork import api

    entry = api.rollback(model, reason)
    tell(json, vars(entry), f"{model}: back to version {entry.to_version}")


def _decide(outcome: "Outcome", model: str, version: int, word: SignedWord, as_json: bool) -> None:
    """Sign, and carry out; where the request is named, sign only, for whoever can't reach the servers."""
    from getpass import getpass

    from graftwork import api
    from graftwork.fingerprint import to_json

    wanted = word.request or api.newest_request(model, version)
    ask = partial(getpass, f"Passphrase of {word.key}: ")
    decision = api.sign(wanted, outcome, word.approver, word.reason, word.key, ask)
    if word.request is not None:
        sys.stdout.write(to_json(decision))
        return
    entry = api.carry_out(model, decision)
    done = f"{model}: version {version} " + ("is the champion" if entry else "was rejected, and stays challenger")
    tell(as_json, {"decision": asdict(decision), "entry": entry and vars(entry)}, done)
