"""The recipe: what a user writes, checked and turned into records. Below it, functions take plain arguments.

Not here: where things live (settings), when a model may be promoted (policy), and whether the data or the checkpoint
that a recipe names are any good.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from io import StringIO
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from graftwork.documents import Section, override_document, read_document, validate_document
from graftwork.errors import Problem, RecipeError, raise_if
from graftwork.fields import Amount, Count, Duration, LandingUrl, Rate, Share, Whole, Word
from graftwork.fingerprint import digest
from graftwork.policy import BaselineName
from graftwork.presets import PRESETS, expand_stages
from graftwork.targets.catalog import MIXES, MULTI_LABEL, TARGETS, target_of
from graftwork.targets.target import Target

DIGEST_VERSION = 1
PLACES: dict[str, Any] = {"sources": {"__all__": {"path", "url"}}}  # where rows lie says nothing of what they are
TFIDF = "tfidf"  # the baseline that is of texts
NOUNS = {"text": "texts", "image": "pictures", "audio": "sounds"}  # by what a model reads
# Of an input and of a stage, what is not said of every kind of rows.
OF_INPUT = {"text": {"max_tokens"}, "image": {"side"}, "audio": {"seconds"}}
OF_STAGE = {
    "text": {
        "word_dropout",
        "word_deletion",
        "word_swap",
        "adversary",
        "masked-language-modelling",
        "replaced-token-detection",
    },
    "image": {"crop", "flip", "colour", "rand", "mixup", "cutmix", "adversary"},
    "audio": {"noise", "gain", "shift", "mask"},
}
LIKENESS = {"image": 0.95, "audio": 0.88}  # of the bits that tell what a picture looks like, or a sound is like
# A project's root is the nearest folder upward that holds one of these.
ROOT_MARKS = (".graftwork", "pyproject.toml", ".git")
TEACHER = r"^(champion|[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9._-]+|/[1-9][0-9]*))$"
# What a stage may say that is solved to its optimum.
SOLVED_KEYS = {"name", "train", "solver", "strength", "class_weights"}
# What says something of some objectives alone, and of stages that learn one task.
OF_OBJECTIVE = {
    "hidden_share": ("masked-language-modelling", "replaced-token-detection"),
    "temperature": ("contrastive",),
}
ONE_TASK = {"class_weights", "distil", "ewc"} | MIXES
# What says something of the head that tells labels, or of what it learns from.
OF_HEAD = {"solver", "strength", "head_start", "class_weights", "label_smoothing", "augment", "ewc", "distil"}


def _project_path(path: Path, info: ValidationInfo) -> Path:
    """A relative path that stays inside the project, symbolic links followed; an absolute one is taken at its word."""
    if re.match(r"[a-z0-9+.-]+:/", str(path), re.IGNORECASE):
        raise ValueError("a path is a file or a folder here; for one elsewhere write url: instead")
    root = info.context["root"] if info.context else Path.cwd()
    if not (path.is_absolute() or (root / path).resolve().is_relative_to(root)):
        raise ValueError(f"the path leaves the project {root}; if that is meant, write it as an absolute path")
    return path


def _train_target(target: str) -> str:
    if not re.fullmatch(r"head|all|top:[1-9][0-9]{0,3}|(?!top)[a-z][a-z0-9_.]*", target):
        raise ValueError("expected head, lora, all, top:k with k from 1 on, or the name of a depth group")
    return target


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _readable(data: "DataSection", info: ValidationInfo) -> "DataSection":
    """The data, if its label is one of what is learnt."""
    if "problem_type" not in info.data:
        return data
    target = target_of(info.data["problem_type"])
    _check_label(data.label, target)
    if target.is_number and data.conflicts == "quarantine" and "conflicts" in data.model_fields_set:
        raise ValueError("conflicts: of the numbers of equal texts the mean is taken: leave it out, or say keep")
    return data


def _check_label(label: "LabelSection", target: Target) -> None:
    """Raise ValueError for a label that is not one of what is learnt."""
    foreign = sorted(label.model_fields_set - {"column"} - target.label_keys)
    if not isinstance(label.column, str) and target is not MULTI_LABEL:
        foreign.append("a list of columns")
    if foreign:
        raise ValueError(f"label: {foreign[0]} is not for {target.known_as}")
    if target is MULTI_LABEL and isinstance(label.column, str) and label.separator is None:
        raise ValueError("label: say which separator stands between classes, or name a column for each class")
    if not (label.classes or target.is_number or isinstance(label.column, tuple)):
        raise ValueError("label.classes is missing")


def _meaningful(stages: "tuple[StageSection, ...]", info: ValidationInfo) -> "tuple[StageSection, ...]":
    """The stages, if they and those of `start` ask for nothing that means nothing where the target is learnt."""
    if "problem_type" not in info.data:
        return stages
    target = target_of(info.data["problem_type"])
    for stage in (*stages, *(("start" in info.data and info.data["start"].stages) or ())):
        asked = {*stage.asked, stage.objective, f"keep_epoch: {stage.keep_epoch}"}
        refused = sorted(asked & target.refused)
        if refused:
            raise ValueError(f"{refused[0]} of {stage.name} is not for {target.known_as}")
    return stages


def _as_group(value: Any) -> Any:
    return {"from": value} if isinstance(value, str) else value


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    names = [getattr(value, "name", value) for value in values]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names:
        raise ValueError("at least one is needed")
    if twice:
        raise ValueError(f"{', '.join(twice)} is there more than once")
    return values


def _text_columns(value: Any) -> Any:
    names = [value] if isinstance(value, str) else value
    if not (isinstance(names, list | tuple) and len(names) in (1, 2) and all(isinstance(n, str) and n for n in names)):
        raise ValueError("expected a column, or a list of two for pairs of texts")
    return names[0] if len(names) == 1 else tuple(names)


def _label_columns(value: Any) -> Any:
    names = [value] if isinstance(value, str) else value
    if not (isinstance(names, list | tuple) and names and all(isinstance(name, str) and name for name in names)):
        raise ValueError("expected a column, or a list of them, one for each class")
    return value if isinstance(value, str) else _distinct(tuple(names))


def _needed_by_adamw(value: Any, info: ValidationInfo) -> Any:
    if value is None and info.data.get("solver") != "lbfgs":
        raise PydanticCustomError("missing", "Field required")
    return value


def _head_start(value: Any) -> Any:
    is_factor = isinstance(value, float) and 0 < value < 1
    if not (is_factor or value in ("keep", "fresh")):
        raise ValueError("expected keep, fresh, or a factor between 0 and 1")
    return value


def _solvable(stages: "tuple[StageSection, ...]", info: ValidationInfo) -> "tuple[StageSection, ...]":
    """The stages, if those that are solved, and those of `start`, have a head that can be: a linear layer, no more."""
    every = [*stages, *(("start" in info.data and info.data["start"].stages) or ())]
    names = ", ".join(stage.name for stage in every if stage.solver == "lbfgs")
    if names and "head" in info.data and info.data["head"].layers:
        raise ValueError(f"solver lbfgs of {names} is for a head without hidden layers (head.layers: [])")
    if names and "input" in info.data and info.data["input"].pooling == "attention":
        raise ValueError(
            f"solver lbfgs of {names} is for pooling that learns nothing (input.pooling: mean, cls or max)"
        )
    return stages


Column = Annotated[str, Field(min_length=1)]
ProjectPath = Annotated[Path, AfterValidator(_project_path)]
TrainTarget = Annotated[str, AfterValidator(_train_target)]
Targets = Annotated[
    tuple[TrainTarget, ...],
    BeforeValidator(_as_list, json_schema_input_type=tuple[TrainTarget, ...] | TrainTarget),
    AfterValidator(_distinct),
]


class GroupSection(Section):
    """The group of a row: a column's text, or the part of it before a separator."""

    column: Column = Field(alias="from")
    before: str | None = Field(default=None, min_length=1)


