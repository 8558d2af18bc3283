"""Adoption: a model that others made and registered becomes a model's first champion, to be judged against.

Its files are copied, and pinned by their digest. Nobody knows here which rows it was trained on: those it has seen
count for it, so that a candidate's task is harder than it would be, never easier.
"""

from functools import partial
from typing import TYPE_CHECKING

from graftwork.data.manifest import DatasetManifest, load_rows, validate_data
from graftwork.errors import Problem, PromotionRefused, RecipeError, RegistryError
from graftwork.evaluation.predictions import inputs_of
from graftwork.fingerprint import to_json
from graftwork.promotion.history import LedgerEntry, Nomination
from graftwork.promotion.ledger import Ledger, check_reason, promote
from graftwork.recipe import Recipe
from graftwork.registry.aliases import person
from graftwork.registry.client import reach_mlflow
from graftwork.registry.predictors import adopted_model
from graftwork.registry.registration import create_model
from graftwork.registry.versions import (
    ADOPTED,
    BUNDLE,
    BUNDLE_KEY,
    Adopted,
    ModelVersion,
    adopted_version,
    download_adopted,
    move_alias,
    split_reference,
)
from graftwork.training.bundle import MODEL
from graftwork.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

TRIED_ROWS = 32


def adopt(workspace: Workspace, recipe: Recipe, reference: str, reason: str, actor: str | None = None) -> LedgerEntry:
    """Make a registered version that others made the first champion of the recipe's model.

    reference: NAME@ALIAS or NAME/VERSION of any pyfunc that reads the recipe's text columns and gives a column
    p_<class> for each of its classes, or `prediction` where numbers are learnt; it is tried on a few rows before
    anything is changed. It then is a version of the recipe's model, too, if it is not one already. Repeated, this does
    what is left. Raises RecipeError if the recipe's rows are no texts, or its labels are, PromotionRefused if there is
    another champion, RegistryError if the version is ours or not such a model.
    """
    check_reason(reference, reason)
    if recipe.input.text is None:
        hint = "register it by a run of this recipe"
        raise RecipeError(Problem("only a model that reads texts can be adopted", f"{recipe.path}: input", hint))
    if recipe.target.is_text or recipe.target.is_by_word:
        hint = "register it by a run of this recipe"
        problem = f"no model for {recipe.target.known_as} can be adopted"
        raise RecipeError(Problem(problem, f"{recipe.path}: problem_type", hint))
    manifest, ledger = validate_data(recipe, workspace), Ledger.of(workspace)
    with reach_mlflow(workspace.settings) as client:
        origin = _find(client, reference)
        adopted = Adopted(f"{origin.name}/{origin.version}", recipe.input.columns, manifest.classes, manifest.target)
        version = adopted_version(client, recipe.name, adopted.origin)
        _refuse_another(ledger, recipe.name, version)
        if version is None:
            version = _take_in(workspace, client, recipe.name, origin, adopted, manifest)
    nomination = Nomination(version.version, version.bundle, "", "", rule="adopted", reason=reason)
    move = partial(move_alias, workspace)
    return promote(ledger, move, recipe.name, nomination, actor=actor or person(), expected=None)


def _find(client: "MlflowClient", reference: str) -> "MlflowVersion":
    name, alias, number = split_reference(reference)
    found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
    if BUNDLE in found.tags and ADOPTED not in found.tags:
        hint = "`graftwork promote` makes it champion"
        raise RegistryError(Problem("there is nothing to adopt: a run of Graftwork made it", reference, hint))
    return found


def _refuse_another(ledger: Ledger, name: str, version: ModelVersion | None) -> None:
    champion = ledger.champion(name)
    if champion is not None and (version is None or champion.to_version != version.version):
        problem = f"it has a champion, version {champion.to_version}: adopting is for a model without one"
        raise PromotionRefused(Problem(problem, name, "`graftwork promote` makes another version champion"))


def _take_in(
    workspace: Workspace,
    client: "MlflowClient",
    name: str,
    origin: "MlflowVersion",
    adopted: Adopted,
    manifest: DatasetManifest,
) -> ModelVersion:
    """Its files in the store, tried, and the version of our model that holds it: itself, or one that points to it."""
    store = workspace.store
    with store.staging() as folder:
        bundle = download_adopted(workspace, f"models:/{adopted.origin}", name, adopted, folder)
        place = store.publish(bundle.key, folder)
    rows = load_rows(store, manifest, sides=("validation",))[:TRIED_ROWS]
    adopted_model(workspace, adopted, place / MODEL).probabilities(inputs_of(rows))
    tags = {ADOPTED: to_json(adopted), BUNDLE_KEY: bundle.key, BUNDLE: bundle.digest}
    if origin.name == name:
        for tag, value in tags.items():  # the digest last: by that it is known
            client.set_model_version_tag(name, origin.version, tag, value)
    else:
        create_model(client, name)
        told = f"{adopted.origin}, made elsewhere"
        client.create_model_version(
            name, f"models:/{adopted.origin}", run_id=origin.run_id, tags=tags, description=told
        )
    version = adopted_version(client, name, adopted.origin)
    assert version is not None
    return version
