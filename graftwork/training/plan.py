"""The training plan: what will be trained on what, and where each result will lie; all that a run resolved.

A plan is made from records and a checkpoint's header alone. Nothing is loaded, so it is shown before it is paid for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from pydantic import TypeAdapter

from graftwork.checkpoints.lock import CheckpointLock
from graftwork.checkpoints.retrieve import open_checkpoint
from graftwork.checkpoints.safety import read_tensor_shapes
from graftwork.coherence import check_baselines
from graftwork.data.manifest import DatasetManifest
from graftwork.errors import CheckpointError, Problem, RecipeError, TrainingError, raise_if
from graftwork.fields import Duration
from graftwork.fingerprint import digest, from_json, to_json
from graftwork.models.beside import Beside, find_beside, pair_parameters
from graftwork.models.catalog import (
    DepthGroup,
    Family,
    depth_groups,
    family_of,
    language_head_parameters,
    replacer_parameters,
    sample_head_parameters,
    width_of,
)
from graftwork.models.configs import read_model_config
from graftwork.models.media import read_media, tokens_of
from graftwork.models.pixels import find_side_problem
from graftwork.models.serving.config import COSINE, LAYERS, UNPOOLED, PixelConfig, SoundConfig
from graftwork.models.tower_files import find_tower_problems
from graftwork.policy import Policy
from graftwork.recipe import EvaluationSection, Recipe
from graftwork.sections.data import NOUNS
from graftwork.sections.stages import PAIRS
from graftwork.settings import CACHE_BYTES
from graftwork.storage import Store
from graftwork.targets.catalog import target_of
from graftwork.targets.target import Target
from graftwork.training.precision import resolve_precision
from graftwork.training.stage_plans import CacheRoom, Ground, head_parameters, plan_stages
from graftwork.training.stages import (
    Stage,
)
from graftwork.training.start import FROM_CHECKPOINT, Start
from graftwork.training.text_tower import tower_groups

# Raised by hand when what a stage or a bundle means changes: then, and only then, trained work is done again.
STAGE_VERSION = 3
BUNDLE_VERSION = 3
RUN_RECORD = "run.json"
# What plans, and their stages, say in later versions alone: no part of what names those that don't.
ADDED, ADDED_TO_STAGES = (
    ("pixels", "sound", "scale", "separator", "writes", "prompt", "prompts"),
    ("autoregression", "ewc", "distil", "strength", "auxiliary", "detects", "sentences", "span", "pairs"),
)

_duration = TypeAdapter[timedelta | None](Duration | None)


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides the weights, by digest or by value.

    manifest, checkpoint: digests of the records. rows: rows of each side. groups: all depth groups, shallowest first.
    start: which weights the first stage starts from. pixels, sound: how pictures or recordings are read, else None.
    scale: mean and standard deviation that numbers are learnt in. separator: between classes that are told together.
    writes: the most tokens of a text that is written. prompt: what is read then, with the columns in braces. prompts:
    of each class, where the head begins as what the other tower makes of them.
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
    sound: SoundConfig | None = None
    scale: tuple[float, ...] | None = None
    separator: str | None = None
    writes: int | None = None
    prompt: str | None = None
    prompts: tuple[tuple[str, ...], ...] | None = None

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
        "head": COSINE if recipe.head.prompts else LAYERS,
        "modality": recipe.input.modality,  # of two towers in one checkpoint, the one
    }


def pooling_of(recipe: Recipe, lock: CheckpointLock) -> str:
    """What the recipe says, else what the checkpoint was made with, else what its family is used with."""
    family = family_of(lock.architecture)
    if recipe.target.is_by_word:
        if family.pooling == "body":
            problem = f"{family.known_as}: it makes one state of a text, and its words have none in the space of that"
            raise RecipeError(Problem(problem, "checkpoint.source", "take one that is pooled, such as BERT"))
        return UNPOOLED
    if recipe.input.pooling is not None and recipe.input.pooling not in family.poolings:
        problem = f"{family.known_as} can't be pooled by {recipe.input.pooling}"
        raise RecipeError(Problem(problem, "input.pooling", f"leave it out, or: {', '.join(family.poolings)}"))
    stated = lock.pooling if lock.pooling in family.poolings else None
    return recipe.input.pooling or stated or family.pooling


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
    family = family_of(lock.architecture)
    _check_input(recipe, family)
    media = read_media(checkpoint, recipe.input)
    if "pixels" in media:
        _check_side(media["pixels"], family, checkpoint)
    max_tokens = tokens_of(media, recipe.input)
    config = read_model_config(checkpoint, recipe.input.modality)
    # A body that goes on with what it reads needs places, and room, for what it writes, too.
    written = recipe.output.max_tokens if recipe.target.is_text and family.is_autoregressive else 0
    _check_length(max_tokens, family, config, written)
    if len(recipe.input.columns) > 1 and not family.reads_pairs and recipe.input.prompt is None:
        hint = "input.prompt says how both stand in one text" if recipe.target.is_text else ""
        problem = f"{family.known_as}: it has no token between the texts of a pair"
        raise RecipeError(Problem(problem, "input.text", hint))
    shapes = {name: shape for name, (shape, _) in read_tensor_shapes(checkpoint).items()}
    width = width_of(family, config, shapes)
    if recipe.target.is_text:
        head = _writing_head(lock, checkpoint, config, shapes)
    else:
        head = head_parameters(width, recipe.head.layers, len(manifest.classes), facts["pooling"])
    if recipe.prompts is not None:
        raise_if(find_tower_problems(checkpoint, lock.source), CheckpointError)
        head = width * len(manifest.classes) + 1
    groups = depth_groups(family, shapes, head)
    del facts["target"], facts["head"], facts["modality"]  # the manifest, prompts and pixels tell them
    shared: dict[str, Any] = facts | {
        "manifest": manifest.digest,
        "max_tokens": max_tokens,
        "dropout": recipe.head.dropout,
        "seed": recipe.train.seed,
        "batch_tokens": recipe.train.batch_tokens,
        "precision": resolve_precision(recipe.train.precision),
    }
    shared |= media
    shared |= _target_facts(recipe, manifest) | ({} if recipe.prompts is None else {"prompts": recipe.prompts})
    before = digest({"version": STAGE_VERSION} | shared | ({"start": start.warm.facts} if start.warm else {}))
    rows = manifest.side_rows
    vector = width * (2 if shared["precision"] == "bfloat16" else 4)
    room = CacheRoom(cache_bytes, rows["train"] + rows["validation"], max_tokens + written, vector)
    beside = find_beside(checkpoint, family, config, shapes)
    has_pairs = any(section.objective == PAIRS for section in recipe.every_stage)
    ground = Ground(
        recipe=recipe,
        manifest=manifest,
        start=start,
        family=family,
        groups=groups,
        shapes=shapes,
        width=width,
        is_tied=config.get("tie_word_embeddings", family.is_tied),
        heads=_objective_heads(family, config, shapes, width, beside),
        beside=beside,
        towers=tower_groups(checkpoint, lock.source) if has_pairs else (),
        room=room,
    )
    cold = plan_stages(ground, recipe.stages, "stages", before)
    warm = plan_stages(ground, recipe.warm_stages, "start.stages", before)
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


def _objective_heads(
    family: Family, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], width: int, beside: Beside
) -> dict[str, int]:
    """Parameters of what a stage has that learns without labels, by its objective, or to tell what comes `next`."""
    table = next((shape for name, shape in shapes.items() if family.table and name.endswith(family.table)), (0, 0))
    return {
        "masked-language-modelling": language_head_parameters(width, *table),
        "replaced-token-detection": replacer_parameters(width, shapes),
        "next-sentence-prediction": pair_parameters(width, *table),
        "span-corruption": beside.decoder,
        "next": sample_head_parameters(width, config.get("quantization", 0)),
    }


def _target_facts(recipe: Recipe, manifest: DatasetManifest) -> dict[str, Any]:
    """What a plan says beside its classes, of targets other than one class."""
    if recipe.target.is_number:
        numbers = manifest.numbers["train"]
        return {"scale": (numbers.mean, numbers.std)}
    if recipe.target.is_text:
        return {"writes": recipe.output.max_tokens, "prompt": recipe.input.prompt}
    separator = recipe.data.label.separator
    return {} if separator is None else {"separator": separator}


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
    try:
        check_baselines(recipe, policy.baselines)
    except ValueError as error:
        raise RecipeError(Problem(f"baseline {error}", str(recipe.policy), "name another policy")) from error
    _check_metrics(recipe, policy)
    plan = plan_training(recipe, manifest, lock, open_checkpoint(store, lock), start, cache_bytes)
    facts = {
        "plan": _named_by(plan),
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


def _named_by(plan: TrainingPlan) -> dict[str, Any]:
    """What names a run of its plan: what a later version added counts only where it is used, so that older ids stay."""
    facts = {name: value for name, value in vars(plan).items() if name not in ADDED or value is not None}
    facts["stages"] = [_used(stage, *ADDED_TO_STAGES) for stage in plan.stages]
    return facts | {"start": _used(plan.start, "teachers")}


def _used(record: Stage | Start, *added: str) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in added or value}


def _check_metrics(recipe: Recipe, policy: Policy) -> None:
    """Raise RecipeError for a policy that judges by what is not measured where the recipe's target is learnt."""
    known = recipe.target.learning.metrics
    wanted = {policy.metric, *(guard.metric for guard in policy.guards)}
    wanted |= set() if policy.forgetting is None else {"accuracy"}
    unknown = sorted(wanted - known.keys())
    if unknown:
        problem = f"{unknown[0]} is not measured of {recipe.target.known_as}"
        raise RecipeError(Problem(problem, str(recipe.policy), f"a policy for it names {', '.join(known)}"))