class SourceSection(Section):
    """One file, or a folder that files land in, here or elsewhere."""

    name: Word
    path: ProjectPath | None = None
    url: LandingUrl | None = Field(
        default=None, description="Instead of a path: a folder in a bucket, such as s3://bucket/landing."
    )
    format: Literal["csv", "tsv", "jsonl", "parquet"] | None = Field(
        default=None, description="By default from the suffix."
    )
    header: Annotated[tuple[Column, ...], AfterValidator(_distinct)] | None = Field(
        default=None, description="The columns of a file without a header line."
    )
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    encoding: str = "utf-8"
    id: Column | None = Field(default=None, description="Column with the row's id.")
    group: Annotated[GroupSection, BeforeValidator(_as_group, json_schema_input_type=GroupSection | str)] | None = None

    @model_validator(mode="after")
    def _check(self) -> "SourceSection":
        if (self.path is None) == (self.url is None):
            raise ValueError("expected either path or url")
        names_its_columns = (self.format or PurePath(self.path or "").suffix.removeprefix(".")) in ("jsonl", "parquet")
        if names_its_columns and (self.header or self.delimiter):
            raise ValueError("header and delimiter are for CSV and TSV files; this format names its columns")
        return self

    @property
    def place(self) -> Path | str:
        """The path, or the URL."""
        if self.url is not None:
            return self.url
        assert self.path is not None
        return self.path


