"""Who is judged against whom: the candidate's bundle, and the registered models that the ledger puts beside it."""

from functools import partial

from graftwork.errors import Problem, RegistryError
from graftwork.evaluation.evaluation import Contender
from graftwork.evaluation.predictions import Predictor
from graftwork.promotion.history import LedgerEntry, Standing
from graftwork.promotion.ledger import Ledger
from graftwork.registry.predictors import open_version
from graftwork.registry.versions import resolve_version
from graftwork.training.bundle import MODEL, ServingBundle
from graftwork.workspace import Workspace


def candidate(workspace: Workspace, bundle: ServingBundle) -> Contender:
    """The bundle that a run has made."""
    return Contender(
        bundle=bundle.digest,
        recipe=bundle.recipe_digest,
        manifest=bundle.manifest,
        version=None,
        open_model=partial(_stored, workspace, bundle.key),
        taught_by=tuple(teacher.manifest for teacher in bundle.start.teachers),
    )


def references(workspace: Workspace, bundle: ServingBundle) -> dict[str, Contender]:
    """Champion and anchor that a bundle is judged against; empty before the model's first champion.

    For the bundle that is the champion itself these are the ones it replaced, so that a run that is run again finds
    the evaluation and the verdict it had.
    """
    standing = Ledger.of(workspace).standing(bundle.name)
    if standing.champion is not None and standing.champion.bundle_digest == bundle.digest:
        standing = Standing(standing.reigns[:-1], standing.revoked)
    entries = {"champion": standing.champion, "anchor": standing.anchor}
    return {name: _registered(workspace, entry, bundle) for name, entry in entries.items() if entry is not None}


def _registered(workspace: Workspace, entry: LedgerEntry, candidate: ServingBundle) -> Contender:
    return Contender(
        bundle=entry.bundle_digest,
        recipe=entry.recipe_digest,
        manifest=entry.manifest_digest,
        version=entry.to_version,
        open_model=partial(_fetched, workspace, entry, candidate),
    )


def _stored(workspace: Workspace, key: str) -> Predictor:
    from graftwork.models.serving.model import load

    folder = workspace.store.open(key)
    if folder is None:
        raise RegistryError(Problem("the bundle is not in the store any more", key, "run again to make it"))
    return load(folder / MODEL)


def _fetched(workspace: Workspace, entry: LedgerEntry, candidate: ServingBundle) -> Predictor:
    """The model of a registered version, which has to read the columns that the candidate reads."""
    version = resolve_version(workspace, f"{entry.model}/{entry.to_version}")
    model = open_version(workspace, version)
    if model.columns != candidate.columns:
        problem = f"it reads {', '.join(model.columns)}; the data has {', '.join(candidate.columns)}"
        hint = "a recipe that reads other columns needs a name of its own"
        raise RegistryError(Problem(problem, version.uri, hint))
    return model
