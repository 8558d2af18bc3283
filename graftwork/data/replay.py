"""The rows that a model is trained on once more when data has grown: those that are new to it, and some of the others.

A row is known by its text and its label, so that one whose label was corrected is new. Not here: what becomes of rows
that were withdrawn. They are in no later manifest, and in the weights of every model that goes on from this one.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftwork.data.rows import contents

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# After a small landing, these keep a stage from seeing nothing but a few rows, which may all be of one class.
LEAST_REPLAYED = 200


@dataclass(frozen=True)
class ChosenRows:
    """rows: what to train on, in the order they had: `new` that the model has not seen, `replayed` that it has.

    known: rows that could be replayed. withdrawn: rows that it was trained on and that are not there any more.
    """

    rows: "pd.DataFrame"
    new: int
    replayed: int
    known: int
    withdrawn: int


def choose_rows(rows: "pd.DataFrame", before: "pd.DataFrame", replay: float, seed: int) -> ChosenRows:
    """All rows that were not there before, and for each of them `replay` of those that were, drawn by the seed.

    With a `replay` of 0 none is taken; else at least LEAST_REPLAYED, as far as there are so many; of each class the
    same share, and one at least. Method: experience replay (Robins 1995, Catastrophic forgetting, rehearsal and
    pseudorehearsal).
    """
    is_known = find_known(rows, before)
    known = rows[is_known]
    new = len(rows) - len(known)
    share = (max(LEAST_REPLAYED, replay * new) if replay else 0) / max(1, len(known))
    classes = known.iloc[_shuffled(len(known), seed)].groupby("label")
    is_replayed = classes.cumcount() < share * classes["label"].transform("size")
    replayed = is_replayed.index[is_replayed]
    chosen = rows[~is_known | rows.index.isin(replayed)]
    return ChosenRows(chosen, new, len(replayed), len(known), len(before) - len(known))


def sample_known(rows: "pd.DataFrame", before: "pd.DataFrame", most: int, seed: int) -> "pd.DataFrame":
    """At most so many of the rows that were there before, drawn by the seed, in the order they had."""
    known = rows[find_known(rows, before)]
    return known.iloc[sorted(_shuffled(len(known), seed)[:most])]


def find_known(rows: "pd.DataFrame", before: "pd.DataFrame") -> "pd.Series":
    """For each row, whether it was there before: the same text with the same label, wherever it stands."""
    return _identities(rows).isin(_identities(before))


def _shuffled(count: int, seed: int) -> "np.ndarray":
    import numpy as np

    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed))).permutation(count)


def _identities(rows: "pd.DataFrame") -> "pd.Series":
    return contents(rows) + "/" + rows["label"].astype(str)