class LabelSection(Section):
    """What is learnt of a row, as `problem_type` says. `classes` pins the order.

    Its class: a column as it is, mapped, or compared with a threshold. Its classes: a column that lists them with a
    separator between, mapped or not, or a column of 0 and 1 for each. A number: a column as it is.
    """

    column: Annotated[
        str | tuple[str, ...], BeforeValidator(_label_columns, json_schema_input_type=str | tuple[str, ...])
    ] = Field(alias="from")
    threshold: float | None = Field(default=None, strict=True, description="The second class is above it.")
    map: dict[str, str] | None = Field(default=None, min_length=1, description="Raw text to class.")
    separator: str | None = Field(default=None, min_length=1, description="Between the classes that a cell lists.")
    classes: Annotated[tuple[str, ...], AfterValidator(_distinct)] = ()

    @model_validator(mode="after")
    def _check(self) -> "LabelSection":
        if len(self.classes) == 1 and self.separator is None and isinstance(self.column, str):
            raise ValueError("at least two classes are needed")
        if not isinstance(self.column, str) and (self.separator or self.map):
            raise ValueError("several columns hold 0 or 1 each, and take neither separator nor map")
        if not isinstance(self.column, str) and self.classes and len(self.classes) != len(self.column):
            raise ValueError(f"{len(self.column)} columns tell as many classes, in their order")
        if self.threshold is not None and self.map is not None:
            raise ValueError("a label has a threshold or a map, not both")
        if self.threshold is not None and len(self.classes) != 2:
            raise ValueError("a threshold makes two classes: the one at or below it, then the one above it")
        if self.map is not None and set(self.map.values()) != set(self.classes):
            raise ValueError("the map must give each of `classes`, and nothing else")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that tell it."""
        return (self.column,) if isinstance(self.column, str) else self.column

    def names(self, target: Target) -> tuple[str, ...]:
        """Its classes in their order; of a number, and of columns without other names, the columns that tell them."""
        has_names = target.is_number or not isinstance(self.column, str)
        return self.classes or (self.columns if has_names else ())


class SplitSection(Section):
    """Shares of the rows, and what must stay on one side."""

    holdout: Share = 0.15
    validation: Share = 0.10
    by: tuple[Literal["group", "near_duplicate"], ...] = ("group", "near_duplicate")
    seed: Whole = 0
    near_duplicate: float = Field(
        default=0.8,
        strict=True,
        gt=0,
        le=1,
        description="Jaccard similarity of shingles; of pictures 0.95, of sounds 0.88, of bits.",
    )

    @model_validator(mode="after")
    def _check(self) -> "SplitSection":
        if not (self.holdout > 0 and self.validation > 0 and self.holdout + self.validation < 1):
            raise ValueError("holdout and validation must both be above 0 and leave something to train on")
        return self


class DataSection(Section):
    """Which rows, what their class is, and how they are split."""

    sources: Annotated[tuple[SourceSection, ...], AfterValidator(_distinct)]
    label: LabelSection
    contract: ProjectPath | None = None
    conflicts: Literal["quarantine", "keep"] = Field(
        default="quarantine", description="Equal texts with different labels; of numbers the mean is taken."
    )
    split: SplitSection = SplitSection()
    quarantine_tolerance: Share = Field(default=0.05, description="Share of the rows that may be set aside.")


class AuxiliarySection(Section):
    """Rows beside `data` that stages may learn from, too, with labels of their own or without; none is judged by."""

    name: Word
    sources: Annotated[tuple[SourceSection, ...], AfterValidator(_distinct)]
    columns: (
        Annotated[str | tuple[str, str], PlainValidator(_text_columns, json_schema_input_type=str | tuple[str, str])]
        | None
    ) = Field(default=None, description="What is read of a row; by default the columns of `input`.")
    label: LabelSection | None = Field(default=None, description="None: rows that nobody labelled.")
    learns: Literal["classification", "multi-label", "regression"] | None = Field(
        default=None, description="What is learnt of the label; by default what the recipe learns."
    )

    @model_validator(mode="after")
    def _check(self) -> "AuxiliarySection":
        if self.label is None and self.learns is not None:
            raise ValueError("learns says what is learnt of a label, and there is none")
        return self


class InputSection(Section):
    """What the model sees of a row."""

    text: (
        Annotated[str | tuple[str, str], PlainValidator(_text_columns, json_schema_input_type=str | tuple[str, str])]
        | None
    ) = Field(default=None, description="A column, or two for pairs of texts.")
    image: Column | None = Field(
        default=None, description="Instead of text: the column with a picture's path, `file` of pictures by themselves."
    )
    audio: Column | None = Field(default=None, description="The same of recordings.")
    max_tokens: Count = 128
    side: Count | None = Field(
        default=None, description="Pixels of the square that pictures become; by default as the checkpoint was made."
    )
    seconds: Rate | None = Field(default=None, description="Of a recording, the most that is heard: its middle.")
    pooling: Literal["mean", "cls", "last", "max", "attention"] | None = Field(
        default=None, description="By default what the checkpoint was made with."
    )

    @model_validator(mode="after")
    def _check(self) -> "InputSection":
        if [self.text, self.image, self.audio].count(None) != 2:
            raise ValueError("expected one of text, image and audio")
        for kind, keys in OF_INPUT.items():
            if kind != self.modality and keys & self.model_fields_set:
                raise ValueError(f"{', '.join(keys)} is for {NOUNS[kind]}")
        return self

    @property
    def modality(self) -> str:
        """What the model reads: text, image or audio."""
        return next(kind for kind in NOUNS if getattr(self, kind) is not None)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of what the model reads."""
        named: str | tuple[str, str] = getattr(self, self.modality)
        return (named,) if isinstance(named, str) else named


