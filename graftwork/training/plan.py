"""The training plan: what will be trained on what, and where each result will lie; all that a run resolved.

A plan is made from records and a checkpoint's header alone. Nothing is loaded, so it is shown before it is paid for.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from pydantic import TypeAdapter

from graftwork.checkpoints.lock import CheckpointLock
from graftwork.checkpoints.retrieve import open_checkpoint
from graftwork.checkpoints.safety import read_tensor_shapes
from graftwork.data.manifest import DatasetManifest
from graftwork.errors import Problem, RecipeError, TrainingError
from graftwork.fields import Duration
from graftwork.fingerprint import digest, from_json, to_json, without_defaults
from graftwork.models.catalog import (
    FAMILIES,
    DepthGroup,
    Family,
    depth_groups,
    family_of,
    language_head_parameters,
)
from graftwork.models.pixels import read_pixels
from graftwork.models.serving.config import PixelConfig, find_width
from graftwork.policy import Policy
from graftwork.recipe import TFIDF, EvaluationSection, Recipe, StageSection
from graftwork.settings import CACHE_BYTES
from graftwork.storage import Store
from graftwork.targets.catalog import target_of
from graftwork.targets.target import Target
from graftwork.training.precision import resolve_precision
from graftwork.training.stages import (
    OBJECTIVE,
    Adversary,
    Averaging,
    Hiding,
    Stage,
    frozen_blocks,
    peak_rates,
    plan_adapters,
    stage_groups,
    trained_groups,
)
from graftwork.training.start import FROM_CHECKPOINT, Start

# Raised by hand when what a stage or a bundle means changes: then, and only then, trained work is done again.
STAGE_VERSION = 3
BUNDLE_VERSION = 3
RUN_RECORD = "run.json"
ADDED = ("pixels", "scale", "separator")  # to plans by later versions: no part of the digest of those without

_duration = TypeAdapter[timedelta | None](Duration | None)


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides the weights, by digest or by value.

    manifest, checkpoint: digests of the records. rows: rows of each side. groups: all depth groups, shallowest first.
    start: which weights the first stage starts from. pixels: how pictures are read, None where texts are. scale: mean
    and standard deviation that numbers are learnt in. separator: between classes that are told together.
    """

    SCHEMA: ClassVar[int] = 1
    name: str
    problem_type: str
    recipe_digest: str
    manifest: str
    checkpoint: str
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    pooling: str
    max_tokens: int
    hidden_layers: tuple[int, ...]
    dropout: float
    seed: int
    batch_tokens: int
    precision: str
    rows: dict[str, int]
    groups: tuple[DepthGroup, ...]
    stages: tuple[Stage, ...]
    bundle_key: str
    start: Start = FROM_CHECKPOINT
    pixels: PixelConfig | None = None
    scale: tuple[float, ...] | None = None
    separator: str | None = None

    @property
    def target(self) -> Target:
        """What is learnt of a row."""
        return target_of(self.problem_type)

    @property
    def parameters(self) -> int:
        """All parameters of the model."""
        return sum(group.parameters for group in self.groups)


@dataclass(frozen=True)
class ResolvedRun:
    """What a run resolved at its start. A retry or a resume a week later works on this, not on that day's world."""

    SCHEMA: ClassVar[int] = 1
    run_id: str
    recipe: dict[str, Any]
    plan: TrainingPlan
    manifest: DatasetManifest
    lock: CheckpointLock
    evaluation: EvaluationSection
    policy: Policy
    is_limited: bool

    @property
    def key(self) -> str:
        return f"run/{self.run_id}"

    @property
    def time_limit_s(self) -> float | None:
        """Seconds that one attempt at its training may take; None for as long as it needs."""
        limit = _duration.validate_python(self.recipe["resources"]["time_limit"])
        return None if limit is None else limit.total_seconds()


def model_facts(recipe: Recipe, manifest: DatasetManifest, lock: CheckpointLock) -> dict[str, Any]:
    """What two models must have in common for one to go on from the weights of the other."""
    return {
        "checkpoint": lock.digest,
        "classes": manifest.classes,
        "columns": recipe.input.columns,
        "pooling": pooling_of(recipe, lock),
        "hidden_layers": recipe.head.layers,
        "target": recipe.target.name,
    }


