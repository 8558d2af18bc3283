"""Kinds of values that sections of a recipe share."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
)


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


def as_list(value: Any) -> Any:
    """A text as a list of one."""
    return [value] if isinstance(value, str) else value


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values, if there is one, and no two of the same name. Raises ValueError."""
    names = [getattr(value, "name", value) for value in values]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names:
        raise ValueError("at least one is needed")
    if twice:
        raise ValueError(f"{', '.join(twice)} is there more than once")
    return values


def text_columns(value: Any) -> Any:
    """A column, or two of a pair of texts, as they are kept. Raises ValueError."""
    names = [value] if isinstance(value, str) else value
    if not (isinstance(names, list | tuple) and len(names) in (1, 2) and all(isinstance(n, str) and n for n in names)):
        raise ValueError("expected a column, or a list of two for pairs of texts")
    return names[0] if len(names) == 1 else tuple(names)


Column = Annotated[str, Field(min_length=1)]
ProjectPath = Annotated[Path, AfterValidator(_project_path)]
TrainTarget = Annotated[str, AfterValidator(_train_target)]
Targets = Annotated[
    tuple[TrainTarget, ...],
    BeforeValidator(as_list, json_schema_input_type=tuple[TrainTarget, ...] | TrainTarget),
    AfterValidator(distinct),
]