class CheckpointSection(Section):
    """The pretrained weights to start from."""

    source: str = Field(pattern=r"^(pkg|file|hf)://", description="pkg://, file:// or hf://owner/name@<40 hex>")
    licences: Annotated[tuple[str, ...], AfterValidator(_distinct)] = Field(description="Licences that may be used.")


class HeadSection(Section):
    """The layers that are added on top."""

    layers: tuple[Count, ...] = Field(default=(), description="Widths of hidden layers.")
    dropout: Share = 0.1


class TrainSection(Section):
    """What all stages have in common."""

    seed: Whole = 0
    batch_tokens: Count = 4096
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    prefix_cache: bool = True


class LoraSection(Section):
    """The adapters of a stage that trains `lora`."""

    rank: Count = 8
    alpha: Rate | None = Field(default=None, description="By default twice the rank.")
    dropout: Share = 0.0
    targets: Annotated[
        tuple[Word, ...],
        BeforeValidator(_as_list, json_schema_input_type=tuple[Word, ...] | Word),
        AfterValidator(_distinct),
    ] = Field(default=("all-linear",), description="attention, all-linear, or ends of the names of linear layers.")
    blocks: Targets = ("all",)
    dora: bool = False


class RandSection(Section):
    """RandAugment: a few operations on a picture, drawn from a fixed list, all of one magnitude."""

    operations: Count = Field(default=2, description="How many are drawn for a picture.")
    magnitude: float = Field(default=9.0, strict=True, ge=0, le=30, description="Their strength, of 30 at most.")


class AugmentSection(Section):
    """What is done to training rows anew in each epoch."""

    word_dropout: Share = Field(default=0.0, description="Probability that a word is made blank.")
    word_deletion: Share = Field(default=0.0, description="Probability that a word is left out.")
    word_swap: Share = Field(default=0.0, description="Times that two words change places, as a share of their number.")
    crop: Share = Field(default=0.0, description="Largest share of a picture's area that is left out.")
    flip: Share = Field(default=0.0, description="Probability that a picture is mirrored.")
    colour: Share = Field(
        default=0.0, description="Most that a picture's brightness, contrast and saturation change, as a share."
    )
    rand: RandSection | None = None
    mixup: Amount = Field(
        default=0.0, description="Pictures are blended with others by a share of Beta(it, it), and so are labels."
    )
    cutmix: Amount = Field(
        default=0.0, description="A piece of another picture is pasted, of a share of Beta(it, it), and so of labels."
    )
    noise: Share = Field(default=0.0, description="Loudest noise beside a recording, as a share of its own loudness.")
    gain: Amount = Field(default=0.0, description="Most that a recording is made louder or softer, in decibels.")
    shift: Share = Field(default=0.0, description="Most that a recording is moved in time, as a share of its length.")
    mask: Share = Field(default=0.0, description="Largest share of a recording that is silenced.")

    @property
    def strengths(self) -> dict[str, float]:
        """Of each augmentation that is asked for, by name."""
        asked: dict[str, float] = self.model_dump(exclude_defaults=True, exclude={"rand"})
        rand = {} if self.rand is None else {f"rand_{name}": float(value) for name, value in self.rand}
        return asked | rand


class AverageSection(Section):
    """The average of the weights over the steps, which takes their place when a stage is validated and when it ends."""

    ema: float = Field(strict=True, gt=0, lt=1, description="What the average keeps of itself at a step.")
    after: Share = Field(default=0.0, description="Share of the steps before the first that counts.")


class AdversarySection(Section):
    """Training on rows that are moved to where the loss rises, beside the rows as they are."""

    epsilon: Rate = Field(
        default=1.0,
        description="How far a text's embeddings are moved, over all its tokens; or a pixel, as a share of its range.",
    )
    steps: Count = 1


class DistilSection(Section):
    """A model that answers the training rows, and whose answers are learnt beside their labels."""

    teacher: Annotated[str, Field(pattern=TEACHER)] = Field(
        alias="from", description="champion: of this model. NAME@ALIAS or NAME/3: any that is registered."
    )
    weight: float = Field(
        default=0.5, strict=True, gt=0, le=1, description="Of its answers in the loss; the rest is the labels'."
    )
    temperature: Rate = Field(default=2.0, description="What both models' logits are divided by to be compared.")