def pooling_of(recipe: Recipe, lock: CheckpointLock) -> str:
    """What the recipe says, else what the checkpoint was made with, else what its family is used with."""
    family = family_of(lock.architecture)
    if recipe.input.pooling is not None and recipe.input.pooling not in family.poolings:
        problem = f"{family.known_as} can't be pooled by {recipe.input.pooling}"
        raise RecipeError(Problem(problem, "input.pooling", f"leave it out, or: {', '.join(family.poolings)}"))
    return recipe.input.pooling or lock.pooling or family.pooling


def plan_training(
    recipe: Recipe,
    manifest: DatasetManifest,
    lock: CheckpointLock,
    checkpoint: Path,
    start: Start = FROM_CHECKPOINT,
    cache_bytes: int = CACHE_BYTES,
) -> TrainingPlan:
    """The plan for this recipe on this data and checkpoint (`checkpoint`: its verified folder), from this start.

    cache_bytes: what the activations of a frozen part may take; where they may take more, each epoch computes it again.
    Raises RecipeError if a stage names depth groups that there are not, CheckpointError for an unknown architecture.
    """
    facts = model_facts(recipe, manifest, lock)
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    family = family_of(lock.architecture)
    pixels = None if recipe.input.image is None else read_pixels(checkpoint, recipe.input.side)
    max_tokens = recipe.input.max_tokens if pixels is None else pixels.tokens
    _check_length(max_tokens, family, config)
    _check_input(recipe, family)
    if len(recipe.input.columns) > 1 and not family.special_tokens:
        raise RecipeError(Problem(f"{family.known_as}: it has no token between the texts of a pair", "input.text"))
    head = head_parameters(find_width(config), recipe.head.layers, len(manifest.classes), facts["pooling"])
    shapes = {name: shape for name, (shape, _) in read_tensor_shapes(checkpoint).items()}
    groups = depth_groups(family, shapes, head)
    del facts["target"]  # the manifest is of it
    shared: dict[str, Any] = facts | {
        "manifest": manifest.digest,
        "max_tokens": max_tokens,
        "dropout": recipe.head.dropout,
        "seed": recipe.train.seed,
        "batch_tokens": recipe.train.batch_tokens,
        "precision": resolve_precision(recipe.train.precision),
    }
    shared |= {} if pixels is None else {"pixels": pixels}
    shared |= _target_facts(recipe, manifest)
    before = digest({"version": STAGE_VERSION} | shared | ({"start": start.warm.facts} if start.warm else {}))
    rows = manifest.side_rows
    vector = find_width(config) * (2 if shared["precision"] == "bfloat16" else 4)
    room = CacheRoom(cache_bytes, rows["train"] + rows["validation"], max_tokens, vector)
    table = next((shape for name, shape in shapes.items() if family.table and name.endswith(family.table)), (0, 0))
    resolve = partial(
        _resolve_stages,
        recipe,
        groups=groups,
        family=family,
        shapes=shapes,
        before=before,
        room=room,
        language_head=language_head_parameters(find_width(config), *table),
    )
    cold, warm = resolve(recipe.stages, "stages"), resolve(recipe.warm_stages, "start.stages")
    stages = warm if start.warm else cold
    return TrainingPlan(
        name=recipe.name,
        problem_type=recipe.problem_type,
        recipe_digest=recipe.digest,
        rows=rows,
        groups=groups,
        stages=stages,
        start=start,
        bundle_key=f"bundle/{digest({'version': BUNDLE_VERSION, 'last': stages[-1].key})}",
        **shared,
    )


def _target_facts(recipe: Recipe, manifest: DatasetManifest) -> dict[str, Any]:
    """What a plan says beside its classes, of targets other than one class."""
    if recipe.target.is_number:
        numbers = manifest.numbers["train"]
        return {"scale": (numbers.mean, numbers.std)}
    separator = recipe.data.label.separator
    return {} if separator is None else {"separator": separator}


