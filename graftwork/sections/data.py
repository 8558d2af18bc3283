"""What a recipe says of its rows: where they lie, what is told of them, and what a model sees of them."""

from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    model_validator,
)

from graftwork.documents import Section
from graftwork.fields import Count, LandingUrl, Rate, Share, Whole, Word
from graftwork.sections.fields import Column, ProjectPath, distinct, text_columns
from graftwork.targets.catalog import MULTI_LABEL
from graftwork.targets.target import Target

NOUNS = {"text": "texts", "image": "pictures", "audio": "sounds"}  # by what a model reads
# Of an input and of a stage, what is not said of every kind of rows.
OF_INPUT = {"text": {"max_tokens", "prompt"}, "image": {"side"}, "audio": {"seconds"}}


def check_label(label: "LabelSection", target: Target) -> None:
    """Raise ValueError for a label that is not one of what is learnt."""
    foreign = sorted(label.model_fields_set - {"column"} - target.label_keys)
    if not isinstance(label.column, str) and target is not MULTI_LABEL:
        foreign.append("a list of columns")
    if foreign:
        raise ValueError(f"label: {foreign[0]} is not for {target.known_as}")
    if target is MULTI_LABEL and isinstance(label.column, str) and label.separator is None:
        raise ValueError("label: say which separator stands between classes, or name a column for each class")
    if target.has_classes and not (label.classes or isinstance(label.column, tuple)):
        raise ValueError("label.classes is missing")


def _as_group(value: Any) -> Any:
    return {"from": value} if isinstance(value, str) else value


def _label_columns(value: Any) -> Any:
    names = [value] if isinstance(value, str) else value
    if not (isinstance(names, list | tuple) and names and all(isinstance(name, str) and name for name in names)):
        raise ValueError("expected a column, or a list of them, one for each class")
    return value if isinstance(value, str) else distinct(tuple(names))


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
    header: Annotated[tuple[Column, ...], AfterValidator(distinct)] | None = Field(
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
    separator between, mapped or not, or a column of 0 and 1 for each. A number, or a text: a column as it is.
    """

    column: Annotated[
        str | tuple[str, ...], BeforeValidator(_label_columns, json_schema_input_type=str | tuple[str, ...])
    ] = Field(alias="from")
    threshold: float | None = Field(default=None, strict=True, description="The second class is above it.")
    map: dict[str, str] | None = Field(default=None, min_length=1, description="Raw text to class.")
    separator: str | None = Field(default=None, min_length=1, description="Between the classes that a cell lists.")
    classes: Annotated[tuple[str, ...], AfterValidator(distinct)] = ()

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
        """Its classes in their order; without any, or where columns have no other names, the columns that tell it."""
        has_names = not (target.has_classes and isinstance(self.column, str))
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

    sources: Annotated[tuple[SourceSection, ...], AfterValidator(distinct)]
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
    sources: Annotated[tuple[SourceSection, ...], AfterValidator(distinct)]
    columns: (
        Annotated[str | tuple[str, str], PlainValidator(text_columns, json_schema_input_type=str | tuple[str, str])]
        | None
    ) = Field(default=None, description="What is read of a row; by default the columns of `input`.")
    label: LabelSection | None = Field(default=None, description="None: rows that nobody labelled.")
    learns: Literal["classification", "multi-label", "regression"] | None = Field(
        default=None, description="What is learnt of the label; by default what the recipe learns."
    )

    caption: Column | None = Field(
        default=None, description="Of pictures, the column with a text that belongs to each."
    )

    @model_validator(mode="after")
    def _check(self) -> "AuxiliarySection":
        if self.caption is not None and self.label is not None:
            raise ValueError("a caption is what is learnt of a picture, and so would be a label: name two sets")
        if self.label is None and self.learns is not None:
            raise ValueError("learns says what is learnt of a label, and there is none")
        return self


class InputSection(Section):
    """What the model sees of a row."""

    text: (
        Annotated[str | tuple[str, str], PlainValidator(text_columns, json_schema_input_type=str | tuple[str, str])]
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

    prompt: str | None = Field(
        default=None, min_length=1, description="Of texts that are written: what is read, with {column} for the text."
    )

    @model_validator(mode="after")
    def _check(self) -> "InputSection":
        if [self.text, self.image, self.audio].count(None) != 2:
            raise ValueError("expected one of text, image and audio")
        for kind, keys in OF_INPUT.items():
            if kind != self.modality and keys & self.model_fields_set:
                raise ValueError(f"{', '.join(sorted(keys & self.model_fields_set))} is for {NOUNS[kind]}")
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
