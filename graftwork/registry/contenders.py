"""Who is judged against whom: the candidate's bundle, and the registered models that the ledger puts beside it."""

from functools import partial
from pathlib import Path

from graftwork.errors import Problem, RegistryError
from graftwork.evaluation.evaluation import Contender
from graftwork.promotion.history import LedgerEntry, Standing
from graftwork.promotion.ledger import Ledger
from graftwork.registry.versions import fetch_bundle, resolve_version
from graftwork.training.bundle import MODEL, ServingBundle
from graftwork.workspace import Workspace


def candidate(workspace: Workspace, bundle: ServingBundle) -> Contender:
    """The bundle that a run has made."""
    return Contender(
        bundle.digest, bundle.recipe_digest, bundle.manifest, None, partial(_stored, workspace, bundle.key)
    )


def references(workspace: Workspace, model: str, bundle: str) -> dict[str, Contender]:
    """Champion and anchor that a bundle (by digest) of this model is judged against; empty before the first champion.

    For the bundle that is the champion itself these are the ones it replaced, so that a run that is run again finds
    the evaluation and the verdict it had.
    """
    standing = Ledger(workspace.database).standing(model)
    if standing.champion is not None and standing.champion.bundle_digest == bundle:
        standing = Standing(standing.reigns[:-1], standing.revoked)
    entries = {"champion": standing.champion, "anchor": standing.anchor}
    return {name: _registered(workspace, entry) for name, entry in entries.items() if entry is not None}


def _registered(workspace: Workspace, entry: LedgerEntry) -> Contender:
    return Contender(
        bundle=entry.bundle_digest,
        recipe=entry.recipe_digest,
        manifest=entry.manifest_digest,
        version=entry.to_version,
        open_model=partial(_fetched, workspace, entry),
    )


def _stored(workspace: Workspace, key: str) -> Path:
    folder = workspace.store.open(key)
    if folder is None:
        raise RegistryError(Problem("the bundle is not in the store any more", key, "run again to make it"))
    return folder / MODEL


def _fetched(workspace: Workspace, entry: LedgerEntry) -> Path:
    return fetch_bundle(workspace, resolve_version(workspace, f"{entry.model}/{entry.to_version}"))
