"""A first recipe for a data file or a folder: what `graftwork init` writes after a look at the rows.

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
from graftwork.checkpoints.safety import read_object, read_tensor_shapes
from graftwork.coherence import TFIDF
from graftwork.data.folders import survey_folder
from graftwork.data.sources import FOLDER
from graftwork.data.survey import Survey, guess_columns, survey_file
from graftwork.errors import CheckpointError, Problem, RecipeError, shorten
from graftwork.models.catalog import block_layers, families_for, family_of
from graftwork.models.pixels import SIDE, read_pixels
from graftwork.models.serving.config import TOKEN_SIDE, TOKENS_PER_SECOND
from graftwork.presets import PRESETS
from graftwork.recipe import find_root
from graftwork.sections.data import NOUNS
from graftwork.targets.catalog import CLASSIFICATION, TOKENS

POLICY = "policy.yaml"
LICENCES = ("apache-2.0", "mit")
# Below this part of an even share a class is rare: 20 % where there are two.
RARE = 0.4
FEW_ROWS = 2000
LARGE = 300_000_000  # parameters, from which adapters are proposed instead of training all
FEW_ROWS_EPOCHS = 3
MAX_TOKENS = (32, 64, 128, 256)
# Small steps did better than large ones in fine-tuning on short texts; a step of fewer tokens is mostly overhead.
ROWS_PER_STEP = 16
BATCH_TOKENS = (256, 4096)
HOLDOUT = 0.15
STANDARD_ROWS, LEAST_ROWS = 500, 10
# A label that so few rows have is more often a slip than a class.
RARE_ROWS, RARE_SHARE = 20, 0.01
# For bodies without blocks: the head's optimum on the words as they come, from which they move with it.
WORD_STAGES: list[dict[str, Any]] = [
    {"name": "head", "train": ["head"], "solver": "lbfgs"},
    {"name": "words", "train": ["all"], "epochs": 4, "learning_rate": 5e-3},
]
PLAIN = re.compile(r"(?!(?:true|false|null|yes|no|on|off|y|n)$)[a-z][a-z0-9_./-]*", re.IGNORECASE)

log = logging.getLogger(__name__)


def write_recipe(
    data: Path,
    text: str | None,
    label: str | None,
    checkpoint: str,
    output: Path,
    *,
    threshold: float | None = None,
    name: str | None = None,
    text_pair: str | None = None,
) -> tuple[Path, ...]:
    """Write a commented recipe that runs as it is, and a policy beside it where there is none; the files written.

    data: a table of texts, or a folder of pictures or sounds in folders by class. text, label: columns of the table;
    None for those that look like it. threshold: splits a numeric label. text_pair: the second column of pairs of texts.
    Raises RecipeError, DataError, and CheckpointError for a reference to nothing, or to what reads other things; a
    reference to the hub is not looked up.
    """
    if os.path.lexists(output):
        raise RecipeError(Problem("it is there already and is not overwritten", str(output), "choose another with -o"))
    model_name = _model_name(name, data)
    if data.is_dir():
        if text or label or text_pair or threshold is not None:
            hint = "leave out --text, --label, --text-pair and --threshold"
            raise RecipeError(Problem("a folder tells the labels by the folders in it", str(data), hint))
        facts = _folder_facts(data)
    else:
        facts = _table_facts(data, text, label, text_pair, threshold)
    reference, root, policy = parse_reference(checkpoint), find_root(output), output.with_name(POLICY)
    facts |= {
        "name": model_name,
        "source": _slug(data.stem),
        "path": _place(data, root),
        "policy": _place(policy, root),
        "recipe": shlex.quote(shorten(output, limit=1000)),
        "checkpoint": str(reference),
        "is_pinned": reference.is_pinned,
        "licence": _licence(reference, root),
        "licences": LICENCES,
        "presets": list(PRESETS),
        "baselines": _baselines(facts),
    }
    facts |= _class_facts(facts["classes"], facts["rows"] if facts["is_by_word"] else None)
    facts |= _model_facts(reference, root, facts["modality"])
    facts |= _size_facts(facts)
    written = [] if policy.exists() else [_write(policy, _render("policy.yaml.j2", facts))]
    return (_write(output, _render("recipe.yaml.j2", facts)), *written)


def _baselines(facts: Mapping[str, Any]) -> list[str]:
    """Those that go with what is read, and with what is told of it."""
    target = TOKENS if facts["is_by_word"] else CLASSIFICATION
    return [each for each in target.baselines if each != TFIDF or facts["modality"] == "text"]


def _table_facts(
    data: Path, text: str | None, label: str | None, text_pair: str | None, threshold: float | None
) -> dict[str, Any]:
    """What a table of texts tells; the columns that look like text and label where they are not given."""
    if text is None or label is None:
        guessed = guess_columns(data)
        text, label = text or guessed[0], label or guessed[1]
    texts = (text,) if text_pair is None else (text, text_pair)
    survey, left_out = _without_rare(survey_file(data, texts, label, threshold))
    for each, rows in left_out.items():
        log.warning("class %r has only %d rows and is left out: add it to label.classes if you want it", each, rows)
    return {
        "modality": "text",
        "text": text if text_pair is None else texts,
        "label": label,
        "threshold": threshold,
        "survey": survey,
        "left_out": {shorten(each): rows for each, rows in left_out.items()},
        "classes": survey.classes,
        "rows": survey.rows,
        "is_by_word": survey.is_by_word,
    }


def _folder_facts(folder: Path) -> dict[str, Any]:
    """What a folder of pictures or sounds tells."""
    survey = survey_folder(folder)
    return {
        "modality": survey.modality,
        "label": FOLDER,
        "threshold": None,
        "survey": survey,
        "left_out": {},
        "classes": survey.classes,
        "rows": survey.rows,
        "is_by_word": False,
        "seconds": survey.seconds and max(0.1, math.ceil(10 * survey.seconds) / 10),
    }


def _without_rare(survey: Survey) -> tuple[Survey, dict[str, int]]:
    """The survey without classes that nothing can be learnt of, and those: stray labels, more often than not."""
    rare = {n: rows for n, rows in survey.classes.items() if rows < RARE_ROWS and rows < RARE_SHARE * survey.rows}
    kept = {name: rows for name, rows in survey.classes.items() if name not in rare}
    return (replace(survey, classes=kept), rare) if len(kept) > 1 else (survey, {})


def _class_facts(classes: Mapping[str, int], tagged: int | None) -> dict[str, Any]:
    """How the classes are balanced. tagged: rows, where each has tags of several classes; else None."""
    total = sum(classes.values()) if tagged is None else tagged
    rarest = min(classes, key=lambda name: classes[name])
    share = classes[rarest] / total
    return {
        "balance": [f"{shorten(name)}: {rows:,} rows, {rows / total:.0%}" for name, rows in classes.items()],
        "is_balanced": tagged is not None or share >= RARE / len(classes),  # tags are never as many
        "rarest": f"{shorten(rarest)} has {share:.1%} of the rows",
    }


def _model_facts(reference: Reference, root: Path, modality: str) -> dict[str, Any]:
    """What a checkpoint that is here says of itself: its family, how large it is, and how it sees pictures.

    Raises CheckpointError if its family reads something else than the data is.
    """
    unknown = {"family": None, "parameters": 0, "is_large": False, "is_of_words": False, "side": None}
    folder = None if reference.scheme == "hf" else local_folder(reference, root)
    if folder is None or not (folder / "config.json").is_file():
        return unknown
    architecture = str(read_object(folder / "config.json").get("model_type"))
    family = families_for(modality).get(architecture) or family_of(architecture)
    if family.modality != modality:
        problem = f"{family.known_as} reads {NOUNS[family.modality]}, and the data is {NOUNS[modality]}"
        raise CheckpointError(Problem(problem, str(reference), "`graftwork families` lists what there is"))
    shapes = {name: shape for name, (shape, _) in read_tensor_shapes(folder).items()}
    parameters = sum(math.prod(shape) for shape in shapes.values())
    return {
        "family": family.known_as,
        "parameters": parameters,
        "is_large": parameters > LARGE and bool(block_layers(family, shapes)),
        "is_of_words": not family.blocks,
        "side": read_pixels(folder).side if modality == "image" else None,
    }


def _size_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What follows from the length of the rows and their number.

    Stages never train the head alone: that would be the frozen-head baseline, which a first model has to beat.
    """
    usual, max_tokens = _row_tokens(facts)
    least, most = BATCH_TOKENS
    batch_tokens = min(max(math.ceil(ROWS_PER_STEP * usual / 100) * 100, least), most)
    rows = facts["rows"]
    has_few = rows < FEW_ROWS
    preset = "lora" if facts["is_large"] else "gradual" if has_few else "full"
    stages = [stage | ({"epochs": FEW_ROWS_EPOCHS} if has_few else {}) for stage in PRESETS[preset]]
    return {
        "max_tokens": max_tokens,
        "batch_tokens": batch_tokens,
        "rows_per_step": max(1, batch_tokens // usual),
        "has_few_rows": has_few,
        "few_rows": FEW_ROWS,
        "large": LARGE,
        "stages": WORD_STAGES[facts["is_by_word"] :] if facts["is_of_words"] else stages,
        "minimum_rows": min(STANDARD_ROWS, max(LEAST_ROWS, rows // 10)),
        "standard_rows": STANDARD_ROWS,
        "holdout_rows": round(HOLDOUT * rows),
    }


def _row_tokens(facts: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens of a usual row, and the most that one may have."""
    survey = facts["survey"]
    if facts["modality"] == "text":
        most = next((size for size in MAX_TOKENS if survey.long <= size), MAX_TOKENS[-1])
        return min(survey.usual, most), most
    if facts["modality"] == "image":
        tokens = math.ceil((facts["side"] or SIDE) / TOKEN_SIDE) ** 2
    else:
        tokens = math.ceil(TOKENS_PER_SECOND * (facts["seconds"] or 1))
    return tokens, tokens


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
