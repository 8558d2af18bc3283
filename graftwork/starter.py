"""A first recipe for a data file: what `graftwork init` writes after a look at the rows.

It decides what the data can tell (classes, lengths, ids, how much may be trained) and says why in comments. What only
a person can know, such as which rows belong together, is left as a comment to uncomment.
"""

import difflib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftwork.checkpoints.licences import licence_of
from graftwork.checkpoints.references import Reference, local_folder, package_metadata, parse_reference
from graftwork.data.chunks import TableFile, open_table, read_chunks
from graftwork.data.labels import label_reader
from graftwork.errors import DataError, Problem, RecipeError, raise_if, shorten
from graftwork.presets import PRESETS
from graftwork.recipe import find_root

LOOKED_AT_ROWS = 100_000
MOST_CLASSES = 50
# A numeric column with more values than this is a measure, not a set of classes.
MOST_NUMBERS = 20
THRESHOLD_CLASSES = ("low", "high")
# Under this part of an even share a class is rare: 20 % where there are two.
RARE = 0.4
LICENCES = ("apache-2.0", "mit")

MAX_TOKENS = (32, 64, 128, 256)
TOKENS_PER_WORD = 1.4
SPECIAL_TOKENS = 2
# Scripts that put no spaces between words have about one token a character.
UNSPACED = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
# Small steps did better than large ones on short texts: 16 rows of them, and a step of fewer tokens is all overhead.
ROWS_PER_STEP = 16
BATCH_TOKENS = (256, 4096)

FEW_ROWS = 2000
STANDARD_ROWS, LEAST_ROWS = 500, 10
HOLDOUT = 0.15

ID = re.compile(r"(.*[_-])?id", re.IGNORECASE)
GROUP = re.compile(
    r"(.*[_-])?(user|customer|client|account|patient|subject|speaker|author|writer|reviewer|group|session|"
    r"conversation|dialogue|thread|document|doc|article|product|item|review|household|site)(s?[_-]?(id|name))?",
    re.IGNORECASE,
)
PLAIN = re.compile(r"(?!(?:true|false|null|yes|no|on|off|y|n)$)[A-Za-z][A-Za-z0-9_./-]*", re.IGNORECASE)


@dataclass(frozen=True)
class Look:
    """What was seen of a data file. cells: of each column, row by row. is_whole: False if there are more rows."""

    cells: dict[str, list[str | None]]
    rows: int
    damaged: int
    is_whole: bool

    def __str__(self) -> str:
        text = f"{self.rows:,} rows" if self.is_whole else f"the first {self.rows:,} rows"
        return f"{text} ({self.damaged:,} more are damaged)" if self.damaged else text


def write_recipe(
    data: Path,
    text: str,
    label: str,
    checkpoint: str,
    output: Path,
    *,
    threshold: float | None = None,
    name: str | None = None,
    text_pair: str | None = None,
) -> tuple[Path, ...]:
    """Write a commented recipe that runs as it is, and `policy.yaml` beside it where there is none; what was written.

    text_pair: the second column of pairs of texts. threshold: splits a numeric label. Raises RecipeError, DataError,
    and CheckpointError for a reference that names nothing here; a hub reference is not looked up.
    """
    if os.path.lexists(output):
        raise RecipeError(Problem("it is there already and is not overwritten", str(output), "choose another with -o"))
    reference, root, policy = parse_reference(checkpoint), find_root(output), output.with_name("policy.yaml")
    texts = (text,) if text_pair is None else (text, text_pair)
    look = _look(open_table(data), texts, label)
    facts = {
        "name": _name(name, data),
        "source": _slug(data.stem),
        "path": _place(data, root),
        "policy": _place(policy, root),
        "checkpoint": str(reference),
        "is_pinned": reference.is_pinned,
        "label": label,
        "threshold": None if threshold is None else _number(threshold),
        "texts": texts,
        "recipe": shorten(output),
        "rows": str(look),
    }
    facts |= _licence(reference, root) | _names(look, texts, label) | _lengths(look, texts)
    facts |= _classes(look.cells[label], label, threshold) | _stages(look.rows) | _minimum(look.rows)
    written = [] if policy.exists() else [_write(policy, _render("policy.yaml.j2", facts))]
    return (_write(output, _render("recipe.yaml.j2", facts)), *written)


