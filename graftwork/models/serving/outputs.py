"""What a head gives, and how it is told: a class, any number of classes, a number, a text, or a tag for each word."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .config import GENERATION, TOKENS, ServingConfig

THRESHOLD = 0.5  # a class that need not be the only one is told above it
SEPARATOR = "|"  # between such classes, where the recipe names none


@dataclass(frozen=True)
class Outputs:
    """What one kind of model gives.

    activate: what the head gives to values, (rows, outputs). names: of a table's columns, given the classes. table:
    these columns, given the classes, values, and what stands between classes.
    """

    activate: Callable[[Tensor], Tensor]
    names: Callable[[Sequence[str]], list[str]]
    table: Callable[[Sequence[str], np.ndarray, str], list[Any]]


def _softmax(outputs: Tensor) -> Tensor:
    return torch.softmax(outputs, dim=-1)


def _one_class(classes: Sequence[str], values: np.ndarray, _separator: str) -> list[Any]:
    return [[classes[index] for index in values.argmax(axis=1)], *values.T]


def _any_classes(classes: Sequence[str], values: np.ndarray, separator: str) -> list[Any]:
    told = [
        separator.join(name for name, value in zip(classes, row, strict=True) if value > THRESHOLD) for row in values
    ]
    return [told, *values.T]


def _first(_classes: Sequence[str], values: np.ndarray, _separator: str) -> list[Any]:
    return [values[:, 0]]


def _by_word(_classes: Sequence[str], _values: np.ndarray, _separator: str) -> list[Any]:
    raise ValueError("tags are told by `tell_words`, which knows the texts")


def _same(outputs: Tensor) -> Tensor:
    return outputs


OUTPUTS = {
    "classification": Outputs(_softmax, lambda classes: ["label", *(f"p_{name}" for name in classes)], _one_class),
    "multi-label": Outputs(torch.sigmoid, lambda classes: ["labels", *(f"p_{name}" for name in classes)], _any_classes),
    "regression": Outputs(_same, lambda _: ["prediction"], _first),
    GENERATION: Outputs(_same, lambda _: ["written"], _first),
    TOKENS: Outputs(_softmax, lambda _: ["tags", "scores", "entities"], _by_word),
}


def values_of(outputs: Tensor, config: ServingConfig) -> Tensor:
    """What the head's outputs, (rows, outputs), stand for: probabilities, or numbers in the label's own unit."""
    values = OUTPUTS[config.target].activate(outputs)
    if config.scale is None:
        return values
    mean, std = config.scale
    return values * std + mean


def tell(target: str, classes: Sequence[str], values: np.ndarray, separator: str | None) -> dict[str, Any]:
    """Columns by name, for values of rows: what is told, and the probability of each class."""
    outputs = OUTPUTS[target]
    return dict(zip(outputs.names(classes), outputs.table(classes, values, separator or SEPARATOR), strict=True))
