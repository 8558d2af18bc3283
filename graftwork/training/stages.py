"""Stages as they will be run: which depth groups are trained, and at which learning rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from graftwork.errors import Problem, RecipeError, raise_if
from graftwork.models.adapters import Adapters, adapter_parameters
from graftwork.models.catalog import DepthGroup, Family, block_layers
from graftwork.sections.stages import LoraSection, StageSection
from graftwork.targets.catalog import MIXES
from graftwork.training.text_tower import OBJECTIVE, TEXTS, Pairs, split_targets

ATTENTION, ALL_LINEAR = "attention", "all-linear"


@dataclass(frozen=True)
class Averaging:
    """Of a stage's weights over its steps.

    ema: what the average keeps of itself at a step. after: share of the steps before the first that counts.
    """

    SCHEMA: ClassVar[int] = 1
    ema: float
    after: float


@dataclass(frozen=True)
class Hiding:
    """What a stage is that learns from hidden words. share: of a text's words, those. parameters: of its head.

    The head, or what writes words in their place, belongs to the stage alone: the depth group `objective`, beside the
    classifier's head, which rests.
    """

    SCHEMA: ClassVar[int] = 1
    share: float
    parameters: int


@dataclass(frozen=True)
class Autoregression:
    """What a stage is that learns to tell each sample of a sound, or each token of a text, from those before it.

    parameters: of its head; 0 where the table of tokens is one.
    """

    SCHEMA: ClassVar[int] = 1
    parameters: int


@dataclass(frozen=True)
class Adversary:
    """Who moves the embeddings of texts, or the pixels, against the training: so far, in so many steps."""

    SCHEMA: ClassVar[int] = 1
    epsilon: float
    steps: int


@dataclass(frozen=True)
class Distillation:
    """Who a stage learns from beside the labels. teacher: digest of its model folder.

    classes: places of those that the teacher knows, too. weight: of its answers in the loss; the labels' is the rest.
    temperature: what both models' logits are divided by before they are compared.
    """

    SCHEMA: ClassVar[int] = 1
    teacher: str
    classes: tuple[int, ...]
    weight: float
    temperature: float


@dataclass(frozen=True)
class Auxiliary:
    """What a stage learns from beside the run's rows. names: sets of rows. sampling: power of their sizes in an epoch.

    weighting: of tasks, as in the recipe. parameters: of their heads; 0 where no label is read.
    """

    SCHEMA: ClassVar[int] = 1
    names: tuple[str, ...]
    sampling: float
    weighting: str
    parameters: int


@dataclass(frozen=True)
class Stage:
    """Part of the training with one freeze depth and an optimiser of its own.

    rates: peak learning rate of each trained depth group, shallowest first; groups not named are frozen.
    trainable: parameters in training. cut: how many of the lowest blocks are frozen and computed once for each row, by
    the prefix cache; 0 if each step computes them. key: where its result lies in the store. adapters: what stands
    beside a frozen body while the stage lasts, and is merged into it at the end. augment: strength of each
    augmentation of the training rows. accumulate: batches of an optimiser step. average: of the weights over steps.
    l2_sp: strength of the pull to the weights that the stage began with. is_pooled: what is computed once for each row
    is its one pooled vector. solver: `adamw`, or `lbfgs` for the optimum of a head, where rates are 0 and epochs is 1.
    strength: of the solver's regularisation, inverse; None for the best on validation.
    head_start: `keep`, `fresh`, or what the logits of the head that it finds are scaled by. kept_bytes: what computing
    the frozen part once would take in the store, if every text were as long as may be; without a cut it was too much.
    body_dropout: whether the encoder drops out, as its checkpoint says, where it is trained.
    keep_epoch: whose weights the stage leaves: the best epoch by `log-loss` or `accuracy` on validation, or the `last`.
    hiding, autoregression: of a stage that learns from texts or sounds alone. temperature: of one that learns to bring
    rows of a class together. Where both are None, the head learns to tell the labels. adversary: None if rows are taken
    as they are. ewc: strength of the pull to those weights, of each by what it is worth to the rows that the model knew
    before. distil: None if rows are learnt from by their labels alone. auxiliary: None if they are the run's own alone.
    detects: whether hidden words are written anew, and told from the text's own, rather than told. sentences: by whose
    head it is told whether one part of a text follows another, beside hidden words, `checkpoint`, `pooler` or `new`, or
    "". span: mean tokens of hidden spans that a decoder tells; 0 where hidden words are. pairs: of a stage that learns
    from pictures and captions; None of others.
    """

    SCHEMA: ClassVar[int] = 1
    name: str
    rates: dict[str, float]
    trainable: int
    epochs: int
    schedule: str
    warmup: float
    weight_decay: float
    label_smoothing: float
    clip_norm: float
    patience: int | None
    class_weights: str
    cut: int
    key: str
    adapters: Adapters | None = None
    augment: dict[str, float] = field(default_factory=dict)
    accumulate: int = 1
    average: Averaging | None = None
    l2_sp: float = 0.0
    is_pooled: bool = False
    solver: str = "adamw"
    strength: float | None = None
    head_start: str | float = "keep"
    kept_bytes: int = 0
    keep_epoch: str = "log-loss"
    body_dropout: bool = True
    hiding: Hiding | None = None
    temperature: float | None = None
    adversary: Adversary | None = None
    autoregression: Autoregression | None = None
    ewc: float = 0.0
    distil: Distillation | None = None
    auxiliary: Auxiliary | None = None
    detects: bool = False
    sentences: str = ""
    span: float = 0.0
    pairs: Pairs | None = None

    @property
    def own_parameters(self) -> int:
        """Of the heads that belong to the stage alone; 0 where there is the classifier's and no other."""
        objective = self.hiding or self.autoregression or self.auxiliary
        return 0 if objective is None else objective.parameters

    @property
    def mixing(self) -> dict[str, float]:
        """What rows are mixed by; of `augment`."""
        return {name: strength for name, strength in self.augment.items() if name in MIXES}

    @property
    def reads_labels(self) -> bool:
        """False where it learns from what a row is, not from what it is called."""
        return self.hiding is None and self.autoregression is None and self.pairs is None

    @property
    def has_tasks(self) -> bool:
        """True if it learns labels of auxiliary rows, too."""
        return self.auxiliary is not None and self.reads_labels

    def groups_of(self, groups: Sequence[DepthGroup]) -> tuple[DepthGroup, ...]:
        """The depth groups that it has, given the classifier's."""
        beside = () if self.pairs is None else self.pairs.groups
        return (*stage_groups(groups, self.adapters, self.own_parameters), *beside)

    @property
    def is_cut(self) -> bool:
        """True if what is frozen is computed once for each row: blocks, or all of a body that may have none."""
        return self.is_pooled or self.cut > 0


