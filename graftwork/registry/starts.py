"""Which weights a run starts from: looked up in the ledger once, then kept in the store beside what it leads to."""

from typing import Any

from graftwork.checkpoints.lock import CheckpointLock
from graftwork.data.manifest import DatasetManifest
from graftwork.fingerprint import digest, from_json, to_json
from graftwork.promotion.ledger import Ledger
from graftwork.recipe import Recipe
from graftwork.registry.versions import ModelVersion, fetch_bundle, read_bundle, resolve_version
from graftwork.training.bundle import ServingBundle, find_model
from graftwork.training.plan import TrainingPlan, model_facts
from graftwork.training.start import FROM_CHECKPOINT, Start, warm_start
from graftwork.workspace import Workspace

RECORD = "start.json"


def resolve_start(workspace: Workspace, recipe: Recipe, manifest: DatasetManifest, lock: CheckpointLock) -> Start:
    """The start of this recipe on this data and checkpoint; the first answer stays, whoever is champion later.

    So what is unchanged is not trained again from the model that it has made, and a run that was stopped goes on as it
    was begun. Raises RegistryError if the champion's version is gone.
    """
    start, key = find_start(workspace, recipe, manifest, lock), _key(recipe, manifest, lock)
    if recipe.start.origin == "champion" and not workspace.store.find(key):
        with workspace.store.writing(key) as folder:
            (folder / RECORD).write_text(to_json(start), encoding="utf-8")
        return find_start(workspace, recipe, manifest, lock)  # another run may have been quicker
    return start


def find_start(workspace: Workspace, recipe: Recipe, manifest: DatasetManifest, lock: CheckpointLock) -> Start:
    """What `resolve_start` would give; nothing is kept."""
    if recipe.start.origin == "checkpoint":
        return FROM_CHECKPOINT
    kept = workspace.store.open(_key(recipe, manifest, lock))
    if kept is not None:
        return from_json(Start, (kept / RECORD).read_text(encoding="utf-8"))
    return _look(workspace, recipe, manifest, lock)


def fetch_start(workspace: Workspace, plan: TrainingPlan) -> None:
    """Bring the model that the plan starts from into the store, unless all is trained already.

    Raises RegistryError if its version is gone.
    """
    warm = plan.start.warm
    if warm is None or workspace.store.find(plan.bundle_key):
        return
    if find_model(workspace.store, warm.key, warm.bundle) is None:
        fetch_bundle(workspace, resolve_version(workspace, f"{plan.name}/{warm.version}"))


def _key(recipe: Recipe, manifest: DatasetManifest, lock: CheckpointLock) -> str:
    return f"start/{digest([recipe.digest, recipe.start.scratch_every, manifest.digest, lock.digest])}"


def _look(workspace: Workspace, recipe: Recipe, manifest: DatasetManifest, lock: CheckpointLock) -> Start:
    """The champion, if it can be gone on from and has something to learn; else why not."""
    if recipe.limit_rows is not None:
        return Start(reason="this is a quick try")
    reigns = Ledger.of(workspace).standing(recipe.name).reigns
    # A champion that this recipe has made of this data is where the run ends, not where it starts.
    before = [each for each in reigns if (each.recipe_digest, each.manifest_digest) != (recipe.digest, manifest.digest)]
    if not before:
        return Start(reason="there is no champion yet")
    version = resolve_version(workspace, f"{recipe.name}/{before[-1].to_version}")
    if version.adopted is not None:
        return Start(reason=f"the champion, version {version.version}, was made elsewhere")
    bundle = read_bundle(workspace, version)
    changes = _changes(_facts_of(workspace, version, bundle), model_facts(recipe, manifest, lock))
    if changes:
        return Start(reason=f"the champion, version {version.version}, has another {changes}")
    if bundle.start.generation + 1 >= recipe.start.scratch_every:
        return Start(reason=f"one run in {recipe.start.scratch_every} does")
    replay, seed = recipe.start.replay, recipe.train.seed
    warm = warm_start(workspace.store, bundle, version.version, manifest, replay=replay, seed=seed)
    if warm.new == 0:
        return Start(reason=f"no training row is new to the champion, version {version.version}")
    return Start(warm)


def _facts_of(workspace: Workspace, version: ModelVersion, bundle: ServingBundle) -> dict[str, Any]:
    """What `model_facts` says of a recipe, of a registered model."""
    from graftwork.models.serving.config import ServingConfig

    config = ServingConfig.read(fetch_bundle(workspace, version))
    return {
        "checkpoint": bundle.checkpoint,
        "classes": bundle.classes,
        "columns": bundle.columns,
        "pooling": config.pooling,
        "hidden_layers": config.hidden_layers,
        "target": config.target,
    }


def _changes(found: dict[str, Any], expected: dict[str, Any]) -> str:
    changed = {
        name: f"{_told(found[name])} -> {_told(expected[name])}" for name in expected if found[name] != expected[name]
    }
    return ", another ".join(f"{name.replace('_', ' ')} ({change})" for name, change in changed.items())


def _told(value: Any) -> str:
    """A list as one, a digest by its first characters."""
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)[:12]