@dataclass(frozen=True)
class CacheRoom:
    """How much of a frozen part can be kept. budget, vector: bytes, the latter of one token's activations."""

    budget: int
    rows: int
    max_tokens: int
    vector: int

    def needed(self, is_pooled: bool) -> int:
        """Bytes at most."""
        return self.rows * self.vector * (1 if is_pooled else self.max_tokens)


def _resolve_stages(
    recipe: Recipe,
    sections: Sequence[StageSection],
    place: str,
    groups: tuple[DepthGroup, ...],
    family: Family,
    shapes: Mapping[str, tuple[int, ...]],
    before: str,
    room: CacheRoom,
    language_head: int,
) -> tuple[Stage, ...]:
    """Stages with their keys; a key covers everything before it, so a changed stage changes all later ones.

    place: of the sections in the recipe. language_head: parameters of what a stage has that learns from texts alone.
    """
    stages: list[Stage] = []
    for index, section in enumerate(sections):
        where = f"{recipe.path}: {place}.{index}"
        has_adapters = "lora" in section.train
        adapters = plan_adapters(section.lora, family, shapes, groups, f"{where}.lora") if has_adapters else None
        hiding = _plan_hiding(section, family, language_head, where)
        if section.train == (OBJECTIVE,):
            raise RecipeError(Problem("what this trains alone is gone when the stage is over", f"{where}.train"))
        wanted = section.train if hiding is None else (*section.train, OBJECTIVE)
        trained = trained_groups(wanted, stage_groups(groups, adapters, hiding), f"{where}.train")
        if section.objective != "classification":  # the classifier's head learns nothing then, whatever `all` says
            trained = [group for group in trained if group.name != "head"]
        augment = section.augment.model_dump(exclude_defaults=True)
        is_frozen = frozen_blocks(trained) > 0
        is_pooled = is_frozen and [group.name for group in trained] == ["head"] and recipe.input.pooling != "attention"
        is_solved = section.solver == "lbfgs"
        # What the frozen part reads is the same from one epoch to the next.
        is_unchanged = not augment and hiding is None and section.adversary is None
        may_be_kept = (
            is_frozen and (is_pooled or family.is_cut) and (is_solved or (recipe.train.prefix_cache and is_unchanged))
        )
        kept_bytes = room.needed(is_pooled) if may_be_kept else 0
        is_cut = may_be_kept and (is_solved or kept_bytes <= room.budget)
        facts: dict[str, Any] = {
            "rates": peak_rates(section, trained, deepest=groups[-1].depth),
            "solver": section.solver,
            "epochs": section.epochs or 1,
            "head_start": section.head_start,
            "schedule": section.schedule,
            "warmup": section.warmup,
            "weight_decay": section.weight_decay,
            "label_smoothing": section.label_smoothing,
            "body_dropout": section.body_dropout,
            "clip_norm": section.clip_norm,
            "keep_epoch": section.keep_epoch,
            "patience": section.patience,
            "class_weights": section.class_weights,
            "accumulate": section.accumulate,
            "l2_sp": section.l2_sp,
            "average": section.average and Averaging(section.average.ema, section.average.after),
            "augment": augment,
            "cut": frozen_blocks(trained) if is_cut else 0,
            "is_pooled": is_cut and is_pooled,
            "adapters": adapters,
            "hiding": hiding,
            "temperature": section.temperature if section.objective == "contrastive" else None,
            "adversary": section.adversary and Adversary(section.adversary.epsilon, section.adversary.steps),
        }
        before = digest({"before": before, "index": index} | without_defaults(Stage, facts))
        trainable = sum(group.parameters for group in trained)
        stages.append(Stage(section.name, trainable=trainable, key=f"stage/{before}", kept_bytes=kept_bytes, **facts))
    return tuple(stages)