def trained_groups(train: Sequence[str], groups: Sequence[DepthGroup], where: str) -> list[DepthGroup]:
    """The depth groups that a recipe's `train:` or `blocks:` names, shallowest first.

    Grammar: `all`, `top:k` (the k deepest blocks and the neck), or a group's own name, as `head` is.
    Raises RecipeError naming every entry that fits nothing.
    """
    by_name = {group.name: group for group in groups}
    blocks = [group for group in groups if group.name.startswith("block.")]
    chosen: set[str] = set()
    problems = []
    for entry in train:
        if entry == "all":
            chosen |= set(by_name)
        elif entry in by_name:
            chosen.add(entry)
        elif entry.startswith("top:") and entry[4:].isdigit() and 1 <= int(entry[4:]) <= len(blocks):
            chosen |= {group.name for group in blocks[-int(entry[4:]) :]} | ({"neck"} & set(by_name))
        else:
            tops = [f"top:1 … top:{len(blocks)}"] if blocks else []
            known = ", ".join(["all", *tops, *by_name])
            problems.append(Problem(f"{entry!r} names nothing to train", where=where, hint=f"known are {known}"))
    raise_if(problems, RecipeError)
    return [group for group in groups if group.name in chosen]


def trained_pairs(
    section: StageSection, groups: Sequence[DepthGroup], towers: Sequence[DepthGroup], where: str
) -> tuple[list[DepthGroup], list[DepthGroup]]:
    """The depth groups that a stage of pairs trains: of the body, and of what it has beside it.

    towers: of the tower of texts, and last what tells how near is near, which is always trained. Raises RecipeError as
    `trained_groups`.
    """
    of_pictures, of_texts = split_targets(section)
    *texts, scale = towers
    plain = {group.name.partition(".")[2]: group for group in texts}
    entries = ["all" if entry == TEXTS else entry.removeprefix(f"{TEXTS}.") for entry in of_texts]
    named = [replace(group, name=name) for name, group in plain.items()]
    body = trained_groups(of_pictures, groups, where)
    return body, [*(plain[group.name] for group in trained_groups(entries, named, where)), scale]


