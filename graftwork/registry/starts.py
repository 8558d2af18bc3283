"""Which weights a run starts from, and who teaches it: looked up once, then kept beside what comes of it."""

from dataclasses import replace
from typing import Any

from graftwork.checkpoints.lock import CheckpointLock
from graftwork.data.manifest import DatasetManifest
from graftwork.errors import Problem, RegistryError
from graftwork.fingerprint import digest, from_json, to_json
from graftwork.promotion.ledger import Ledger
from graftwork.recipe import Recipe, teachers_of
from graftwork.registry.versions import ModelVersion, fetch_bundle, read_bundle, resolve_version
from graftwork.training.bundle import ServingBundle, find_model
from graftwork.training.plan import TrainingPlan, model_facts
from graftwork.training.start import FROM_CHECKPOINT, Start, Teacher, warm_start
from graftwork.workspace import Workspace

RECORD = "start.json"
TEACHER_HINT = "name another in distil.from, or leave distil out"


def resolve_start(workspace: Workspace, recipe: Recipe, manifest: DatasetManifest, lock: CheckpointLock) -> Start:
    """The start of this recipe on this data and checkpoint; the first answer stays, whoever is champion later.

    So what is unchanged is not trained again from the model that it has made, and a run that was stopped goes on as it
    was begun. Raises RegistryError if the champion's version is gone.
    """
    start, key = find_start(workspace, recipe, manifest, lock), _key(recipe, manifest, lock)
    if _asks(recipe) and not workspace.store.find(key):
        with workspace.store.writing(key) as folder:
            (folder / RECORD).write_text(to_json(start), encoding="utf-8")
        return find_start(workspace, recipe, manifest, lock)  # another run may have been quicker
    return start


def find_start(workspace: Workspace, recipe: Recipe, manifest: DatasetManifest, lock: CheckpointLock) -> Start:
    """What `resolve_start` would give; nothing is kept."""
    if not _asks(recipe):
        return FROM_CHECKPOINT
    kept = workspace.store.open(_key(recipe, manifest, lock))
    if kept is not None:
        return from_json(Start, (kept / RECORD).read_text(encoding="utf-8"))
    champion = _champion(workspace, recipe, manifest)
    start = _look(workspace, recipe, manifest, lock, champion)
    asked = teachers_of(recipe.warm_stages if start.warm else recipe.stages)
    teachers = (_teacher(workspace, recipe, manifest, each, champion) for each in asked)
    return replace(start, teachers=tuple(teacher for teacher in teachers if teacher is not None))


def fetch_start(workspace: Workspace, plan: TrainingPlan) -> None:
    """Bring the models that the plan starts from and learns from into the store, unless all is trained already.

    Raises RegistryError if a version is gone.
    """
    if workspace.store.find(plan.bundle_key):
        return
    warm = plan.start.warm
    wanted = [(plan.name, warm.version, warm.key, warm.bundle)] if warm else []
    wanted += [(each.name, each.version, each.key, each.bundle) for each in plan.start.teachers]
    for name, version, key, bundle in wanted:
        if find_model(workspace.store, key, bundle) is None:
            fetch_bundle(workspace, resolve_version(workspace, f"{name}/{version}"))


def _asks(recipe: Recipe) -> bool:
    """Whether anything is to be looked up for the recipe."""
    return recipe.start.origin == "champion" or bool(teachers_of(recipe.stages))


def _key(recipe: Recipe, manifest: DatasetManifest, lock: CheckpointLock) -> str:
    return f"start/{digest([recipe.digest, recipe.start.scratch_every, manifest.digest, lock.digest])}"


def _champion(workspace: Workspace, recipe: Recipe, manifest: DatasetManifest) -> ModelVersion | None:
    """The version that reigns, or did before the one that this recipe has made of this data: there the run ends."""
    reigns = Ledger.of(workspace).standing(recipe.name).reigns
    before = [each for each in reigns if (each.recipe_digest, each.manifest_digest) != (recipe.digest, manifest.digest)]
    return resolve_version(workspace, f"{recipe.name}/{before[-1].to_version}") if before else None


def _look(
    workspace: Workspace,
    recipe: Recipe,
    manifest: DatasetManifest,
    lock: CheckpointLock,
    version: ModelVersion | None,
) -> Start:
    """The champion, if it can be gone on from and has something to learn; else why not."""
    if recipe.start.origin == "checkpoint":
        return FROM_CHECKPOINT
    if recipe.limit_rows is not None:
        return Start(reason="this is a quick try")
    if version is None:
        return Start(reason="there is no champion yet")
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


def _teacher(
    workspace: Workspace, recipe: Recipe, manifest: DatasetManifest, asked: str, champion: ModelVersion | None
) -> Teacher | None:
    """The version that a stage wants to learn from; None for a champion that there is not yet.

    Raises RegistryError if it is gone, or can't teach this recipe.
    """
    version = champion if asked == "champion" else resolve_version(workspace, asked)
    if version is None:
        return None
    where = f"{version.name}/{version.version}"
    if version.adopted is not None:
        raise RegistryError(Problem("it was made elsewhere: only models of ours teach", where, TEACHER_HINT))
    bundle = read_bundle(workspace, version)
    if bundle.columns != recipe.input.columns:
        found, expected = ", ".join(bundle.columns), ", ".join(recipe.input.columns)
        raise RegistryError(Problem(f"as a teacher it reads {found}; the data has {expected}", where, TEACHER_HINT))
    if len(set(bundle.classes) & set(manifest.classes)) < 2:
        found, expected = ", ".join(bundle.classes), ", ".join(manifest.classes)
        problem = f"as a teacher it tells {found}, of which two at least would have to be among {expected}"
        raise RegistryError(Problem(problem, where, TEACHER_HINT))
    return Teacher(
        asked=asked,
        name=version.name,
        version=version.version,
        bundle=bundle.digest,
        key=bundle.key,
        manifest=bundle.manifest,
        classes=bundle.classes,
    )


def _facts_of(workspace: Workspace, version: ModelVersion, bundle: ServingBundle) -> dict[str, Any]:
    """What `model_facts` says of a recipe, of a registered model."""
    from graftwork.models.serving.config import LAYERS, ServingConfig

    config = ServingConfig.read(fetch_bundle(workspace, version))
    return {
        "checkpoint": bundle.checkpoint,
        "classes": bundle.classes,
        "columns": bundle.columns,
        "pooling": config.pooling,
        "hidden_layers": config.hidden_layers,
        "target": config.target,
        "head": config.head or LAYERS,
        "modality": config.modality,
    }


def _changes(found: dict[str, Any], expected: dict[str, Any]) -> str:
    changed = {
        name: f"{_told(found[name])} -> {_told(expected[name])}" for name in expected if found[name] != expected[name]
    }
    return ", another ".join(f"{name.replace('_', ' ')} ({change})" for name, change in changed.items())


def _told(value: Any) -> str:
    """A list as one, a digest by its first characters."""
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)[:12]
