"""The training plan: what will be trained on what, and where each result will lie; all that a run resolved.

A plan is made from records and a checkpoint's header alone. Nothing is loaded, so it is shown before it is paid for.
"""

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
from graftwork.errors import CheckpointError, Problem, RecipeError, TrainingError, raise_if
from graftwork.fields import Duration
from graftwork.fingerprint import digest, from_json, to_json, without_defaults
from graftwork.models.beside import Beside, find_beside, pair_parameters
from graftwork.models.catalog import (
    FAMILIES,
    LEAST_ROWS,
    OBJECTIVES,
    DepthGroup,
    Family,
    depth_groups,
    family_of,
    language_head_parameters,
    normalised_groups,
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
from graftwork.recipe import EvaluationSection, Recipe, check_baselines
from graftwork.sections.data import NOUNS
from graftwork.sections.stages import OF_OBJECTIVE, PAIRS, StageSection
from graftwork.settings import CACHE_BYTES
from graftwork.storage import Store
from graftwork.targets.catalog import target_of
from graftwork.targets.target import Target
from graftwork.training.precision import resolve_precision
from graftwork.training.pretraining import check_beside
from graftwork.training.stages import (
    OBJECTIVE,
    Adversary,
    Autoregression,
    Auxiliary,
    Averaging,
    Distillation,
    Hiding,
    Stage,
    frozen_blocks,
    peak_rates,
    plan_adapters,
    stage_groups,
    trained_groups,
    trained_pairs,
)
from graftwork.training.start import FROM_CHECKPOINT, Start
from graftwork.training.text_tower import Pairs, split_targets, tower_groups

# Raised by hand when what a stage or a bundle means changes: then, and only then, trained work is done again.
STAGE_VERSION = 3
BUNDLE_VERSION = 3
RUN_RECORD = "run.json"
# What plans, and their stages, say in later versions alone: no part of what names those that don't.
ADDED, ADDED_TO_STAGES = (
    ("pixels", "sound", "scale", "separator", "writes", "prompt", "prompts"),
    ("autoregression", "ewc", "distil", "strength", "auxiliary", "detects", "sentences", "span", "pairs"),
)

# Why a family can't go on being pretrained by an objective.
LACKS = {
    "masked-language-modelling": "it has no token that hides a word",
    "replaced-token-detection": "it was not made to tell words that were replaced",
    "autoregressive": "it was not made to tell what comes next",
    "next-sentence-prediction": "it was not made to tell whether one text follows another",
    "span-corruption": "it was not made to tell hidden spans by a decoder",
}

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
        raise RecipeError(Problem(f"{family.known_as}: it has no token between the texts of a pair", "input.text"))
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
    table = next((shape for name, shape in shapes.items() if family.table and name.endswith(family.table)), (0, 0))
    beside = find_beside(checkpoint, family, config, shapes)
    has_pairs = any(section.objective == PAIRS for section in recipe.stages)
    resolve = partial(
        _resolve_stages,
        recipe,
        groups=groups,
        family=family,
        shapes=shapes,
        before=before,
        room=room,
        beside=beside,
        heads={
            "masked-language-modelling": language_head_parameters(width, *table),
            "replaced-token-detection": replacer_parameters(width, shapes),
            "next-sentence-prediction": pair_parameters(width, *table),
            "span-corruption": beside.decoder,
            "next": sample_head_parameters(width, config.get("quantization", 0)),
        },
        width=width,
        is_tied=config.get("tie_word_embeddings", family.is_tied),
        start=start,
        manifest=manifest,
        towers=tower_groups(checkpoint, lock.source) if has_pairs else (),
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
    if recipe.target.is_text:
        return {"writes": recipe.output.max_tokens, "prompt": recipe.input.prompt}
    separator = recipe.data.label.separator
    return {} if separator is None else {"separator": separator}


@dataclass(frozen=True)
class CacheRoom:
    """How much of a frozen part can be kept. budget, vector: bytes, the latter of one token's activations."""

    budget: int
    rows: int
    max_tokens: int
    vector: int

    def needed(self, is_pooled: bool, beside: int = 0) -> int:
        """Bytes at most. beside: rows that are kept, too."""
        return (self.rows + beside) * self.vector * (1 if is_pooled else self.max_tokens)


def _resolve_stages(
    recipe: Recipe,
    sections: Sequence[StageSection],
    place: str,
    groups: tuple[DepthGroup, ...],
    family: Family,
    shapes: Mapping[str, tuple[int, ...]],
    before: str,
    room: CacheRoom,
    beside: Beside,
    heads: Mapping[str, int],
    width: int,
    is_tied: bool,
    start: Start,
    manifest: DatasetManifest,
    towers: tuple[DepthGroup, ...],
) -> tuple[Stage, ...]:
    """Stages with their keys; a key covers everything before it, so a changed stage changes all later ones.

    place: of the sections in the recipe. heads: parameters of what a stage has that learns to tell hidden
    words, or what comes next. towers: depth groups of the tower of texts, for stages of pairs. From the checkpoint
    there is nothing yet to hold by `ewc`, and without its teacher a stage is an ordinary one.
    """
    stages: list[Stage] = []
    for index, section in enumerate(sections):
        where = f"{recipe.path}: {place}.{index}"
        has_adapters = "lora" in section.train
        adapters = plan_adapters(section.lora, family, shapes, groups, f"{where}.lora") if has_adapters else None
        hiding = _plan_hiding(section, family, heads, where)
        check_beside(section, beside, room.max_tokens, where)
        autoregression = _plan_autoregression(section, family, heads["next"], is_tied, where)
        auxiliary = _plan_auxiliary(section, width, recipe.head.layers, manifest)
        own = hiding or autoregression or auxiliary
        if section.train == (OBJECTIVE,):
            raise RecipeError(Problem("what this trains alone is gone when the stage is over", f"{where}.train"))
        own_parameters = own.parameters if own else 0
        pairs, beside_it = _plan_pairs(section, recipe, groups, towers, where)
        entries = section.train if pairs is None else split_targets(section)[0]
        wanted = (*entries, OBJECTIVE) if own_parameters else entries
        trained = trained_groups(wanted, stage_groups(groups, adapters, own_parameters), f"{where}.train")
        if recipe.target.is_text and not sum(group.parameters for group in trained):
            problem = "this checkpoint tells tokens by the table that it reads them by, and has no head of its own"
            raise RecipeError(Problem(problem, f"{where}.train", "train blocks, too: [top:1], or all"))
        if section.objective != "classification":  # the classifier's head learns nothing then, whatever `all` says
            trained = [group for group in trained if group.name != "head"]
        if section.body_dropout and normalised_groups(family, shapes) & {group.name for group in trained}:
            _check_batches(recipe, room.max_tokens, section.name)
        augment = section.augment.strengths
        is_pooled = [group.name for group in trained] == ["head"] and recipe.input.pooling != "attention"
        is_pooled = is_pooled and not (recipe.target.is_text or recipe.target.is_by_word)
        is_frozen = pairs is None and (is_pooled or frozen_blocks(trained) > 0)
        is_solved = section.solver == "lbfgs"
        # What the frozen part reads is the same from one epoch to the next.
        is_unchanged = not augment and hiding is None and autoregression is None and section.adversary is None
        may_be_kept = (
            is_frozen and (is_pooled or family.is_cut) and (is_solved or (recipe.train.prefix_cache and is_unchanged))
        )
        added = sum(each.counts.kept for each in manifest.auxiliary if each.name in section.auxiliary)
        kept_bytes = room.needed(is_pooled, added) if may_be_kept else 0
        is_cut = may_be_kept and (is_solved or kept_bytes <= room.budget)
        facts: dict[str, Any] = {
            "rates": peak_rates(section, trained, deepest=groups[-1].depth)
            | (peak_rates(section, beside_it, deepest=towers[-1].depth) if pairs else {}),
            "solver": section.solver,
            "strength": section.strength,
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
            "pairs": pairs,
            "is_pooled": is_cut and is_pooled,
            "adapters": adapters,
            "hiding": hiding,
            "autoregression": autoregression,
            "temperature": section.temperature if section.objective == "contrastive" else None,
            "adversary": section.adversary and Adversary(section.adversary.epsilon, section.adversary.steps),
            "ewc": section.ewc if start.warm else 0.0,
            "distil": _plan_distillation(section, start, manifest.classes),
            "auxiliary": auxiliary,
            "detects": section.objective == "replaced-token-detection",
            "sentences": beside.pair_source if section.objective == "next-sentence-prediction" else "",
            "span": section.span if section.objective == "span-corruption" else 0.0,
        }
        before = digest({"before": before, "index": index} | without_defaults(Stage, facts))
        trainable = sum(group.parameters for group in (*trained, *beside_it))
        stages.append(Stage(section.name, trainable=trainable, key=f"stage/{before}", kept_bytes=kept_bytes, **facts))
    return tuple(stages)


def _check_batches(recipe: Recipe, tokens: int, stage: str) -> None:
    """Raises RecipeError where a batch is one picture, of so many tokens, and batch normalisation is trained."""
    least = LEAST_ROWS * tokens
    if recipe.train.batch_tokens < least:
        problem = f"stage {stage!r}: batch normalisation takes {LEAST_ROWS} pictures at once, this is room for one"
        hint = f"at least {least}; or body_dropout: false, which keeps the statistics that the checkpoint has"
        raise RecipeError(Problem(problem, f"{recipe.path}: train.batch_tokens", hint))


def _plan_distillation(section: StageSection, start: Start, classes: tuple[str, ...]) -> Distillation | None:
    """What the stage learns from its teacher; None without one."""
    if section.distil is None:
        return None
    teacher = start.teacher(section.distil.teacher)
    if teacher is None:
        return None
    known = tuple(place for place, name in enumerate(classes) if name in teacher.classes)
    return Distillation(teacher.bundle, known, section.distil.weight, section.distil.temperature)


def _plan_auxiliary(
    section: StageSection, width: int, layers: tuple[int, ...], manifest: DatasetManifest
) -> Auxiliary | None:
    """What the stage learns from beside the run's rows: sets of them, and what their heads have, or None."""
    if not section.auxiliary:
        return None
    parameters = 0
    if section.objective == "classification":
        tasks = [each for each in manifest.auxiliary if each.name in section.auxiliary]
        parameters = sum(head_parameters(width, layers, len(each.classes), pooling="mean") for each in tasks)
        parameters += 1 + len(tasks) if section.weighting == "uncertainty" else 0
    return Auxiliary(section.auxiliary, section.sampling, section.weighting, parameters)


def _plan_pairs(
    section: StageSection,
    recipe: Recipe,
    groups: Sequence[DepthGroup],
    towers: Sequence[DepthGroup],
    where: str,
) -> tuple[Pairs | None, list[DepthGroup]]:
    """Of a stage of pictures and captions, and what it trains beside the body; None and nothing of others.

    Raises RecipeError for a stage that trains nothing which lasts.
    """
    if section.objective != PAIRS:
        return None, []
    body, beside = trained_pairs(section, groups, towers, f"{where}.train")
    if not body and recipe.prompts is None:
        problem = "what this trains alone is gone when the stage is over"
        raise RecipeError(Problem(problem, f"{where}.train", "a head of prompts (head.prompts) would be made of it"))
    split = recipe.data.split
    return Pairs(tuple(towers), split.validation, split.seed), beside


def _plan_hiding(section: StageSection, family: Family, heads: Mapping[str, int], where: str) -> Hiding | None:
    """Of a stage that learns from hidden words, else None. heads: parameters of each objective's.

    Raises RecipeError for a family that is not pretrained so.
    """
    if section.objective not in OF_OBJECTIVE["hidden_share"]:
        return None
    _check_made_so(family, section.objective, where)
    return Hiding(section.hidden_share, heads[section.objective])


def _plan_autoregression(
    section: StageSection, family: Family, head: int, is_tied: bool, where: str
) -> Autoregression | None:
    """Of a stage of autoregressive learning, whose head has so many parameters, else None.

    is_tied: the checkpoint tells tokens by the table that it reads them by. Raises RecipeError for a family, or a
    checkpoint, that is not pretrained so.
    """
    if section.objective != "autoregressive":
        return None
    _check_made_so(family, section.objective, where)
    if family.modality == "text" and not is_tied:
        problem = (
            "this checkpoint tells tokens by another table than it reads them by, which is no part of a classifier"
        )
        hint = "it is for checkpoints whose config.json has tie_word_embeddings: true, such as SmolLM's"
        raise RecipeError(Problem(problem, f"{where}.objective", hint))
    return Autoregression(head)


def _check_made_so(family: Family, objective: str, where: str) -> None:
    """Raises RecipeError for a family that a stage can't go on pretraining so, and names those that it can."""
    if not OBJECTIVES[objective](family):
        known = ", ".join(name for name, each in FAMILIES.items() if OBJECTIVES[objective](each))
        problem = f"{family.known_as}: {LACKS[objective]}"
        raise RecipeError(Problem(problem, f"{where}.objective", f"{objective} is for {known}"))


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
