"""From the raw text of the label column to a class index."""

import math
from collections.abc import Callable, Mapping, Sequence

NOT_A_NUMBER = "not a number"
UNKNOWN_LABEL = "label outside the set"


def label_reader(
    classes: Sequence[str], threshold: float | None = None, mapping: Mapping[str, str] | None = None
) -> Callable[[str], int | str]:
    """A function that gives the class index of a raw label, or the reason why it has none.

    With a threshold a number above it is of the second class; with a mapping the raw text is looked up first.
    """
    if threshold is not None:
        return lambda raw: _above(raw, threshold)
    indices = {name: index for index, name in enumerate(classes)}
    if mapping is not None:
        indices = {raw: indices[name] for raw, name in mapping.items()}
    return lambda raw: indices.get(raw, UNKNOWN_LABEL)


def _above(raw: str, threshold: float) -> int | str:
    try:
        number = float(raw)
    except ValueError:
        return NOT_A_NUMBER
    return int(number > threshold) if math.isfinite(number) else NOT_A_NUMBER