class StageSection(Section):
    """One depth trained in one way; the defaults are those of a fine-tuning that knows no better.

    epochs, learning_rate: None only where the solver is lbfgs, which needs neither.
    """

    name: Word
    train: Targets
    lora: LoraSection = LoraSection()
    solver: Literal["adamw", "lbfgs"] = Field(
        default="adamw", description="lbfgs: a head by itself, solved to its optimum."
    )
    strength: Rate | None = Field(
        default=None,
        description="Of solver lbfgs, the inverse of the L2 regularisation; by default the best of six on validation.",
    )
    epochs: Annotated[Count | None, AfterValidator(_needed_by_adamw)] = Field(default=None, validate_default=True)
    learning_rate: Annotated[Rate | None, AfterValidator(_needed_by_adamw)] = Field(default=None, validate_default=True)
    head_start: Annotated[
        Literal["keep", "fresh"] | float,
        PlainValidator(_head_start, json_schema_input_type=Literal["keep", "fresh"] | float),
    ] = Field(default="keep", description="The head it begins with: as it is, a new one, or with its logits scaled.")
    head_multiplier: Rate = Field(default=1.0, description="The head's learning rate over that of the body.")
    layer_decay: float = Field(
        default=1.0, strict=True, gt=0, le=1, description="Learning rate of a group over the next one."
    )
    warmup: Share = Field(default=0.1, description="Share of the steps.")
    schedule: Literal["linear", "cosine", "constant", "one-cycle"] = "linear"
    weight_decay: Amount = 0.01
    label_smoothing: Share = 0.0
    body_dropout: bool = Field(default=True, description="False: what is pretrained is trained without dropout.")
    clip_norm: Rate = 1.0
    keep_epoch: Literal["log-loss", "accuracy", "last"] = Field(
        default="log-loss",
        description="The epoch whose weights it leaves: the best by this on validation, or the last.",
    )
    patience: Count | None = Field(default=None, description="Epochs without a better one before it stops.")
    class_weights: Literal["none", "balanced"] = "none"
    augment: AugmentSection = AugmentSection()
    accumulate: Count = Field(default=1, description="Batches of an optimiser step.")
    average: AverageSection | None = None
    objective: Literal[
        "classification",
        "contrastive",
        "masked-language-modelling",
        "replaced-token-detection",
        "autoregressive",
    ] = Field(
        default="classification",
        description="contrastive: bring rows of a class together. masked-language-modelling, replaced-token-detection: "
        "learn from texts alone. autoregressive: learn from sounds, or from texts, alone what comes next.",
    )
    hidden_share: Share = Field(default=0.15, description="Of a text's words, those that are hidden and told.")
    temperature: Rate = Field(
        default=0.1, description="Of likeness in a contrastive stage: small ones tell close rows."
    )
    adversary: AdversarySection | None = None
    l2_sp: Amount = Field(default=0.0, description="Strength of the pull to the weights the stage began with.")
    ewc: Amount = Field(
        default=0.0, description="The same, but of each weight by what it is worth to the rows the champion knows."
    )
    distil: DistilSection | None = None
    auxiliary: Annotated[
        tuple[Word, ...],
        BeforeValidator(_as_list, json_schema_input_type=tuple[Word, ...] | Word),
    ] = Field(default=(), description="Which of `auxiliary` it learns from, too: their labels by heads of their own.")
    sampling: float = Field(
        default=1.0,
        strict=True,
        ge=0,
        le=1,
        description="How many rows of each an epoch has: in proportion to their number to this power.",
    )
    weighting: Literal["equal", "uncertainty"] = Field(
        default="equal",
        description="What tasks count: the same, or the less, the less sure the model can be of their labels.",
    )

    @property
    def asked(self) -> set[str]:
        """The keys, and those of `augment`, that are not as they are by default."""
        return {*self.model_dump(exclude_defaults=True), *self.augment.model_dump(exclude_defaults=True)}

    @model_validator(mode="after")
    def _check(self) -> "StageSection":
        if "lora" in self.model_fields_set and "lora" not in self.train:
            raise ValueError("it says what adapters are like, but its `train` does not name lora")
        if "lora" in self.train and not {"lora", "head"}.issuperset(self.train):
            raise ValueError("adapters stand beside a body that is frozen: only the head is trained with lora")
        if "lora" in self.train and self.layer_decay != 1:
            raise ValueError("layer_decay makes rates of depth groups differ, and all adapters are one")
        pull = next((name for name in ("l2_sp", "ewc") if getattr(self, name)), None)
        if "lora" in self.train and pull:
            raise ValueError(f"{pull} holds the body where it began, and adapters leave it there")
        if self.lora.dropout and not self.body_dropout:
            raise ValueError("lora.dropout asks for what body_dropout: false forbids")
        mixed = self.asked & MIXES
        if mixed and self.distil:
            raise ValueError(f"{min(mixed)} makes pictures that the teacher of distil is not asked about")
        if self.patience is not None and self.keep_epoch == "last":
            raise ValueError("patience waits for a better epoch, and keep_epoch: last keeps the last whatever it is")
        return self

    @model_validator(mode="after")
    def _check_objective(self) -> "StageSection":
        for key, objectives in OF_OBJECTIVE.items():
            if key in self.model_fields_set and self.objective not in objectives:
                raise ValueError(f"{key} is for objective: {' or '.join(objectives)}")
        if self.objective == "classification":
            return self
        if {"head", "lora"} & set(self.train):
            raise ValueError(f"objective {self.objective} needs no head and trains none: say all, or top:4")
        meant = self.model_dump(exclude_defaults=True).keys() & OF_HEAD
        if meant:
            raise ValueError(f"objective {self.objective} trains no head and takes no {', '.join(sorted(meant))}")
        return self

    @model_validator(mode="after")
    def _check_auxiliary(self) -> "StageSection":
        meant = sorted({"sampling", "weighting"} & self.model_fields_set)
        if meant and not self.auxiliary:
            raise ValueError(f"{meant[0]} is of auxiliary rows: name them with `auxiliary`")
        if not self.auxiliary:
            return self
        if self.weighting == "uncertainty" and self.objective != "classification":
            raise ValueError(f"weighting is of tasks that are told by labels, and {self.objective} reads none")
        refused = sorted(self.asked & ONE_TASK)
        if self.objective == "contrastive":
            refused.append("objective: contrastive")
        if refused:
            raise ValueError(f"{refused[0]} is for a stage of one task, and this one has auxiliary rows")
        if self.train == ("head",):
            raise ValueError("auxiliary rows teach the body, and this stage trains just the head")
        return self

    @model_validator(mode="after")
    def _check_head(self) -> "StageSection":
        if self.head_start != "keep" and not {"head", "all"} & set(self.train):
            raise ValueError("head_start is for a stage that trains the head")
        if self.head_start != "keep" and self.ewc:
            raise ValueError("ewc holds the head, too, where it was left, and head_start asks for another")
        if self.solver == "adamw":
            if self.strength is not None:
                raise ValueError("strength is for solver: lbfgs")
            return self
        if self.train != ("head",):
            raise ValueError("solver lbfgs is for a stage that trains just the head (train: head)")
        meant = self.model_dump(exclude_defaults=True).keys() - SOLVED_KEYS
        if meant:
            raise ValueError(f"solver lbfgs finds the optimum and takes no {', '.join(sorted(meant))}")
        return self


