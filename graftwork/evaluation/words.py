"""Words of texts as what is judged: each is a line of the predictions, and words of a text are of one group."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graftwork.targets.token_classification import tag_codes, word_labels

if TYPE_CHECKING:
    import pandas as pd

DIGITS = 6  # so that names in their order are words in theirs


def spread(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Each row once for each of its words."""
    places = np.repeat(np.arange(len(rows)), [len(label.split()) for label in rows["label"]])
    return rows.iloc[places].reset_index(drop=True)


def judged_words(rows: "pd.DataFrame", tags: Sequence[str]) -> "pd.DataFrame":
    """A line for each word of each row, with what is known of the row; its group is the row where that has none."""
    codes = tag_codes(tags)
    labels = [word_labels(label, codes) for label in rows["label"]]
    numbers = (number for each in labels for number in range(len(each)))
    words = spread(rows)
    return words.assign(
        row_id=[f"{row} word {number:0{DIGITS}}" for row, number in zip(words["row_id"], numbers, strict=True)],
        label=[label for each in labels for label in each],
        group=words["group"].where(words["group"].notna(), words["row_id"]),
    )
