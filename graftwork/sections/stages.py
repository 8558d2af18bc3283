"""What a recipe says of a stage."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from graftwork.documents import Section
from graftwork.fields import Amount, Count, Rate, Share, Word
from graftwork.presets import PRESETS, expand_stages
from graftwork.sections.fields import Targets, as_list, distinct
from graftwork.targets.catalog import MIXES

PAIRS = "contrastive-image-text"
TEACHER = r"^(champion|[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9._-]+|/[1-9][0-9]*))$"
# What a stage may say that is solved to its optimum.
SOLVED_KEYS = {"name", "train", "solver", "strength", "class_weights"}
# What says something of some objectives alone, and of stages that learn one task.
OF_OBJECTIVE = {
    "hidden_share": (
        "masked-language-modelling",
        "replaced-token-detection",
        "next-sentence-prediction",
        "span-corruption",
    ),
    "span": ("span-corruption",),
    "temperature": ("contrastive",),
    "locked": (PAIRS,),
}
ONE_TASK = {"class_weights", "distil", "ewc"} | MIXES
# What would say something of one tower of two, or of rows that a stage of pairs does not read.
NOT_OF_PAIRS = {"adversary", "l2_sp", "sampling", "weighting"}
# What says something of the head that tells labels, or of what it learns from.
OF_HEAD = {"solver", "strength", "head_start", "class_weights", "label_smoothing", "augment", "ewc", "distil"}


def _needed_by_adamw(value: Any, info: ValidationInfo) -> Any:
    if value is None and info.data.get("solver") != "lbfgs":
        raise PydanticCustomError("missing", "Field required")
    return value


def _head_start(value: Any) -> Any:
    is_factor = isinstance(value, float) and 0 < value < 1
    if not (is_factor or value in ("keep", "fresh")):
        raise ValueError("expected keep, fresh, or a factor between 0 and 1")
    return value


class LoraSection(Section):
    """The adapters of a stage that trains `lora`."""

    rank: Count = 8
    alpha: Rate | None = Field(default=None, description="By default twice the rank.")
    dropout: Share = 0.0
    targets: Annotated[
        tuple[Word, ...],
        BeforeValidator(as_list, json_schema_input_type=tuple[Word, ...] | Word),
        AfterValidator(distinct),
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
        "next-sentence-prediction",
        "span-corruption",
        "contrastive-image-text",
    ] = Field(
        default="classification",
        description="contrastive: bring rows of a class together. contrastive-image-text: bring pictures and their "
        "captions together. masked-language-modelling, replaced-token-detection, next-sentence-prediction, "
        "span-corruption: learn from texts alone. autoregressive: learn from sounds, or from texts, alone what comes "
        "next.",
    )
    hidden_share: Share = Field(
        default=0.15, description="Of a text's words, or of its tokens in spans, those that are hidden and told."
    )
    span: float = Field(default=3.0, strict=True, ge=1, description="Tokens of a hidden span on average.")
    temperature: Rate = Field(
        default=0.1, description="Of likeness in a contrastive stage: small ones tell close rows."
    )
    locked: bool = Field(default=False, description="Of pictures and captions: the tower of texts stays as it is.")
    adversary: AdversarySection | None = None
    l2_sp: Amount = Field(default=0.0, description="Strength of the pull to the weights the stage began with.")
    ewc: Amount = Field(
        default=0.0, description="The same, but of each weight by what it is worth to the rows the champion knows."
    )
    distil: DistilSection | None = None
    auxiliary: Annotated[
        tuple[Word, ...],
        BeforeValidator(as_list, json_schema_input_type=tuple[Word, ...] | Word),
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
        if self.objective == "span-corruption" and self.adversary:
            raise ValueError("adversary moves what a body reads, and in span-corruption a decoder reads by it, too")
        if self.objective == "classification":
            return self
        if {"head", "lora"} & set(self.train):
            raise ValueError(f"objective {self.objective} needs no head and trains none: say all, or top:4")
        meant = self.model_dump(exclude_defaults=True).keys() & OF_HEAD
        if meant:
            raise ValueError(f"objective {self.objective} trains no head and takes no {', '.join(sorted(meant))}")
        return self

    @model_validator(mode="after")
    def _check_pairs(self) -> "StageSection":
        if self.objective != PAIRS:
            return self
        if not self.auxiliary:
            raise ValueError(f"objective {PAIRS} learns from auxiliary rows with a caption: name them with `auxiliary`")
        meant = sorted(NOT_OF_PAIRS & self.asked)
        if meant:
            raise ValueError(f"objective {PAIRS} takes no {', '.join(meant)}")
        if self.locked and any(entry.partition(".")[0] == "texts" for entry in self.train):
            raise ValueError("locked keeps the tower of texts as it is, and train names it")
        return self

    @model_validator(mode="after")
    def _check_auxiliary(self) -> "StageSection":
        meant = sorted({"sampling", "weighting"} & self.model_fields_set)
        if meant and not self.auxiliary:
            raise ValueError(f"{meant[0]} is of auxiliary rows: name them with `auxiliary`")
        if not self.auxiliary:
            return self
        distinct(self.auxiliary)
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
    """Whatever is learnt from texts alone comes before what is learnt from labels; of captions a head may be made."""
    if stages and stages[-1].objective not in ("classification", PAIRS):
        raise ValueError("the last stage has to train a classifier: objective: classification")
    return stages


Stages = Annotated[
    tuple[StageSection, ...],
    BeforeValidator(expand_stages, json_schema_input_type=tuple[StageSection, ...] | Literal[*PRESETS] | dict),
    AfterValidator(distinct),
    AfterValidator(_labelled_at_last),
]