def _labelled_at_last(stages: tuple[StageSection, ...]) -> tuple[StageSection, ...]:
    """Whatever is learnt from texts alone comes before what is learnt from labels."""
    if stages and stages[-1].objective != "classification":
        raise ValueError("the last stage has to train a classifier: objective: classification")
    return stages


Stages = Annotated[
    tuple[StageSection, ...],
    BeforeValidator(expand_stages, json_schema_input_type=tuple[StageSection, ...] | Literal[*PRESETS] | dict),
    AfterValidator(_distinct),
    AfterValidator(_labelled_at_last),
]


class StartSection(Section):
    """Which weights training starts from. All but `from` is for the champion's."""

    origin: Literal["checkpoint", "champion"] = Field(default="checkpoint", alias="from")
    replay: Amount = Field(default=1.0, description="Rows that the champion knows, for each row that is new to it.")
    scratch_every: Count = Field(default=10, description="Of so many runs in a row, one starts from the checkpoint.")
    stages: Stages | None = Field(default=None, description="From the champion on; by default the last of `stages`.")

    @model_validator(mode="after")
    def _check(self) -> "StartSection":
        given = sorted(self.model_fields_set - {"origin"})
        if self.origin == "checkpoint" and given:
            raise ValueError(f"{', '.join(given)} would change nothing: say `from: champion`")
        return self


class EvaluationSection(Section):
    """What is measured beside the model itself."""

    baselines: tuple[BaselineName, ...] = ("majority", "tfidf", "frozen-head")
    slices: tuple[Column, ...] = ()
    bootstrap: Count = Field(default=1000, description="Samples behind each interval.")


class ScheduleSection(Section):
    """When a run starts by itself, whether data has landed or not."""

    cron: str | None = Field(default=None, description="Minute, hour, day of the month, month, day of the week.")
    timezone: str = "UTC"
    interval: Duration | None = None

    @model_validator(mode="after")
    def _check(self) -> "ScheduleSection":
        if (self.cron is None) == (self.interval is None):
            raise ValueError("expected either cron or interval")
        return self


class RetrainSection(Section):
    """When and where to train again: not part of the digest."""

    min_rows: Count = Field(default=1, description="Fewer rows than this that came or went wait for more.")
    quiet: Duration = Field(default=timedelta(minutes=10), description="Nothing may change for so long.")
    max_wait: Duration = Field(default=timedelta(days=7), description="After this, what is there is enough.")
    while_running: Literal["coalesce"] = "coalesce"
    schedule: ScheduleSection | None = None


class ResourcesSection(Section):
    """What a run may use: not part of the digest."""

    pool: Word | None = None
    time_limit: Duration | None = None


def _named_apart(auxiliary: tuple[AuxiliarySection, ...]) -> tuple[AuxiliarySection, ...]:
    return _distinct(auxiliary) if auxiliary else auxiliary


