"""The recipe: what a user writes, checked and turned into records. Below it, functions take plain arguments.

Not here: where things live (settings), when a model may be promoted (policy), and whether the data or the checkpoint
that a recipe names are any good.
"""

import os
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
    PrivateAttr,
    ValidationInfo,
    model_validator,
)

from graftwork.coherence import TFIDF, check_recipe
from graftwork.documents import Section, override_document, read_document, validate_document
from graftwork.errors import Problem, RecipeError, raise_if
from graftwork.fields import Amount, Count, Duration, Share, Whole, Word
from graftwork.fingerprint import digest
from graftwork.policy import BaselineName
from graftwork.sections.data import AuxiliarySection, DataSection, InputSection, SourceSection, check_label
from graftwork.sections.fields import Column, ProjectPath, as_list, distinct
from graftwork.sections.prompts import ZERO_SHOT, check_templates, write_prompts
from graftwork.sections.stages import Stages, StageSection
from graftwork.targets.catalog import TARGETS, target_of
from graftwork.targets.target import Target

DIGEST_VERSION = 1
PLACES: dict[str, Any] = {"sources": {"__all__": {"path", "url"}}}  # where rows lie says nothing of what they are
LIKENESS = {"image": 0.95, "audio": 0.88}  # of the bits that tell what a picture looks like, or a sound is like
# A project's root is the nearest folder upward that holds one of these.
ROOT_MARKS = (".graftwork", "pyproject.toml", ".git")


def _readable(data: "DataSection", info: ValidationInfo) -> "DataSection":
    """The data, if its label is one of what is learnt."""
    if "problem_type" not in info.data:
        return data
    target = target_of(info.data["problem_type"])
    check_label(data.label, target)
    if target.is_number and data.conflicts == "quarantine" and "conflicts" in data.model_fields_set:
        raise ValueError("conflicts: of the numbers of equal texts the mean is taken: leave it out, or say keep")
    return data


def _meaningful(stages: "tuple[StageSection, ...]", info: ValidationInfo) -> "tuple[StageSection, ...]":
    """The stages, if they and those of `start` ask for nothing that means nothing where the target is learnt."""
    if "problem_type" not in info.data:
        return stages
    target = target_of(info.data["problem_type"])
    for stage in _with_start(stages, info):
        asked = {*stage.asked, stage.objective, f"keep_epoch: {stage.keep_epoch}"}
        refused = sorted(asked & target.refused)
        if target.is_text and stage.objective != "classification":  # its rows are of two texts, which no other reads
            refused.append(stage.objective)
        if refused:
            raise ValueError(f"{refused[0]} of {stage.name} is not for {target.known_as}")
    return stages


def _with_start(stages: "tuple[StageSection, ...]", info: ValidationInfo) -> "tuple[StageSection, ...]":
    """The stages, and those of `start` where that is valid."""
    return (*stages, *(("start" in info.data and info.data["start"].stages) or ()))


def _solvable(stages: "tuple[StageSection, ...]", info: ValidationInfo) -> "tuple[StageSection, ...]":
    """The stages, if those that are solved, and those of `start`, have a head that can be: a linear layer, no more."""
    names = ", ".join(stage.name for stage in _with_start(stages, info) if stage.solver == "lbfgs")
    if names and "head" in info.data and info.data["head"].layers:
        raise ValueError(f"solver lbfgs of {names} is for a head without hidden layers (head.layers: [])")
    if names and "head" in info.data and info.data["head"].prompts:
        raise ValueError(f"solver lbfgs of {names} is for a head of layers, and head.prompts makes it of texts")
    if names and "input" in info.data and info.data["input"].pooling == "attention":
        raise ValueError(
            f"solver lbfgs of {names} is for pooling that learns nothing (input.pooling: mean, cls or max)"
        )
    return stages