def _look(file: TableFile, texts: Sequence[str], label: str) -> Look:
    """The columns a recipe names, and those whose names say that they hold ids or groups."""
    raise_if(_column_problems(file, texts, label), RecipeError)
    names = [column for column in file.columns if ID.fullmatch(column) or GROUP.fullmatch(column)]
    columns = tuple(dict.fromkeys([*texts, label, *names]))
    cells: dict[str, list[str | None]] = {column: [] for column in columns}
    rows = damaged = 0
    for chunk in read_chunks(file, columns):
        for column in columns:
            cells[column] += chunk.cells(column)
        rows, damaged = rows + len(chunk.lines), damaged + len(chunk.damaged)
        if rows >= LOOKED_AT_ROWS:
            return Look(cells, rows, damaged, is_whole=False)
    if not rows:
        raise DataError(Problem(f"not one of {damaged:,} rows can be read", str(file.path)))
    return Look(cells, rows, damaged, is_whole=True)


def _column_problems(file: TableFile, texts: Sequence[str], label: str) -> Iterator[Problem]:
    for column in dict.fromkeys([*texts, label]):
        if column not in file.columns:
            near = difflib.get_close_matches(column, file.columns, n=1)
            there = f"there are {shorten(', '.join(file.columns))}; the file must begin with a header line"
            yield Problem(f"no column {column!r}", str(file.path), f"did you mean {near[0]!r}?" if near else there)
    if label in texts or len(set(texts)) < len(texts):
        yield Problem(f"text and label must be different columns, found {', '.join([*texts, label])}", str(file.path))


def _classes(cells: Sequence[str | None], column: str, threshold: float | None) -> dict[str, Any]:
    """The classes in their order, and how the rows fall to them. Raises RecipeError if the column has no classes."""
    labels = Counter(cell for cell in cells if cell and cell.strip())
    numbers = [number for number in map(_as_number, labels) if number is not None]
    is_numeric = len(numbers) == len(labels) > 0
    values = f"{len(labels):,} values from {min(numbers):g} to {max(numbers):g}" if numbers else "no number"
    if threshold is not None:
        rows = _above_and_below(labels, threshold)
        if not all(rows.values()):
            raise RecipeError(Problem(f"--threshold {threshold:g} leaves a class empty: {column!r} has {values}"))
    elif is_numeric and len(labels) > MOST_NUMBERS:
        hint = f"say where it splits: --threshold {_number(_middle(labels))} would put half of the rows on each side"
        raise RecipeError(Problem(f"the label {column!r} is a measure: {values}", hint=hint))
    elif not 1 < len(labels) <= MOST_CLASSES:
        hint = "is it the column with the label? its values: " + shorten(", ".join(sorted(labels)))
        raise RecipeError(Problem(f"{column!r} has {len(labels):,} values, expected 2 to {MOST_CLASSES}", hint=hint))
    else:
        rows = {value: labels[value] for value in sorted(labels, key=float if is_numeric else str)}
    total, rarest = sum(rows.values()), min(rows, key=lambda value: rows[value])
    share = rows[rarest] / total
    return {
        "classes": list(rows),
        "balance": [f"{shorten(value)}: {count:,} rows, {count / total:.0%}" for value, count in rows.items()],
        "rarest": f"{shorten(rarest)} has {share:.1%} of the rows",
        "is_balanced": share >= RARE / len(rows),
    }


def _above_and_below(labels: Mapping[str, int], threshold: float) -> dict[str, int]:
    read = label_reader(THRESHOLD_CLASSES, threshold)
    rows = dict.fromkeys(THRESHOLD_CLASSES, 0)
    for raw, count in labels.items():
        index = read(raw)
        if isinstance(index, int):
            rows[THRESHOLD_CLASSES[index]] += count
    return rows