def _check_auxiliary(recipe: "Recipe") -> None:
    """Raise ValueError for auxiliary rows that can't be read or learnt from as the recipe says."""
    known = {each.name: each for each in recipe.auxiliary}
    _distinct(recipe.sources)
    for each in recipe.auxiliary:
        target = recipe.learnt_of(each)
        if target is not None and each.label is not None:
            _check_label(each.label, target)
        if len(recipe.columns_of(each)) != len(recipe.input.columns):
            raise ValueError(
                f"auxiliary {each.name!r}: a row is read by {len(recipe.input.columns)} columns, as in `input`"
            )
    for stage in recipe.every_stage:
        unknown = sorted(set(stage.auxiliary) - known.keys())
        if unknown:
            raise ValueError(f"stage {stage.name!r}: no auxiliary rows are called {unknown[0]!r}")
        unlabelled = [name for name in stage.auxiliary if known[name].label is None]
        if unlabelled and stage.objective == "classification":
            raise ValueError(f"stage {stage.name!r}: auxiliary rows {unlabelled[0]!r} have no label to learn")


def _check_modality(recipe: "Recipe", read: str) -> None:
    """Raise ValueError for what is said of rows of another kind than the recipe's."""
    if read != "text" and TFIDF in recipe.evaluation.baselines and "baselines" in recipe.evaluation.model_fields_set:
        raise ValueError("evaluation.baselines: tfidf is for texts")
    for stage in recipe.every_stage:
        asked = set(stage.augment.model_dump(exclude_defaults=True))
        if stage.adversary is not None:
            asked.add("adversary")
        asked.add(stage.objective)
        foreign = min(asked & set().union(*OF_STAGE.values()) - OF_STAGE[read], default=None)
        if foreign is not None:
            kinds = " and ".join(NOUNS[kind] for kind, keys in OF_STAGE.items() if foreign in keys)
            raise ValueError(f"stage {stage.name!r}: {foreign} is for {kinds}")
        if read == "image" and stage.adversary is not None and stage.adversary.epsilon >= 1:
            raise ValueError(
                f"stage {stage.name!r}: adversary.epsilon is what each pixel of a picture changes at most, as a share "
                f"of its range; expected one below 1, such as 0.03, not {stage.adversary.epsilon:g}"
            )