def plan_adapters(
    section: LoraSection,
    family: Family,
    shapes: Mapping[str, tuple[int, ...]],
    groups: Sequence[DepthGroup],
    where: str,
) -> Adapters:
    """The adapters that a recipe's `lora:` describes, for the checkpoint whose tensors have these shapes.

    Grammar of `targets`: `attention`, `all-linear`, or a layer's name, or the end of it, inside a block.
    Raises RecipeError naming every entry that fits nothing, and a rank that the layers don't have.
    """
    layers = block_layers(family, shapes)
    if not layers:
        problem = f"{family.known_as}: it has no blocks with linear layers that adapters could stand beside"
        raise RecipeError(Problem(problem, where, "train it without lora"))
    blocks = trained_groups(section.blocks, [group for group in groups if group.name in layers], f"{where}.blocks")
    names = sorted({name for inside in layers.values() for name in inside})
    chosen = {target: {name for name in names if _fits(target, name, family)} for target in section.targets}
    hint = f"known are {ATTENTION}, {ALL_LINEAR}, {', '.join(names)}"
    unknown = [target for target, fitting in chosen.items() if not fitting]
    raise_if((Problem(f"{t!r} names no linear layer", f"{where}.targets", hint) for t in unknown), RecipeError)
    adapted = {
        f"{block.prefixes[0]}{name}": shape
        for block in blocks
        for name, shape in layers[block.name].items()
        if name in set().union(*chosen.values())
    }
    most = min(map(min, adapted.values()))
    if section.rank > most:
        raise RecipeError(Problem(f"the narrowest of the layers has rank {most}, no more", f"{where}.rank"))
    return Adapters(
        rank=section.rank,
        alpha=section.alpha or 2.0 * section.rank,
        dropout=section.dropout,
        dora=section.dora,
        layers=tuple(adapted),
        depth=blocks[0].depth,
        parameters=sum(adapter_parameters(section.rank, section.dora, *shape) for shape in adapted.values()),
    )


def stage_groups(
    groups: Sequence[DepthGroup], adapters: Adapters | None, own_parameters: int = 0
) -> tuple[DepthGroup, ...]:
    """The depth groups of a stage: adapters, if it has any, between body and head; above it heads of its own."""
    *body, head = groups
    beside = () if adapters is None else (adapters.group,)
    above = (DepthGroup(OBJECTIVE, head.depth + 1, own_parameters, (f"{OBJECTIVE}.",)),) if own_parameters else ()
    return (*body, *beside, head, *above)


def frozen_blocks(trained: Sequence[DepthGroup]) -> int:
    """How many blocks lie below everything that is trained."""
    return max(0, min(group.depth for group in trained) - 1)


def peak_rates(section: StageSection, trained: Sequence[DepthGroup], deepest: int) -> dict[str, float]:
    """The learning rate of each trained group: the head's multiplied, the body's decayed with distance from the head.

    A stage that is solved has none: 0.
    Method: discriminative fine-tuning (ULMFiT, Howard and Ruder 2018); rate x layer_decay ** blocks above.
    """
    new = ("head", OBJECTIVE)
    return {
        group.name: (section.learning_rate or 0.0)
        * (section.head_multiplier if group.name in new else section.layer_decay ** (deepest - 1 - group.depth))
        for group in trained
    }


def _fits(target: str, layer: str, family: Family) -> bool:
    if target == ATTENTION:
        return family.has_attention and layer.startswith(family.attention)
    if target == ALL_LINEAR:
        return True
    return f".{layer}".endswith(f".{target}")
