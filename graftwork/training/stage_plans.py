"""What each stage of a recipe comes to: what it trains, what is kept of it, and under which key its result will lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from graftwork.data.manifest import DatasetManifest
from graftwork.errors import Problem, RecipeError
from graftwork.fingerprint import digest, without_defaults
from graftwork.models.beside import Beside
from graftwork.models.catalog import FAMILIES, LEAST_ROWS, OBJECTIVES, DepthGroup, Family, normalised_groups
from graftwork.recipe import Recipe
from graftwork.sections.stages import OF_OBJECTIVE, PAIRS, StageSection
from graftwork.training.pretraining import check_beside
from graftwork.training.stages import (
    OBJECTIVE,
    Adapters,
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
from graftwork.training.start import Start
from graftwork.training.text_tower import Pairs, split_targets

# Why a family can't go on being pretrained by an objective.
LACKS = {
    "masked-language-modelling": "it has no token that hides a word",
    "replaced-token-detection": "it was not made to tell words that were replaced",
    "autoregressive": "it was not made to tell what comes next",
    "next-sentence-prediction": "it was not made to tell whether one text follows another",
    "span-corruption": "it was not made to tell hidden spans by a decoder",
}


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


@dataclass(frozen=True)
class Ground:
    """What all stages of a plan stand on, told from records and headers.

    groups: depth groups of the model, shallowest first. shapes: of the checkpoint's tensors. width: of its last state.
    is_tied: it tells tokens by the table that it reads them by. heads: parameters of what a stage has that learns
    without labels, by its objective, or to tell what comes `next`. beside: what the checkpoint holds beside its body.
    towers: depth groups of the tower of texts, for stages of pairs.
    """

    recipe: Recipe
    manifest: DatasetManifest
    start: Start
    family: Family
    groups: tuple[DepthGroup, ...]
    shapes: Mapping[str, tuple[int, ...]]
    width: int
    is_tied: bool
    heads: Mapping[str, int]
    beside: Beside
    towers: tuple[DepthGroup, ...]
    room: CacheRoom


@dataclass(frozen=True)
class _Own:
    """What a stage has beside the classifier, each None or empty where it has not. groups: trained ones of a tower."""

    adapters: Adapters | None
    hiding: Hiding | None
    autoregression: Autoregression | None
    auxiliary: Auxiliary | None
    pairs: Pairs | None
    groups: list[DepthGroup]

    @property
    def parameters(self) -> int:
        """Of heads that it has as long as it lasts."""
        own = self.hiding or self.autoregression or self.auxiliary
        return own.parameters if own else 0


@dataclass(frozen=True)
class _Kept:
    """What is kept of the frozen part. cut: blocks below what is trained; 0 where nothing is. bytes: at most."""

    cut: int
    is_pooled: bool
    bytes: int


def plan_stages(ground: Ground, sections: Sequence[StageSection], place: str, before: str) -> tuple[Stage, ...]:
    """Stages with their keys; a key covers everything before it, so a changed stage changes all later ones.

    place: of the sections in the recipe. before: what names all that the first of them stands on. From the checkpoint
    there is nothing yet to hold by `ewc`, and without its teacher a stage is an ordinary one. Raises RecipeError.
    """
    stages: list[Stage] = []
    for index, section in enumerate(sections):
        where = f"{ground.recipe.path}: {place}.{index}"
        own = _plan_own(ground, section, where)
        trained = _plan_trained(ground, section, own, where)
        kept = _plan_kept(ground, section, own, trained)
        facts = _said_facts(section) | _planned_facts(ground, section, own, trained, kept)
        before = digest({"before": before, "index": index} | without_defaults(Stage, facts))
        trainable = sum(group.parameters for group in (*trained, *own.groups))
        stages.append(Stage(section.name, trainable=trainable, key=f"stage/{before}", kept_bytes=kept.bytes, **facts))
    return tuple(stages)


def _plan_own(ground: Ground, section: StageSection, where: str) -> _Own:
    has_adapters, family = "lora" in section.train, ground.family
    adapters = None
    if has_adapters:
        adapters = plan_adapters(section.lora, family, ground.shapes, ground.groups, f"{where}.lora")
    hiding = _plan_hiding(section, family, ground.heads, where)
    check_beside(section, ground.beside, ground.room.max_tokens, where)
    pairs, groups = _plan_pairs(section, ground, where)
    return _Own(
        adapters=adapters,
        hiding=hiding,
        autoregression=_plan_autoregression(section, family, ground.heads["next"], ground.is_tied, where),
        auxiliary=_plan_auxiliary(section, ground.width, ground.recipe.head.layers, ground.manifest),
        pairs=pairs,
        groups=groups,
    )


def _plan_trained(ground: Ground, section: StageSection, own: _Own, where: str) -> list[DepthGroup]:
    """The depth groups of the classifier, and of the stage's own heads, that it trains."""
    if section.train == (OBJECTIVE,):
        raise RecipeError(Problem("what this trains alone is gone when the stage is over", f"{where}.train"))
    entries = section.train if own.pairs is None else split_targets(section)[0]
    wanted = (*entries, OBJECTIVE) if own.parameters else entries
    trained = trained_groups(wanted, stage_groups(ground.groups, own.adapters, own.parameters), f"{where}.train")
    if ground.recipe.target.is_text and not sum(group.parameters for group in trained):
        problem = "this checkpoint tells tokens by the table that it reads them by, and has no head of its own"
        raise RecipeError(Problem(problem, f"{where}.train", "train blocks, too: [top:1], or all"))
    if section.objective != "classification":  # the classifier's head learns nothing then, whatever `all` says
        trained = [group for group in trained if group.name != "head"]
    if section.body_dropout and normalised_groups(ground.family, ground.shapes) & {group.name for group in trained}:
        _check_batches(ground.recipe, ground.room.max_tokens, section.name)
    return trained


