"""Baselines: what the same training rows give without fine-tuning. A model that can't beat them earns nothing.

They are rivals in earnest: the regularisation of the two linear ones is chosen on the validation rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork.data.leakage import TOKEN
from graftwork.data.manifest import DatasetManifest, load_rows
from graftwork.errors import CheckpointError, Problem
from graftwork.evaluation.predictions import inputs_of, labels_of, predict_rows, rows_digest
from graftwork.evaluation.word_baselines import tell_words_by
from graftwork.fingerprint import without_defaults
from graftwork.models.serving.config import PixelConfig, SoundConfig
from graftwork.sections.prompts import ZERO_SHOT
from graftwork.storage import Store
from graftwork.targets.catalog import TARGETS
from graftwork.targets.target import Target

if TYPE_CHECKING:
    import pandas as pd

    from graftwork.models.frozen import FrozenModel

BASELINE_VERSION = 3  # raised by hand when what a baseline computes changes
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)  # scikit-learn's C: the inverse of the regularisation
# As near duplicates are found; a text without a single word (an emoji, a rating in stars) has tokens too.
TOKENS = rf"{TOKEN.pattern}|[^\w\s]"


@dataclass(frozen=True)
class FrozenEncoder:
    """The pretrained checkpoint as it is used without training. checkpoint: its store key.

    prompts: of each class, where it tells classes by their texts.
    """

    checkpoint: str
    pooling: str
    max_tokens: int
    precision: str
    pixels: PixelConfig | None = None
    sound: SoundConfig | None = None
    prompts: tuple[tuple[str, ...], ...] | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What is told of it. What a later version added counts only where it is used, so that older digests stay."""
        return {name: value for name, value in vars(self).items() if name != "prompts" or value is not None}

    def load(self, store: Store, cache_bytes: int) -> "FrozenModel":
        """The checkpoint, ready to give features. Raises CheckpointError if it is not in the store."""
        from graftwork.models.frozen import load_frozen

        return load_frozen(
            self._open(store),
            pooling=self.pooling,
            max_tokens=self.max_tokens,
            precision=self.precision,
            pixels=self.pixels,
            sound=self.sound,
            store=store,
            cache_bytes=cache_bytes,
        )

    def tell(self, store: Store, inputs: Sequence[Any], on_progress: Callable[[int, int], None]) -> np.ndarray:
        """(inputs, classes) probabilities by the prompts. Raises CheckpointError if it is not in the store."""
        from graftwork.models.zero_shot import tell_by_prompts

        assert self.pixels is not None
        assert self.prompts is not None
        on_progress(0, len(inputs))
        told = partial(_tell_share, on_progress, len(inputs))
        return tell_by_prompts(self._open(store), self.prompts, self.pixels, self.precision, inputs, told)

    def _open(self, store: Store) -> Path:
        folder = store.open(self.checkpoint)
        if folder is None:
            problem = Problem("the checkpoint is not in the store any more", self.checkpoint, "retrieve it again")
            raise CheckpointError(problem)
        return folder


def _tell_share(on_progress: Callable[[int, int], None], total: int, done: int) -> None:
    on_progress(done, total)


def predict_baseline(
    store: Store,
    name: str,
    manifest: DatasetManifest,
    judged: "pd.DataFrame",
    encoder: FrozenEncoder,
    cache_bytes: int,
    on_progress: Callable[[int, int], None],
) -> str:
    """The key of a baseline's predictions for the judged rows; fitted only if the store has none.

    name: `majority`, `tfidf` (of words `word-features`), `frozen-head`, or `zero-shot`, which is not fitted.
    cache_bytes: room for the features of the frozen head, in the store. on_progress is told that it begins, and how
    many of how many rows are computed.
    """
    if name == ZERO_SHOT:
        told = partial(encoder.tell, store, on_progress=on_progress)
        return predict_rows(store, {"baseline": name, "version": BASELINE_VERSION, "encoder": encoder}, judged, told)
    sides = {side: load_rows(store, manifest, sides={side}) for side in ("train", "validation")}
    train, validation = sides["train"], sides["validation"]
    digests = [rows_digest(rows) for rows in sides.values()]
    target = TARGETS[manifest.target]
    model = {"baseline": name, "rows": digests, "version": BASELINE_VERSION}
    if target.is_text:  # whose labels may read as those of another target do, `1` and `0` for instance
        model |= {"target": target.name}
    if name == "frozen-head":
        model |= {"encoder": without_defaults(FrozenEncoder, vars(replace(encoder, prompts=None)))}

    def fit_and_predict(_: object) -> np.ndarray:
        on_progress(0, len(judged))
        if target.is_by_word:
            regress = partial(_regress, target=target)
            load = partial(encoder.load, store, cache_bytes)
            return tell_words_by(name, [train, validation, judged], manifest.classes, regress, load, on_progress)
        outputs = len(manifest.classes)
        known = [labels_of(rows, target) for rows in (train, validation)]
        if name == "majority":
            return np.tile(target.learning.prior(known[0], outputs), (len(judged), 1))
        parts = [train, validation, judged]
        if name == "frozen-head":
            return _probe(encoder.load(store, cache_bytes), parts, known, target, outputs, on_progress)
        return _regress(_tfidf(parts), known, outputs, target)

    return predict_rows(store, model, judged, fit_and_predict, manifest.classes if target.is_by_word else None)


def _tfidf(parts: "list[pd.DataFrame]") -> list[Any]:
    """Words and pairs of words, weighed by how rare they are among the training rows (the first part).

    In scripts without spaces a word is a single character.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [[" ".join(text) if isinstance(text, tuple) else str(text) for text in inputs_of(rows)] for rows in parts]
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKENS).fit(texts[0])
    return [vectorizer.transform(part) for part in texts]


def _probe(
    model: "FrozenModel",
    parts: "list[pd.DataFrame]",
    known: list[np.ndarray],
    target: Target,
    outputs: int,
    on_progress: Callable[[int, int], None],
) -> np.ndarray:
    """(rows, outputs) for the third part: a probe of the checkpoint, fitted on the first, chosen on the second."""
    from graftwork.models.probe import LabelledVectors, best_probe, fit_probes

    vectors = model.vectors([text for rows in parts for text in inputs_of(rows)], on_progress)
    train, validation, judged = np.split(vectors, np.cumsum([len(rows) for rows in parts[:-1]]))
    # So that the strengths mean the same in whatever unit numbers are.
    mean, std = (known[0].mean(), known[0].std()) if target.is_number else (0, 1)
    fitted, chosen = (
        LabelledVectors(part, (labels - mean) / std if target.is_number else labels)
        for part, labels in zip((train, validation), known, strict=True)
    )
    return best_probe(fit_probes(fitted, chosen, outputs, fit=target.learning.fit)).values(judged) * std + mean


def _regress(parts: list[Any], known: list[np.ndarray], outputs: int, target: Target) -> np.ndarray:
    """A linear model of the first part; (rows, outputs) for the third, by what does best on the second.

    Of texts nothing is chosen: what is told is that of the nearest row of the first part.
    """
    train, validation, judged = parts
    if target.is_text:
        return target.learning.regress(train, known[0], 1.0, outputs)(judged)
    models = [target.learning.regress(train, known[0], strength, outputs) for strength in STRENGTHS]
    metric = target.learning.metrics[target.learning.loss]
    best = min(
        models, key=lambda predict: float(metric.value(metric.columns(known[1], predict(validation)).sum(axis=0)))
    )
    return best(judged)
