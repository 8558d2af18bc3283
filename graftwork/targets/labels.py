"""From the raw text of label columns to a label, for each target; and what labels stand for."""

import math
from collections.abc import Sequence

from graftwork.targets.target import Label, LabelRule, Numbers, Read, Unread

NOT_A_NUMBER = "not a number"
UNKNOWN_LABEL = "label outside the set"
NOT_A_FLAG = "neither 0 nor 1"
FLAGS = {"0": "0", "1": "1", "0.0": "0", "1.0": "1", "false": "0", "true": "1"}  # as tables write them


def read_class(rule: LabelRule) -> Read:
    """What gives the class index of a cell.

    With a threshold a number above it is of the second class; with a mapping the raw text is looked up first.
    """
    if rule.threshold is not None:
        threshold = rule.threshold
        return lambda cells: _above(cells[0], threshold)
    indices = {name: index for index, name in enumerate(rule.classes)}
    if rule.mapping is not None:
        indices = {raw: indices[name] for raw, name in rule.mapping.items()}
    return lambda cells: indices.get(cells[0], Unread(UNKNOWN_LABEL))


def _above(raw: str, threshold: float) -> Label | Unread:
    number = _number(raw)
    return number if isinstance(number, Unread) else int(number > threshold)


def read_labels(rule: LabelRule) -> Read:
    """What gives a digit for each class: from a cell that lists classes, none if it is empty, or from a cell for each.

    With a mapping what is listed is looked up first.
    """
    if rule.separator is None:
        return _read_flags
    names = dict(rule.mapping or {name: name for name in rule.classes})
    separator, classes = rule.separator, rule.classes

    def read(cells: Sequence[str]) -> str | Unread:
        listed = {part.strip() for part in cells[0].split(separator)} - {""}
        if not listed <= names.keys():
            return Unread(UNKNOWN_LABEL)
        meant = {names[raw] for raw in listed}
        return "".join("1" if name in meant else "0" for name in classes)

    return read


def _read_flags(cells: Sequence[str]) -> str | Unread:
    flags = [FLAGS.get(cell.strip().lower()) for cell in cells]
    return Unread(NOT_A_FLAG, flags.index(None)) if None in flags else "".join(map(str, flags))


def read_tags(rule: LabelRule) -> Read:
    """What gives the indices of the tags in a cell, one for each word of the text, which is the cell after it.

    Tags and words are what stands between white space. With a mapping tags are looked up first.
    """
    indices = {name: str(index) for index, name in enumerate(rule.classes)}
    if rule.mapping is not None:
        indices = {raw: indices[name] for raw, name in rule.mapping.items()}

    def read(cells: Sequence[str]) -> str | Unread:
        tags, words = (cell.split() for cell in cells)
        if len(tags) != len(words):
            return Unread(f"{len(tags)} tags for {len(words)} words")
        return Unread(UNKNOWN_LABEL) if set(tags) - indices.keys() else " ".join(indices[tag] for tag in tags)

    return read


def read_number(_rule: LabelRule) -> Read:
    """What gives the number in a cell, if it is one and finite."""
    return lambda cells: _number(cells[0])


def _number(raw: str) -> float | Unread:
    try:
        number = float(raw)
    except ValueError:
        return Unread(NOT_A_NUMBER)
    return number if math.isfinite(number) else Unread(NOT_A_NUMBER)


def read_text(_rule: LabelRule) -> Read:
    """What gives the text in a cell, without white space around it."""
    return lambda cells: cells[0].strip()


def classes_in(label: str) -> list[int]:
    """Of a digit for each class, the places of those that are there."""
    return [index for index, digit in enumerate(label) if digit == "1"]


def tags_in(label: str) -> list[int]:
    """The indices of the tags that are there, each once."""
    return sorted(set(map(int, label.split())))


def tell_class(label: int, classes: Sequence[str]) -> str:
    """Its name."""
    return classes[label]


def tell_classes(label: str, classes: Sequence[str]) -> str:
    """Their names."""
    return ", ".join(classes[index] for index in classes_in(label)) or "none"


def tell_tags(label: str, classes: Sequence[str]) -> str:
    """Their names, word by word."""
    return " ".join(classes[int(index)] for index in label.split())


def tell_number(label: float, _classes: Sequence[str]) -> str:
    """The number as a person writes it."""
    return f"{label:g}"


def tell_text(label: str, _classes: Sequence[str]) -> str:
    """The text as it is."""
    return label


def describe_numbers(labels: Sequence[float]) -> Numbers | None:
    """Their mean, standard deviation and range, to the bit in any order; None of none."""
    if not labels:
        return None
    mean = math.fsum(labels) / len(labels)
    variance = math.fsum((label - mean) ** 2 for label in labels) / len(labels)
    return Numbers(mean, math.sqrt(variance), min(labels), max(labels))