def _plan_kept(ground: Ground, section: StageSection, own: _Own, trained: Sequence[DepthGroup]) -> _Kept:
    recipe, target = ground.recipe, ground.recipe.target
    is_head_alone = [group.name for group in trained] == ["head"] and recipe.input.pooling != "attention"
    is_pooled = is_head_alone and not (target.is_text or target.is_by_word)
    is_frozen = own.pairs is None and (is_pooled or frozen_blocks(trained) > 0)
    is_solved = section.solver == "lbfgs"
    # What the frozen part reads is the same from one epoch to the next.
    is_changed = section.augment.strengths or own.hiding or own.autoregression or section.adversary
    is_worth_it = is_solved or (recipe.train.prefix_cache and not is_changed)
    if not (is_frozen and is_worth_it and (is_pooled or ground.family.is_cut)):
        return _Kept(0, False, 0)
    added = sum(each.counts.kept for each in ground.manifest.auxiliary if each.name in section.auxiliary)
    size = ground.room.needed(is_pooled, added)
    has_room = is_solved or size <= ground.room.budget
    return _Kept(frozen_blocks(trained) if has_room else 0, has_room and is_pooled, size)


def _said_facts(section: StageSection) -> dict[str, Any]:
    """Those of a stage that its section says by itself."""
    return {
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
        "augment": section.augment.strengths,
        "temperature": section.temperature if section.objective == "contrastive" else None,
        "adversary": section.adversary and Adversary(section.adversary.epsilon, section.adversary.steps),
        "detects": section.objective == "replaced-token-detection",
        "span": section.span if section.objective == "span-corruption" else 0.0,
    }


def _planned_facts(
    ground: Ground, section: StageSection, own: _Own, trained: Sequence[DepthGroup], kept: _Kept
) -> dict[str, Any]:
    """Those of a stage that need more than its section."""
    rates = peak_rates(section, trained, deepest=ground.groups[-1].depth)
    if own.pairs is not None:
        rates |= peak_rates(section, own.groups, deepest=ground.towers[-1].depth)
    return {
        "rates": rates,
        "cut": kept.cut,
        "is_pooled": kept.is_pooled,
        "adapters": own.adapters,
        "hiding": own.hiding,
        "autoregression": own.autoregression,
        "auxiliary": own.auxiliary,
        "pairs": own.pairs,
        "ewc": section.ewc if ground.start.warm else 0.0,
        "distil": _plan_distillation(section, ground.start, ground.manifest.classes),
        "sentences": ground.beside.pair_source if section.objective == "next-sentence-prediction" else "",
    }


def head_parameters(width: int, hidden_layers: tuple[int, ...], classes: int, pooling: str) -> int:
    """Weights and biases of the head's linear layers, and what pooling learns."""
    sizes = (width, *hidden_layers, classes)
    query = width if pooling == "attention" else 0
    return query + sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))


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


def _plan_pairs(section: StageSection, ground: Ground, where: str) -> tuple[Pairs | None, list[DepthGroup]]:
    """Of a stage of pictures and captions, and what it trains beside the body; None and nothing of others.

    Raises RecipeError for a stage that trains nothing which lasts.
    """
    if section.objective != PAIRS:
        return None, []
    body, beside = trained_pairs(section, ground.groups, ground.towers, f"{where}.train")
    if not body and ground.recipe.prompts is None:
        problem = "what this trains alone is gone when the stage is over"
        raise RecipeError(Problem(problem, f"{where}.train", "a head of prompts (head.prompts) would be made of it"))
    split = ground.recipe.data.split
    return Pairs(ground.towers, split.validation, split.seed), beside


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
