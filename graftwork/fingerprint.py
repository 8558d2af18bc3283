"""Digests, and how records become JSON and come back.

A record is a frozen dataclass of ids, digests and numbers. Its JSON names its class and schema version, so that a
reader can refuse what it does not know. Digests are sha256 in hex over canonical JSON or over file bytes.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from graftwork.errors import GraftworkError

CHUNK_BYTES = 1 << 20


class Record(Protocol):
    """A frozen dataclass that can be stored: `SCHEMA` is raised by hand when its meaning changes."""

    SCHEMA: ClassVar[int]
    __dataclass_fields__: ClassVar[dict[str, Any]]


R = TypeVar("R", bound=Record)


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spare space: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain)


def digest(value: object) -> str:
    """The sha256 of the canonical JSON of a plain value or a record."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def without_defaults(cls: type, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a dataclass that differ from its defaults: a field that is added later changes no older digest.

    Therefore a default that changes what is made must never be given another value.
    """
    defaults = {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(cls)
    }
    return {name: value for name, value in facts.items() if value != defaults[name]}


def seed_of(*place: object) -> int:
    """A seed for what is drawn at a place: a function of it alone, so that a retry draws the same."""
    return int(digest(place)[:15], 16)


def file_digest(path: Path) -> str:
    """The sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def walk_files(folder: Path) -> Iterator[Path]:
    """Regular files below `folder`, sorted by relative path; a symlink is an error, never followed."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise GraftworkError(f"{path}: a symbolic link can't be part of a stored folder")
        if path.is_file():
            yield path


def folder_digest(folder: Path) -> str:
    """The digest over the names and bytes of a folder's files."""
    return digest({path.relative_to(folder).as_posix(): file_digest(path) for path in walk_files(folder)})


def to_json(record: Record) -> str:
    """The record as indented JSON, headed by its class name and schema version."""
    head = {"record": type(record).__name__, "schema": type(record).SCHEMA}
    return json.dumps(head | _as_plain(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(cls: type[R], text: str) -> R:
    """The record that `to_json` wrote.

    Raises GraftworkError if the text is of another class or schema version, or does not fit the class.
    """
    try:
        fields = json.loads(text)
        name, schema = fields.pop("record"), fields.pop("schema")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise GraftworkError(f"not a stored {cls.__name__}: {error}") from error
    if (name, schema) != (cls.__name__, cls.SCHEMA):
        raise GraftworkError(f"found {name} schema {schema}, expected {cls.__name__} schema {cls.SCHEMA}")
    try:
        return _adapter(cls).validate_python(fields)
    except ValidationError as error:
        raise GraftworkError(f"not a stored {cls.__name__}: {error}") from error


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _as_plain(record: Any) -> dict[str, Any]:
    cls: Any = type(record)
    return _adapter(cls).dump_python(record, mode="json")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _as_plain(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, frozenset | set):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no canonical JSON")
