"""What the same training rows tell of words without fine-tuning: by the words themselves, or by their frozen states.

Where the training rows have more words than MOST_WORDS, both learn from an even part of them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork.evaluation.words import judged_words
from graftwork.targets.catalog import TOKENS

if TYPE_CHECKING:
    import pandas as pd

    from graftwork.models.frozen import FrozenModel
    from graftwork.models.probe import Probe

MOST_WORDS = 50_000
ENDINGS = (1, 2, 3)
Linear = Callable[[list[Any], list[np.ndarray], int], np.ndarray]  # of three parts' features, two parts' labels


def tell_words_by(
    name: str,
    parts: "Sequence[pd.DataFrame]",
    tags: Sequence[str],
    regress: Linear,
    load: "Callable[[], FrozenModel]",
    on_progress: Callable[[int, int], None],
) -> np.ndarray:
    """(words, tags) for the words of the third part, learnt from the first, what is chosen chosen on the second.

    name: `majority`, `word-features` or `frozen-head`. regress: a linear model of features. load: gives the checkpoint.
    """
    train, validation, judged = _thin(parts[0]), _thin(parts[1]), parts[2]
    known = [TOKENS.learning.as_array(judged_words(rows, tags)["label"]) for rows in (train, validation)]
    texts = [list(rows["text"]) for rows in (train, validation, judged)]
    if name == "majority":
        return np.tile(TOKENS.learning.prior(known[0], len(tags)), (sum(map(_count, texts[2])), 1))
    if name == "word-features":
        return regress(_vectorise(texts), known, len(tags))
    return _probe(load(), texts, known, len(tags), on_progress)


def _count(text: str) -> int:
    return len(text.split())


def _thin(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Every so many-th of the rows, so that they have no more words than may be."""
    return rows.iloc[:: -(-sum(map(_count, rows["text"])) // MOST_WORDS)]


def _vectorise(texts: Sequence[list[str]]) -> list[Any]:
    """Features of each part's words, as they are known from the first part."""
    from sklearn.feature_extraction import DictVectorizer

    vectoriser = DictVectorizer().fit(_features(texts[0]))
    return [vectoriser.transform(_features(part)) for part in texts]


def _features(texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Of each word: itself, its ending and its kind of letters, whether it is the first or the last; its neighbours."""
    for text in texts:
        words = ["", *text.split(), ""]
        for before, word, after in zip(words, words[1:-1], words[2:], strict=False):
            low = word.lower()
            endings = {f"end {size}": low[-size:] for size in ENDINGS if len(low) > size}
            kind = "".join(sorted({_kind(letter) for letter in word}))
            around = {"before": before.lower(), "after": after.lower(), "pair": f"{before.lower()} {low}"}
            yield {"word": low, "kind": kind, "first": kind[:1] + str(word[0].isupper()), **endings, **around}


def _kind(letter: str) -> str:
    return "9" if letter.isdigit() else "A" if letter.isupper() else "a" if letter.isalpha() else letter


def _probe(
    model: "FrozenModel",
    texts: Sequence[list[str]],
    known: Sequence[np.ndarray],
    tags: int,
    on_progress: Callable[[int, int], None],
) -> np.ndarray:
    """As a linear layer on frozen states tells them; nothing of words that the checkpoint does not read."""
    from graftwork.models.probe import LabelledVectors, fit_probes

    states, is_read = model.word_states([text for part in texts for text in part], on_progress)
    ends = np.cumsum([sum(map(_count, part)) for part in texts[:-1]])
    vectors, reads = np.split(states, ends), np.split(is_read, ends)
    fitted, chosen = (LabelledVectors(vectors[i][reads[i]], known[i][reads[i]]) for i in range(2))
    values = _first_best(fit_probes(fitted, chosen, tags, fit=TOKENS.learning.fit)).values(vectors[2])
    return np.where(reads[2][:, None], values, 0.0)


def _first_best(probes: "Iterable[Probe]") -> "Probe":
    """The last before the loss on validation rises: of so many words the least regularised take minutes to solve."""
    waiting = iter(probes)
    best = next(waiting)
    for probe in waiting:
        if probe.validation_loss >= best.validation_loss:
            break
        best = probe
    return best