class Recipe(Section):
    """One model's recipe. Made by `load_recipe`, which also knows where it lies."""

    name: Word = Field(description="The registered model's name.")
    author: Word | None = Field(default=None, description="Who answers for it; a policy may keep them from approving.")
    problem_type: Literal[
        "text-classification",
        "text-multi-label",
        "text-regression",
        "image-classification",
        "image-multi-label",
        "image-regression",
        "audio-classification",
        "audio-multi-label",
        "audio-regression",
    ]
    data: Annotated[DataSection, AfterValidator(_readable)]
    auxiliary: Annotated[tuple[AuxiliarySection, ...], AfterValidator(_named_apart)] = ()
    input: InputSection
    checkpoint: CheckpointSection
    head: HeadSection = HeadSection()
    start: StartSection = Field(default_factory=lambda: StartSection.model_validate({}))
    train: TrainSection = TrainSection()
    stages: Annotated[Stages, AfterValidator(_solvable), AfterValidator(_meaningful)]
    evaluation: EvaluationSection = EvaluationSection()
    policy: ProjectPath
    retrain: RetrainSection = RetrainSection()
    resources: ResourcesSection = ResourcesSection()

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        read = self.input.modality
        if not self.problem_type.startswith(f"{read}-"):
            raise ValueError(f"problem_type {self.problem_type} does not go with input.{read}")
        _check_modality(self, read)
        _check_auxiliary(self)
        holding = [stage.name for stage in self.every_stage if stage.ewc]
        if holding and self.start.origin == "checkpoint":
            raise ValueError(f"stage {holding[0]!r}: ewc holds what a champion knows: say `start: {{from: champion}}`")
        return self

    _path: Path = PrivateAttr()
    _root: Path = PrivateAttr()
    _limit_rows: int | None = PrivateAttr(None)

    @property
    def path(self) -> Path:
        """The recipe's file, absolute."""
        return self._path

    @property
    def root(self) -> Path:
        """The project's root, absolute: what relative paths start from."""
        return self._root

    @property
    def limit_rows(self) -> int | None:
        """Rows to take in all for a quick try, which never registers or promotes."""
        return self._limit_rows

    @property
    def target(self) -> Target:
        """What is learnt of a row."""
        return target_of(self.problem_type)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in their order; of a number, and of columns without other names, the columns that tell them."""
        return self.data.label.names(self.target)

    @property
    def sources(self) -> tuple[SourceSection, ...]:
        """All places that rows come from: those of `data`, then those of `auxiliary`."""
        return (*self.data.sources, *(source for each in self.auxiliary for source in each.sources))

    def columns_of(self, auxiliary: AuxiliarySection) -> tuple[str, ...]:
        """The columns of what the model reads of auxiliary rows."""
        named = auxiliary.columns or self.input.columns
        return (named,) if isinstance(named, str) else named

    def learnt_of(self, auxiliary: AuxiliarySection) -> Target | None:
        """What is learnt of the labels of auxiliary rows; None where they have none."""
        if auxiliary.label is None:
            return None
        return self.target if auxiliary.learns is None else TARGETS[auxiliary.learns]

    @property
    def every_stage(self) -> tuple[StageSection, ...]:
        """All that it says of stages: from the checkpoint on, and from the champion on."""
        return (*self.stages, *(self.start.stages or ()))

    @property
    def conflicts(self) -> str:
        """What becomes of equal texts with different labels."""
        return "mean" if self.target.is_number and self.data.conflicts != "keep" else self.data.conflicts

    @property
    def measured(self) -> EvaluationSection:
        """What is measured beside the model, without what is of texts alone, unless it was asked for."""
        if self.input.modality == "text" or "baselines" in self.evaluation.model_fields_set:
            return self.evaluation
        kept = tuple(name for name in self.evaluation.baselines if name != TFIDF)
        return self.evaluation.model_copy(update={"baselines": kept})

    @property
    def near_duplicate(self) -> float:
        """How alike two rows are that must stay on one side; pictures are told apart by finer shares than texts."""
        split = self.data.split
        is_default = "near_duplicate" not in split.model_fields_set
        return LIKENESS.get(self.input.modality, split.near_duplicate) if is_default else split.near_duplicate

    def told_data(self, left_out: Mapping[str, Any]) -> dict[str, Any]:
        """What `data` says beside its defaults and what is left out. The default likeness is not that of pictures."""
        told = self.data.model_dump(mode="json", exclude=dict(left_out), exclude_defaults=True)
        if self.input.modality in LIKENESS and "near_duplicate" in self.data.split.model_fields_set:
            told["split"] = told.get("split", {}) | {"near_duplicate": self.near_duplicate}
        return told

    @property
    def warm_stages(self) -> tuple[StageSection, ...]:
        """What a run trains that starts from the champion."""
        return self.start.stages or self.stages[-1:]

    @cached_property
    def digest(self) -> str:
        """Changes with what changes the model: not with the place, the gate, the schedule or the spelling.

        When a run starts from scratch is schedule: a retraining is judged as one whichever weights it started from.

        Defaults count as absent, so that a key added in a later version changes no digest. Therefore a default that
        changes the model must never be given another value: that takes a new DIGEST_VERSION.
        """
        left_out: dict[str, Any] = {
            "data": {"contract": True, "quarantine_tolerance": True} | PLACES,
            "auxiliary": {"__all__": PLACES},
            "checkpoint": {"licences"},
            "stages": {"__all__": {"name"}},
            "start": {"scratch_every": True, "stages": {"__all__": {"name"}}},
            "evaluation": True,
            "author": True,
            "policy": True,
            "retrain": True,
            "resources": True,
        }
        plain = self.model_dump(mode="json", exclude=left_out, exclude_defaults=True)
        plain["data"] = self.told_data(left_out["data"])
        told = {name: section for name, section in plain.items() if section != {}}
        return digest({"version": DIGEST_VERSION} | told)


def load_recipe(path: Path, overrides: Sequence[str] = (), limit_rows: int | None = None) -> Recipe:
    """The recipe file with `--set` assignments applied, or a RecipeError with everything that is wrong with it.

    Paths in it are relative to the project's root (`find_root`) and stay inside.
    """
    loosened = [override for override in overrides if re.match(r"\s*(policy|author)\s*[.=]", override)]
    hint = "it is others' to review: change the file"
    raise_if((Problem("not to be set for one run", f"--set {each}", hint) for each in loosened), RecipeError)
    if limit_rows is not None and limit_rows < 1:
        raise RecipeError(Problem(f"at least one row is needed, found {limit_rows}", "--limit-rows"))
    root = find_root(path)
    recipe = validate_document(override_document(read_document(path), overrides), Recipe, {"root": root})
    recipe._path, recipe._root, recipe._limit_rows = path.resolve(), root, limit_rows
    return recipe


def find_root(path: Path) -> Path:
    """The nearest folder upward of a recipe that holds .graftwork, pyproject.toml or .git, else the recipe's own."""
    folder = path.resolve().parent
    for above in (folder, *folder.parents):
        if any((above / mark).exists() for mark in ROOT_MARKS):
            return above
    return folder


def kin_of(recipe: Recipe) -> dict[str, str]:
    """By name, sources of auxiliary rows that lie where one of `data` does, and so share its groups; and that one."""
    places = {source.place: source.name for source in recipe.data.sources}
    beside = recipe.sources[len(recipe.data.sources) :]
    return {source.name: places[source.place] for source in beside if source.place in places}


def teachers_of(stages: Sequence[StageSection]) -> tuple[str, ...]:
    """Those that the stages learn from, as they are named, each once."""
    return tuple(dict.fromkeys(stage.distil.teacher for stage in stages if stage.distil is not None))


def stages_as_yaml(stages: Sequence[StageSection]) -> str:
    """The stages as a recipe would hold them, presets expanded, defaults left out."""
    from ruamel.yaml import YAML

    plain = [stage.model_dump(mode="json", exclude_defaults=True) for stage in stages]
    stream = StringIO()
    YAML().dump({"stages": plain}, stream)
    return stream.getvalue()


def recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for editors."""
    return Recipe.model_json_schema()
