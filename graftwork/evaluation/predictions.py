"""Predictions: one stored row for each row, or word, a model judged, so that any two models can be compared later."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from graftwork.errors import DataError, Problem
from graftwork.evaluation.words import judged_words
from graftwork.fingerprint import digest
from graftwork.models.serving.config import Input
from graftwork.storage import Store
from graftwork.targets.catalog import CLASSIFICATION
from graftwork.targets.target import Target

if TYPE_CHECKING:
    import pandas as pd

PREDICTIONS_VERSION = 1
FILE = "predictions.parquet"
MEDIA = "media"  # the column of what is kept beside the rows
KEPT = ["row_id", "label", "group", "source"]


class Predictor(Protocol):
    """A model that judges texts, pairs of texts, pictures or sounds.

    columns: what it reads of a row. modality: text, image or audio. classes: in the order of its probabilities. target:
    what it gives, as in TARGETS.
    """

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def target(self) -> str: ...

    @property
    def modality(self) -> str: ...

    def probabilities(self, inputs: Sequence[Input], on_progress: Callable[[int], None] | None = None) -> np.ndarray:
        """(inputs, classes), (inputs, 1) numbers or texts, or (words, tags). on_progress: how many inputs are done."""
        ...

    def answer(self, inputs: Sequence[Input], on_progress: Callable[[int], None] | None = None) -> dict[str, Any]:
        """What is told of the inputs, as columns of a table by name."""
        ...


def predict_rows(
    store: Store,
    model: object,
    rows: "pd.DataFrame",
    probabilities: Callable[[Sequence[Input]], np.ndarray],
    tags: Sequence[str] | None = None,
) -> str:
    """The key of a model's predictions for the rows, computed only if the store has none.

    model: the plain value that decides the predictions. probabilities: inputs to (inputs, classes), or to (words, tags)
    of all words, which are what is judged then. tags: those of words; None where rows are judged.
    """
    asked = {"model": model, "rows": rows_digest(rows), "version": PREDICTIONS_VERSION}
    asked |= {} if tags is None else {"tags": tags}
    key = f"predictions/{digest(asked)}"
    if store.open(key) is None:
        values = np.asarray(probabilities(inputs_of(rows)))
        judged = rows if tags is None else judged_words(rows, tags)
        predictions = frame_predictions(judged, values if values.dtype == object else values.astype(np.float64))
        with store.writing(key) as folder:
            predictions.to_parquet(folder / FILE, index=False)
    return key


def frame_predictions(rows: "pd.DataFrame", probabilities: np.ndarray) -> "pd.DataFrame":
    """What is kept of the rows, and a column for each class: as `open_predictions` gives it."""
    return rows[KEPT].assign(**{f"p_{index}": column for index, column in enumerate(probabilities.T)})


def open_predictions(store: Store, key: str) -> "pd.DataFrame":
    """The stored predictions, in the order of their rows: row_id, label, group, source, p_0 … p_k.

    Raises DataError if the store does not hold them whole.
    """
    import pandas as pd

    folder = store.open(key)
    if folder is None:
        raise DataError(Problem("these predictions are not in the store any more", key, "run again to make them"))
    return pd.read_parquet(folder / FILE)


def rows_digest(rows: "pd.DataFrame") -> str:
    """What the rows say, how they are labelled and grouped, in their order."""
    facts = rows[[*KEPT, "text", "text_b"]].astype(object)
    return digest(facts.where(facts.notna(), None).values.tolist())


def inputs_of(rows: "pd.DataFrame") -> list[Input]:
    """What a model reads of each row: a text, a pair of texts, or what is kept of a picture or a sound."""
    if MEDIA in rows:
        return list(rows[MEDIA])
    pairs = zip(rows["text"], rows["text_b"], rows["text_b"].notna(), strict=True)
    return [(first, second) if is_pair else first for first, second, is_pair in pairs]


def labels_of(predictions: "pd.DataFrame", target: Target = CLASSIFICATION) -> np.ndarray:
    """The true labels as an array: (rows,) indices of classes, or (rows, outputs)."""
    return target.learning.as_array(predictions["label"])


def probabilities_of(predictions: "pd.DataFrame") -> np.ndarray:
    """(rows, classes), or (rows, 1) numbers or texts."""
    values = predictions.filter(regex=r"^p_\d+$")
    is_number = all(kind.kind in "fiu" for kind in values.dtypes)
    return values.to_numpy(dtype=np.float64 if is_number else object)


def group_codes(predictions: "pd.DataFrame") -> np.ndarray:
    """An integer per row, equal for rows of one group; a row without a group is one of its own."""
    import pandas as pd

    codes, names = pd.factorize(predictions["group"])
    alone = codes < 0
    return np.where(alone, len(names) + np.cumsum(alone), codes)
