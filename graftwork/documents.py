"""YAML that people write (recipes, policies, contracts) into checked records, every problem at once with its place.

Values keep the line and column they came from. Refused before anything is built from them: duplicate keys, aliases
(which can blow a few lines up to gigabytes), tags, and documents too big or too deep to be written by hand.
"""

import copy
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StreamMark
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from graftwork.errors import GraftworkError, Problem, RecipeError, raise_if, shorten

MAX_BYTES = 1 << 18
MAX_DEPTH = 16
WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
FRACTION = re.compile(r"[-+]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?|\.inf)|\.nan", re.IGNORECASE)
SECRETS = re.compile(r"(?<=://)\S*(?=@)|(?<=[?#])\S+")  # what may be one in a URL; no message repeats it

Key = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)


class Section(BaseModel):
    """Part of a document: unknown keys are refused, nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Document:
    """Plain values, and for each key path the place (`file:line:column`) it was written at."""

    data: Any
    places: Mapping[Key, str] = field(repr=False)

    def place(self, key: Key) -> str:
        """Where the key, or what comes nearest above it, was written."""
        while key not in self.places:
            key = key[:-1]
        return self.places[key]


def read_document(path: Path) -> Document:
    """The YAML file as plain values with their places. Raises RecipeError."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise RecipeError(Problem(f"can't be read: {error.strerror}", str(path))) from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RecipeError(Problem(f"byte {error.start} is not UTF-8", f"{path}:{line}", "save it as UTF-8")) from error
    if len(content) > MAX_BYTES:
        raise RecipeError(Problem(f"more than {MAX_BYTES >> 10} KiB: not a document written by hand", f"{path}:1:1"))
    return parse_document(text, str(path))


def parse_document(text: str, name: str) -> Document:
    """YAML text as plain values; `name` stands for the file in messages. Raises RecipeError."""
    try:
        raise_if(_tricks(text, name), RecipeError)
        root = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        what = f"not YAML: {error.problem or error.context}"
        raise RecipeError(Problem(what, _at(name, error.problem_mark))) from error
    except ReaderError as error:
        line, column = text.count("\n", 0, error.position) + 1, error.position - text.rfind("\n", 0, error.position)
        what = f"not YAML: the character U+{error.character:04X} is not allowed"
        raise RecipeError(Problem(what, f"{name}:{line}:{column}")) from error
    places: dict[Key, str] = {(): f"{name}:1:1"}
    problems: list[Problem] = []
    data = None if root is None else _build(root, (), name, places, problems)
    raise_if(problems, RecipeError)
    return Document(data, places)


def override_document(document: Document, assignments: Sequence[str]) -> Document:
    """The document with `key.0.key=value` assignments applied in order, their values read as YAML. Raises RecipeError.

    A mapping takes keys it does not hold yet (whether they are known is for validation to say), a list does not grow.
    """
    data, places = copy.deepcopy(document.data), dict(document.places)
    problems: list[Problem] = []
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        where = f"--set {shorten(name)}"
        try:
            if not (name and equals):
                raise RecipeError(Problem("expected KEY=VALUE, as in stages.1.epochs=3", where))
            key = _assign(data, name.split("."), parse_document(text, where).data, where)
        except GraftworkError as error:
            problems += error.problems
            continue
        places = {k: place for k, place in places.items() if k[: len(key)] != key} | {key: where}
    raise_if(problems, RecipeError)
    return Document(data, places)


def validate_document(document: Document, model: type[M], context: dict[str, Any] | None = None) -> M:
    """The document as a `model`, or a RecipeError with everything that is wrong with it."""
    try:
        return model.model_validate(document.data, context=context)
    except ValidationError as error:
        raise RecipeError(*(_explain(document, model, e) for e in error.errors(include_url=False))) from None


