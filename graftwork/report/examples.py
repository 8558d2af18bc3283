"""Rows of the holdout beside what a model wrote of them, where it writes texts: a few, from the worst to the best."""

from dataclasses import dataclass

from graftwork.data.manifest import DatasetManifest, load_rows
from graftwork.evaluation.evaluation import CANDIDATE, Evaluation
from graftwork.evaluation.predictions import inputs_of, labels_of, open_predictions, probabilities_of
from graftwork.storage import Store
from graftwork.targets.catalog import TARGETS

SHOWN = 5


@dataclass(frozen=True)
class Example:
    """What was read, what its label is, what was written, and how near that is by the target's headline metric."""

    read: str
    label: str
    written: str
    score: float


def find_examples(store: Store, evaluation: Evaluation, manifest: DatasetManifest) -> tuple[Example, ...]:
    """Rows at even steps from the one that is told worst to the one that is told best; none where no text is."""
    target = TARGETS[evaluation.target]
    if not target.is_text:
        return ()
    judged = open_predictions(store, evaluation.predictions[CANDIDATE])
    rows = load_rows(store, manifest, sides=("holdout",)).set_index("row_id").loc[judged["row_id"]]
    metric, values = target.learning.metrics[target.headline], probabilities_of(judged)
    scores = metric.value(metric.columns(labels_of(judged, target), values))
    order = sorted(range(len(judged)), key=lambda place: (scores[place], judged["row_id"][place]))
    last = len(order) - 1
    chosen = dict.fromkeys(order[last * step // (SHOWN - 1)] for step in range(SHOWN))
    texts = [" / ".join(text) if isinstance(text, tuple) else str(text) for text in inputs_of(rows)]
    return tuple(
        Example(texts[place], str(judged["label"][place]), str(values[place, 0]), float(scores[place]))
        for place in chosen
    )
