"""A first recipe for a data file: what `graftwork init` writes after a look at the rows.

It decides what the data can tell and says why in comments. What only a person can know, such as which rows hang
together, is left as a comment to uncomment. The texts are in templates/.
"""

import json
import logging
import math
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from graftwork.checkpoints.licences import licence_of
from graftwork.checkpoints.references import Reference, local_folder, package_metadata, parse_reference
from graftwork.data.survey import Survey, survey_file
from graftwork.errors import Problem, RecipeError, shorten
from graftwork.presets import PRESETS
from graftwork.recipe import find_root

POLICY = "policy.yaml"
LICENCES = ("apache-2.0", "mit")
# Below this part of an even share a class is rare: 20 % where there are two.
RARE = 0.4
FEW_ROWS = 2000
FEW_ROWS_EPOCHS = 3
MAX_TOKENS = (32, 64, 128, 256)
# Small steps did better than large ones in fine-tuning on short texts; a step of fewer tokens is mostly overhead.
ROWS_PER_STEP = 16
BATCH_TOKENS = (256, 4096)
HOLDOUT = 0.15
STANDARD_ROWS, LEAST_ROWS = 500, 10
# A label that so few rows have is more often a slip than a class.
RARE_ROWS, RARE_SHARE = 20, 0.01
PLAIN = re.compile(r"(?!(?:true|false|null|yes|no|on|off|y|n)$)[a-z][a-z0-9_./-]*", re.IGNORECASE)

log = logging.getLogger(__name__)


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
    """Write a commented recipe that runs as it is, and a policy beside it where there is none; the files written.

    threshold: splits a numeric label. text_pair: the second column of pairs of texts. Raises RecipeError, DataError,
    and CheckpointError for a reference to nothing; a reference to the hub is not looked up.
    """
    if os.path.lexists(output):
        raise RecipeError(Problem("it is there already and is not overwritten", str(output), "choose another with -o"))
    reference, root, policy = parse_reference(checkpoint), find_root(output), output.with_name(POLICY)
    texts = (text,) if text_pair is None else (text, text_pair)
    survey, left_out = _without_rare(survey_file(data, texts, label, threshold))
    for each, rows in left_out.items():
        log.warning("class %r has only %d rows and is left out: add it to label.classes if you want it", each, rows)
    facts = {
        "name": _model_name(name, data),
        "source": _slug(data.stem),
        "path": _place(data, root),
        "policy": _place(policy, root),
        "recipe": shlex.quote(shorten(output, limit=1000)),
        "checkpoint": str(reference),
        "is_pinned": reference.is_pinned,
        "licence": _licence(reference, root),
        "licences": LICENCES,
        "text": text if text_pair is None else texts,
        "label": label,
        "threshold": threshold,
        "survey": survey,
        "left_out": {shorten(each): rows for each, rows in left_out.items()},
        "presets": list(PRESETS),
    }
    facts |= _class_facts(survey) | _size_facts(survey)
    written = [] if policy.exists() else [_write(policy, _render("policy.yaml.j2", facts))]
    return (_write(output, _render("recipe.yaml.j2", facts)), *written)


def _without_rare(survey: Survey) -> tuple[Survey, dict[str, int]]:
    """The survey without classes that nothing can be learnt of, and those: stray labels, more often than not."""
    rare = {n: rows for n, rows in survey.classes.items() if rows < RARE_ROWS and rows < RARE_SHARE * survey.rows}
    kept = {name: rows for name, rows in survey.classes.items() if name not in rare}
    return (replace(survey, classes=kept), rare) if len(kept) > 1 else (survey, {})


def _class_facts(survey: Survey) -> dict[str, Any]:
    total = sum(survey.classes.values())
    rarest = min(survey.classes, key=lambda name: survey.classes[name])
    share = survey.classes[rarest] / total
    return {
        "balance": [f"{shorten(name)}: {rows:,} rows, {rows / total:.0%}" for name, rows in survey.classes.items()],
        "is_balanced": share >= RARE / len(survey.classes),
        "rarest": f"{shorten(rarest)} has {share:.1%} of the rows",
    }


def _size_facts(survey: Survey) -> dict[str, Any]:
    """What follows from the length of the texts and the number of rows.

    Stages never train the head alone: that would be the frozen-head baseline, which a first model has to beat.
    """
    max_tokens = next((size for size in MAX_TOKENS if survey.long <= size), MAX_TOKENS[-1])
    usual = min(survey.usual, max_tokens)
    least, most = BATCH_TOKENS
    batch_tokens = min(max(math.ceil(ROWS_PER_STEP * usual / 100) * 100, least), most)
    has_few = survey.rows < FEW_ROWS
    return {
        "max_tokens": max_tokens,
        "batch_tokens": batch_tokens,
        "rows_per_step": batch_tokens // usual,
        "has_few_rows": has_few,
        "few_rows": FEW_ROWS,
        "stages": [stage | {"epochs": FEW_ROWS_EPOCHS} for stage in PRESETS["gradual"]] if has_few else PRESETS["full"],
        "minimum_rows": min(STANDARD_ROWS, max(LEAST_ROWS, survey.rows // 10)),
        "standard_rows": STANDARD_ROWS,
        "holdout_rows": round(HOLDOUT * survey.rows),
    }


def _licence(reference: Reference, root: Path) -> str | None:
    """What the checkpoint says of itself, if it is here and says anything."""
    if reference.scheme == "hf":
        return None
    stated = licence_of(local_folder(reference, root))
    if stated is None and reference.scheme == "pkg":
        stated = package_metadata(reference)[1]
    return stated.lower() if stated else None


def _model_name(name: str | None, data: Path) -> str:
    if name is not None and name != _slug(name):
        hint = f"letters, digits, . _ and - only, for instance {_slug(name)}"
        raise RecipeError(Problem(f"{shorten(name)!r} can't be a model's name", "--name", hint))
    return name or _slug(data.stem)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:100].rstrip("-") or "data"


def _place(path: Path, root: Path) -> str:
    """The path as a recipe writes it: from the root where it lies below it."""
    place = path.resolve()
    return (place.relative_to(root) if place.is_relative_to(root) else place).as_posix()


def _render(template: str, facts: Mapping[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(  # noqa: S701 - YAML and not HTML: the filter is what quotes a value
        loader=PackageLoader("graftwork"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["yaml"] = as_yaml
    return environment.get_template(template).render(facts)


def as_yaml(value: Any) -> str:
    """A plain value as YAML on one line; text is quoted unless no reader of YAML could take it for something else."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{as_yaml(key)}: {as_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if not isinstance(value, str):
        return str(int(value)) if value == int(value) else repr(value)
    if PLAIN.fullmatch(value):
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in quoted)


def _write(path: Path, content: str) -> Path:
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(content)
    except OSError as error:
        raise RecipeError(Problem(f"can't be written: {error.strerror}", str(path))) from error
    return path