class CheckpointSection(Section):
    """The pretrained weights to start from."""

    source: str = Field(pattern=r"^(pkg|file|hf)://", description="pkg://, file:// or hf://owner/name@<40 hex>")
    licences: Annotated[tuple[str, ...], AfterValidator(distinct)] = Field(description="Licences that may be used.")


class HeadSection(Section):
    """The layers that are added on top."""

    layers: tuple[Count, ...] = Field(default=(), description="Widths of hidden layers.")
    dropout: Share = 0.1
    prompts: Annotated[
        tuple[str, ...],
        BeforeValidator(as_list, json_schema_input_type=tuple[str, ...] | str),
        AfterValidator(check_templates),
    ] = Field(default=(), description="Texts that a class is told by, {} being its name, as CLIP's other tower reads.")
    names: dict[str, str] = Field(default={}, description="What prompts call classes that go by other names.")

    @model_validator(mode="after")
    def _check(self) -> "HeadSection":
        if self.names and not self.prompts:
            raise ValueError("names says what classes are called in prompts, and there are none")
        if self.layers and self.prompts:
            raise ValueError("prompts make a head that has no hidden layers: leave layers out")
        return self


class OutputSection(Section):
    """What is written, where texts are."""

    max_tokens: Count = Field(default=64, description="The most tokens of a text that is written, its end included.")


class TrainSection(Section):
    """What all stages have in common."""

    seed: Whole = 0
    batch_tokens: Count = 4096
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    prefix_cache: bool = True


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
    return distinct(auxiliary) if auxiliary else auxiliary


class Recipe(Section):
    """One model's recipe. Made by `load_recipe`, which also knows where it lies."""

    name: Word = Field(description="The registered model's name.")
    author: Word | None = Field(default=None, description="Who answers for it; a policy may keep them from approving.")
    problem_type: Literal[
        "text-classification",
        "text-multi-label",
        "text-regression",
        "text-generation",
        "text-token-classification",
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
    output: OutputSection = OutputSection()
    start: StartSection = Field(default_factory=lambda: StartSection.model_validate({}))
    train: TrainSection = TrainSection()
    stages: Annotated[Stages, AfterValidator(_solvable), AfterValidator(_meaningful)]
    evaluation: EvaluationSection = EvaluationSection()
    policy: ProjectPath
    retrain: RetrainSection = RetrainSection()
    resources: ResourcesSection = ResourcesSection()

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        check_recipe(self)
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
    def prompts(self) -> tuple[tuple[str, ...], ...] | None:
        """The texts that each class is told by, where the head is made of them."""
        return write_prompts(self.head.prompts, self.head.names, self.classes) if self.head.prompts else None

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
        """What is measured beside the model; where it is not said, beside all baselines that there are for it."""
        if "baselines" in self.evaluation.model_fields_set:
            return self.evaluation
        return self.evaluation.model_copy(update={"baselines": self.baselines})

    @property
    def baselines(self) -> tuple[str, ...]:
        """What a model of such rows, and with such a head, can be compared with."""
        kept = tuple(each for each in self.target.baselines if self.input.modality == "text" or each != TFIDF)
        return (*kept, ZERO_SHOT) if self.head.prompts else kept

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
    """By name, sources of auxiliary rows that lie where one of `data` does, and so share its records; and that one.

    Raises RecipeError where it is not one.
    """
    kin: dict[str, str] = {}
    for source in recipe.sources[len(recipe.data.sources) :]:
        found = [each.name for each in recipe.data.sources if _meet(_place(each, recipe), _place(source, recipe))]
        if len(found) > 1:
            problem = f"source {source.name!r} lies where several of `data` do ({', '.join(found)})"
            raise RecipeError(Problem(problem, str(recipe.path), "give it a place of its own, or that of one of them"))
        if found:
            kin[source.name] = found[0]
    return kin


def _place(source: SourceSection, recipe: Recipe) -> PurePath:
    """Where it lies, as it is compared with other places."""
    return PurePath(source.url) if source.url else PurePath(os.path.normpath(recipe.root / source.place))


def _meet(one: PurePath, other: PurePath) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


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