def open_run(store: Store, run_id: str) -> ResolvedRun:
    """The run that was resolved under this id; TrainingError if the store has none."""
    folder = store.open(f"run/{run_id}") if run_id.isalnum() else None
    if folder is None:
        raise TrainingError(f"no run {run_id} in {store.root}")
    return from_json(ResolvedRun, (folder / RUN_RECORD).read_text(encoding="utf-8"))


def longest_input(family: Family, config: Mapping[str, Any]) -> int | None:
    """How many tokens a checkpoint with this config.json can read; None if it sets no limit."""
    limit = config.get(family.positions)
    if limit is not None and family.has_offset:
        limit -= config.get("pad_token_id", 1) + 1
    return limit


def _check_input(recipe: Recipe, family: Family) -> None:
    """Raises RecipeError for a checkpoint that does not read what the recipe gives it."""
    given = recipe.input.modality
    if family.modality != given:
        problem = f"{family.known_as} reads {NOUNS[family.modality]}, not {NOUNS[given]}"
        raise RecipeError(Problem(problem, "checkpoint.source", "`graftwork families` lists what there is"))


def _check_side(pixels: PixelConfig, family: Family, checkpoint: Path) -> None:
    """Raises RecipeError for pictures of a side that the checkpoint has no positions for."""
    problem = find_side_problem(pixels, family, checkpoint)
    if problem is not None:
        raise RecipeError(problem)


def _check_length(max_tokens: int, family: Family, config: Mapping[str, Any], written: int = 0) -> None:
    limit = longest_input(family, config)
    if limit is not None and max_tokens + written > limit:
        beside = f" and output.max_tokens {written}" if written else ""
        raise RecipeError(f"input.max_tokens is {max_tokens}{beside}: this checkpoint reads at most {limit}")


def _writing_head(
    lock: CheckpointLock, checkpoint: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> int:
    """Parameters of what the checkpoint writes by."""
    from graftwork.models.writing import writing_head_parameters  # here alone: it needs torch

    return writing_head_parameters(lock.architecture, checkpoint, config, shapes)
