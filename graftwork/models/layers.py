"""What config.json says of the convolutional bodies that are ours, checked before one is made."""

from collections.abc import Iterator, Mapping
from typing import Any

from graftwork.errors import CheckpointError, Problem, raise_if, shorten

# Kernel, stride and padding of what makes a picture smaller: the first convolution, and each pool.
SHRINKING = {"vgg": ((3, 1, 1), (2, 2, 0)), "alexnet": ((11, 4, 2), (3, 2, 0))}
POOL = "M"


def check_layers(config: Mapping[str, Any], side: int) -> None:
    """Raises CheckpointError if no body can be made so, or nothing is left of pictures of this side.

    Of other architectures nothing is asked.
    """
    if config.get("model_type") not in SHRINKING:
        return
    raise_if((Problem(problem, "config.json") for problem in _problems(config)), CheckpointError)
    smallest = _smallest_side(config)
    if side < smallest:
        problem = f"its pools leave nothing of pictures of side {side}"
        raise CheckpointError(Problem(problem, "input.side", f"it reads those of {smallest} pixels and more"))


def _problems(config: Mapping[str, Any]) -> Iterator[str]:
    layers = config.get("layers")
    if not (isinstance(layers, list) and layers[:1] not in ([], [POOL]) and all(map(_is_layer, layers))):
        yield f"layers: expected a list of widths and, after the first, {POOL!r} for pools, found {shorten(layers)}"
    for name in ("hidden_size", "pooled_side"):
        if not _is_count(config.get(name)):
            yield f"{name}: expected a whole number above 0, found {shorten(config.get(name))}"
    dropout = config.get("dropout")
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        yield f"dropout: expected a number from 0 to 1, found {shorten(dropout)}"
    if config["model_type"] == "vgg" and not isinstance(config.get("batch_norm"), bool):
        yield f"batch_norm: expected true or false, found {shorten(config.get('batch_norm'))}"


def _is_layer(value: Any) -> bool:
    return value == POOL or _is_count(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _smallest_side(config: Mapping[str, Any]) -> int:
    """Of pictures of which one place is left after the last layer."""
    first, pool = SHRINKING[config["model_type"]]
    side = 1
    for kernel, stride, padding in (*[pool] * config["layers"].count(POOL), first):
        side = (side - 1) * stride + kernel - 2 * padding
    return side