def _tricks(text: str, name: str) -> Iterator[Problem]:
    """What YAML allows and a document written by hand has no use for; seen in the event stream, before it is built."""
    depth = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        where = _at(name, event.start_mark)
        if isinstance(event, AliasEvent):
            yield Problem(f"the alias *{event.anchor} is not allowed", where, "write the value out")
        if isinstance(event, CollectionStartEvent | ScalarEvent) and event.ctag is not None:
            yield Problem(f"the tag {shorten(event.ctag)} is not allowed", where, "write a plain value")
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            yield Problem(f"nested deeper than {MAX_DEPTH} levels", where)
            return


def _build(node: Node, key: Key, name: str, places: dict[Key, str], problems: list[Problem]) -> Any:
    """The plain value of a node; fills in `places`, which are those of keys and list items, and `problems`."""
    if isinstance(node, ScalarNode):
        return _scalar(node)
    if isinstance(node, SequenceNode):
        places |= {(*key, index): _at(name, item.start_mark) for index, item in enumerate(node.value)}
        return [_build(item, (*key, index), name, places, problems) for index, item in enumerate(node.value)]
    assert isinstance(node, MappingNode)
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        where = _at(name, key_node.start_mark)
        if not isinstance(key_node, ScalarNode):
            problems.append(Problem("a key must be a single word", where))
        elif key_node.value in mapping:
            first = places[(*key, key_node.value)]
            problems.append(Problem(f"duplicate key {shorten(key_node.value)!r}", where, f"first at {first}"))
        else:
            child = (*key, key_node.value)
            places[child] = where
            mapping[key_node.value] = _build(value_node, child, name, places, problems)
    return mapping


def _scalar(node: ScalarNode) -> Any:
    """Null, a truth value, a number or text; a whole number is one that prints as it was written, so 007 stays text."""
    kind = str(node.tag).rpartition(":")[2]
    if kind == "null":
        return None
    if kind == "bool":
        return node.value.lower() == "true"
    if kind == "float" and FRACTION.fullmatch(node.value):
        return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if kind == "int" and WHOLE.fullmatch(node.value):
        return int(node.value)
    return node.value


def _assign(data: Any, names: Sequence[str], value: Any, where: str) -> Key:
    """Set the value below `data` in place; the key path with list positions as numbers."""
    key: list[str | int] = []
    for depth, name in enumerate(names, start=1):
        above = ".".join(names[: depth - 1]) or "the document"
        position: str | int = name
        if isinstance(data, list):
            if not (name.isdecimal() and int(name) < len(data)):
                raise RecipeError(Problem(f"{above} has no item {name!r}", where, f"it holds {len(data)}, from 0 on"))
            position = int(name)
        elif not isinstance(data, dict):
            raise RecipeError(Problem(f"{above} is {shorten(data)!r} and has no key {name!r}", where))
        key.append(position)
        if depth == len(names):
            data[position] = value
        elif isinstance(data, dict) and data.get(name) is None:
            data[name] = {}
            data = data[name]
        else:
            data = data[position]
    return tuple(key)


def _explain(document: Document, model: type[BaseModel], error: ErrorDetails) -> Problem:
    """One finding of pydantic in words for the person who wrote the document."""
    key = error["loc"]
    where = document.place(key)
    name = ".".join(map(str, key))
    if error["type"] == "missing":
        return Problem(f"{name} is missing", where)
    if error["type"] == "extra_forbidden":
        known = sorted(_known_keys(model, key[:-1]))
        near = difflib.get_close_matches(str(key[-1]), known, n=1)
        return Problem(
            f"unknown key {name}", where, f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        )
    message = error["msg"].removeprefix("Value error, ")
    found = repr(error["input"])
    found = shorten(SECRETS.sub("***", found) if "://" in found else found)
    return Problem(f"{name}: {message[:1].lower()}{message[1:]}, found {found}", where)


def _known_keys(model: type[BaseModel], key: Key) -> set[str]:
    """The keys that may be written at a key path."""
    models = {model}
    for part in key:
        fields = [f for m in models for n, f in m.model_fields.items() if part in (n, f.alias)]
        if fields:
            models = {m for f in fields for m in _models_in(f.annotation)}
    return {f.alias or name for m in models for name, f in m.model_fields.items()}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _at(name: str, mark: StreamMark | None) -> str:
    return f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else f"{name}:1:1"