def _plan_hiding(section: StageSection, family: Family, head: int, where: str) -> Hiding | None:
    """Of a stage of masked language modelling, whose head has so many parameters, else None.

    Raises RecipeError for a family that is not pretrained so.
    """
    if section.objective != "masked-language-modelling":
        return None
    if not family.has_mask:
        known = ", ".join(name for name, each in FAMILIES.items() if each.has_mask)
        problem = f"{family.known_as}: it has no token that hides a word"
        raise RecipeError(Problem(problem, f"{where}.objective", f"masked language modelling is for {known}"))
    return Hiding(section.hidden_share, head)


def plan_run(
    recipe: Recipe,
    manifest: DatasetManifest,
    lock: CheckpointLock,
    policy: Policy,
    store: Store,
    start: Start = FROM_CHECKPOINT,
    cache_bytes: int = CACHE_BYTES,
) -> ResolvedRun:
    """The run that this recipe asks for on this data, written to the store; else as `plan_training`.

    Its id follows from what it resolved, so that the same again is the same run.
    """
    if recipe.input.image is not None and TFIDF in policy.baselines:
        hint = "a policy for pictures names others: see policies/images.yaml"
        raise RecipeError(Problem(f"baseline {TFIDF} is for texts", str(recipe.policy), hint))
    _check_metrics(recipe, policy)
    plan = plan_training(recipe, manifest, lock, open_checkpoint(store, lock), start, cache_bytes)
    facts = {
        "plan": {name: value for name, value in vars(plan).items() if name not in ADDED or value is not None},
        "manifest": manifest.digest,
        "lock": lock,
        "evaluation": recipe.measured.model_dump(mode="json"),
        "policy": policy.digest,
    }
    run = ResolvedRun(
        run_id=digest(facts)[:16],
        recipe=recipe.model_dump(mode="json"),
        plan=plan,
        manifest=manifest,
        lock=lock,
        evaluation=recipe.measured,
        policy=policy,
        is_limited=recipe.limit_rows is not None,
    )
    if store.open(run.key) is None:
        with store.writing(run.key) as folder:
            (folder / RUN_RECORD).write_text(to_json(run), encoding="utf-8")
    return run


def _check_metrics(recipe: Recipe, policy: Policy) -> None:
    """Raise RecipeError for a policy that judges by what is not measured where the recipe's target is learnt."""
    known = recipe.target.learning.metrics
    unknown = sorted({policy.metric, *(guard.metric for guard in policy.guards)} - known.keys())
    if unknown:
        problem = f"{unknown[0]} is not measured of {recipe.target.known_as}"
        raise RecipeError(Problem(problem, str(recipe.policy), f"a policy for it names {', '.join(known)}"))


def open_run(store: Store, run_id: str) -> ResolvedRun:
    """The run that was resolved under this id; TrainingError if the store has none."""
    folder = store.open(f"run/{run_id}") if run_id.isalnum() else None
    if folder is None:
        raise TrainingError(f"no run {run_id} in {store.root}")
    return from_json(ResolvedRun, (folder / RUN_RECORD).read_text(encoding="utf-8"))


def head_parameters(width: int, hidden_layers: tuple[int, ...], classes: int, pooling: str) -> int:
    """Weights and biases of the head's linear layers, and what pooling learns."""
    sizes = (width, *hidden_layers, classes)
    query = width if pooling == "attention" else 0
    return query + sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))


def longest_input(family: Family, config: Mapping[str, Any]) -> int | None:
    """How many tokens a checkpoint with this config.json can read; None if it sets no limit."""
    limit = config.get(family.positions)
    if limit is not None and family.has_offset:
        limit -= config.get("pad_token_id", 1) + 1
    return limit


def _check_input(recipe: Recipe, family: Family) -> None:
    """Raises RecipeError for a checkpoint that does not read what the recipe gives it."""
    given = "text" if recipe.input.image is None else "image"
    if family.modality != given:
        problem = f"{family.known_as} reads {family.modality}s, not {given}s"
        raise RecipeError(Problem(problem, "checkpoint.source", "`graftwork families` lists what there is"))


def _check_length(max_tokens: int, family: Family, config: Mapping[str, Any]) -> None:
    limit = longest_input(family, config)
    if limit is not None and max_tokens > limit:
        raise RecipeError(f"input.max_tokens is {max_tokens}: this checkpoint reads at most {limit}")