def _middle(labels: Counter[str]) -> float:
    """The median of numeric labels, or the value below it where nothing would be above."""
    ordered = sorted(float(raw) for raw in labels.elements())
    median = ordered[(len(ordered) - 1) // 2]
    return median if median < ordered[-1] else max(number for number in ordered if number < median)


def _as_number(raw: str) -> float | None:
    try:
        number = float(raw)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _names(look: Look, texts: Sequence[str], label: str) -> dict[str, Any]:
    """The column that names rows, and those in which rows share a value."""
    ids, groups = [], []
    for column, cells in look.cells.items():
        values = len(set(cells))
        if column in (*texts, label) or not all(cell and cell.strip() for cell in cells):
            continue
        if values == look.rows and ID.fullmatch(column):
            ids.append(column)
        elif 1 < values < look.rows:
            said = f"{values:,} values, {look.rows / values:.1f} rows each"
            groups.append({"column": column, "said": said})
    return {"id": min(ids, key=len, default=None), "groups": groups}


def _lengths(look: Look, texts: Sequence[str]) -> dict[str, Any]:
    """How many tokens a text may have and a training step should."""
    pairs = zip(*(look.cells[column] for column in texts), strict=True)
    words = sorted(sum(len(WORD.findall(cell or "")) for cell in pair) for pair in pairs)
    usual, long = words[len(words) // 2], words[math.ceil(0.95 * len(words)) - 1]
    tokens, most = _tokens(usual), _tokens(long)
    max_tokens = next((size for size in MAX_TOKENS if most <= size), MAX_TOKENS[-1])
    wanted = math.ceil(ROWS_PER_STEP * min(tokens, max_tokens) / 100) * 100
    batch_tokens = min(max(wanted, BATCH_TOKENS[0]), BATCH_TOKENS[1])
    return {
        "max_tokens": max_tokens,
        "lengths": f"95 % of the texts have at most {long:,} words, about {most:,} tokens; longer ones are cut",
        "batch_tokens": batch_tokens,
        "rows_per_step": max(1, batch_tokens // min(tokens, max_tokens)),
    }


def _tokens(words: int) -> int:
    return math.ceil(words * TOKENS_PER_WORD) + SPECIAL_TOKENS


def _stages(rows: int) -> dict[str, Any]:
    """The stages for so many rows, and why.

    Never the head alone: that is the frozen-head baseline, which a first model has to beat.
    """
    if rows < FEW_ROWS:
        stages = [stage | {"epochs": 3} for stage in PRESETS["gradual"]]
        why = f"Fewer than {FEW_ROWS:,} rows: from the head down, so that a new head can't spoil what lies below it."
    else:
        stages, why = PRESETS["full"], f"{FEW_ROWS:,} rows and more: all layers at once, the new head at a higher rate."
    return {"stages": stages, "why_stages": why, "presets": list(PRESETS)}


def _minimum(rows: int) -> dict[str, Any]:
    """What the policy may ask of the holdout: two thirds of what it will have, where that is less than the standard."""
    minimum = min(STANDARD_ROWS, max(LEAST_ROWS, rows // 10))
    return {"minimum_rows": minimum, "standard_rows": STANDARD_ROWS, "holdout_rows": round(HOLDOUT * rows)}


def _licence(reference: Reference, root: Path) -> dict[str, Any]:
    stated = None
    if reference.scheme != "hf":
        stated = licence_of(local_folder(reference, root))
    if stated is None and reference.scheme == "pkg":
        stated = package_metadata(reference)[1]
    if stated:
        return {"licences": [stated.lower()], "licence": "what it says of itself; may you use it?"}
    return {"licences": list(LICENCES), "licence": "those you may use; the checkpoint must come under one of them"}


def _name(name: str | None, data: Path) -> str:
    if name is not None and name != _slug(name):
        hint = f"letters, digits, . _ and - only, for instance {_slug(name)}"
        raise RecipeError(Problem(f"{shorten(name)!r} can't be a model's name", "--name", hint))
    return name or _slug(data.stem)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("._-")[:100] or "data"


def _place(path: Path, root: Path) -> str:
    """The path as a recipe writes it: from the root where it lies below it."""
    place = path.resolve()
    return (place.relative_to(root) if place.is_relative_to(root) else place).as_posix()


def _render(template: str, facts: Mapping[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # A template of YAML, not of HTML: each value goes through the filter, which quotes it.
    environment = Environment(  # noqa: S701
        loader=PackageLoader("graftwork"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["yaml"] = _flow
    return environment.get_template(template).render(facts)


def _flow(value: Any) -> str:
    """A plain value as YAML on one line; text is quoted unless no reader of YAML could take it for something else."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if not isinstance(value, str):
        return _number(value)
    if PLAIN.fullmatch(value):
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in quoted)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _write(path: Path, content: str) -> Path:
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(content)
    except OSError as error:
        raise RecipeError(Problem(f"can't be written: {error.strerror}", str(path))) from error
    return path
