"""A text: the label is it, and a model writes another from what it reads.

Values are (rows, 1) of texts. Words are what is between white space and punctuation, and in scripts without spaces each
character, whatever their case. Metrics: exact match (but for case and white space), F1 of the words that both have
(Rajpurkar et al. 2016, which leaves English articles out), ROUGE-L (Lin 2004, F1 by the longest sequence of words that
both have in this order), chrF (Popović 2015, as sacrebleu counts it: up to six characters, recall twice as important).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork.targets.learning import Fit, Learning, Metric, Sums, counted, mean_of

if TYPE_CHECKING:
    from torch import Tensor

# As near duplicates are found (`graftwork.data.leakage`): scripts without spaces are Thai to Burmese, Khmer, kana, Han.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
LONGEST_GRAM, RECALL_WEIGHT = 6, 2.0
ROWS_AT_ONCE = 256  # that the nearest training row is looked for


def _as_array(labels: Iterable[str]) -> np.ndarray:
    return np.array(list(labels), dtype=object)


def words_of(text: str) -> list[str]:
    """The words of a text in one case."""
    return WORD.findall(unicodedata.normalize("NFC", text).casefold())


def _told(values: np.ndarray) -> list[str]:
    return [str(text) for text in values[:, 0]]


def _is_right(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.array([_same(label) == _same(text) for label, text in zip(labels, _told(values), strict=True)], bool)


def _same(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _matches(labels: np.ndarray, values: np.ndarray) -> Sums:
    return counted(_is_right(labels, values))


def _f1_by(common: Callable[[Sequence[str], Sequence[str]], int]) -> Callable[[np.ndarray, np.ndarray], Sums]:
    """Columns of a row's F1, by how many of the words of both count as the same; of two without words by exact match.

    Else a label of signs alone, such as an emoji, would be told rightly by whoever writes nothing.
    """

    def f1(label: str, text: str) -> float:
        wanted, found = words_of(label), words_of(text)
        if not (wanted or found):
            return float(_same(label) == _same(text))
        return 2 * common(wanted, found) / (len(wanted) + len(found))

    return lambda labels, values: counted(
        np.array([f1(label, text) for label, text in zip(labels, _told(values), strict=True)], np.float64)
    )


def common_words(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words both have, in any order."""
    return (Counter(one) & Counter(other)).total()


def common_sequence(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest sequence that both have, with gaps or without.

    Method: a row of the table as the bits of a number (Hyyrö 2004).
    """
    places: dict[str, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(one)) - 1
    row = every
    for word in other:
        met = row & places.get(word, 0)
        row = ((row + met) | (row - met)) & every
    return len(one) - row.bit_count()


def _grams(labels: np.ndarray, values: np.ndarray) -> Sums:
    """Per row and length: how many are written, how many there are in the label, how many in both."""
    return np.array(
        [_count_grams(text, label) for label, text in zip(labels, _told(values), strict=True)], np.float64
    ).reshape(-1, 3 * LONGEST_GRAM)


def _count_grams(text: str, label: str) -> list[int]:
    counts = []
    for length in range(1, LONGEST_GRAM + 1):
        written, wanted = (_grams_of("".join(each.split()), length) for each in (text, label))
        counts += [written.total() if wanted else 0, wanted.total(), (written & wanted).total()]
    return counts


def _grams_of(text: str, length: int) -> Counter[str]:
    return Counter(text[start : start + length] for start in range(len(text) - length + 1))


def _chrf(sums: Sums) -> np.ndarray:
    """The F of precision and recall, each the mean over the lengths that both sides have."""
    written, wanted, both = (sums[..., place::3] for place in range(3))
    is_counted = (written > 0) & (wanted > 0)
    lengths = np.maximum(is_counted.sum(axis=-1), 1)
    precision, recall = (
        np.divide(both, size, out=np.zeros_like(both), where=is_counted).sum(axis=-1) / lengths
        for size in (written, wanted)
    )
    weight = RECALL_WEIGHT**2
    bottom = weight * precision + recall
    return np.divide((1 + weight) * precision * recall, bottom, out=np.zeros_like(bottom), where=bottom > 0)


def _criterion(found: "Tensor", _labels: "Tensor") -> "Tensor":
    """Of what a writer gives for rows: (rows, 2) of their mean losses, and the shares of tokens told rightly."""
    return found[:, 0].mean()


def _measure(found: "Tensor", _labels: "Tensor") -> tuple[float, float]:
    loss, share = found.mean(0).tolist()
    return loss, share


def _most_frequent(labels: np.ndarray, _outputs: int) -> np.ndarray:
    """The text that most rows have; of several the first by alphabet."""
    counts = Counter(labels)
    return _as_array([min(counts, key=lambda text: (-counts[text], text))])


def _nearest(features: Any, labels: np.ndarray, _strength: float, _outputs: int) -> Callable[[Any], np.ndarray]:
    """The text of the training row that is most like it, by the cosine of their features."""

    def predict(asked: Any) -> np.ndarray:
        found = [
            np.asarray((asked[start : start + ROWS_AT_ONCE] @ features.T).argmax(axis=1)).ravel()
            for start in range(0, asked.shape[0], ROWS_AT_ONCE)
        ]
        return labels[np.concatenate(found)][:, None] if found else labels[:0, None]

    return predict


def _unsolvable(*_given: Any) -> Any:
    raise AssertionError("what a text is told from is not solved for: recipes refuse it")


LEARNING = Learning(
    as_array=_as_array,
    metrics={
        "rouge_l": Metric(_f1_by(common_sequence), mean_of),
        "token_f1": Metric(_f1_by(common_words), mean_of),
        "chrf": Metric(_grams, _chrf),
        "exact_match": Metric(_matches, mean_of, is_right=_is_right),
    },
    loss="rouge_l",
    decide=None,
    criterion=_criterion,
    measure=_measure,
    prior=_most_frequent,
    regress=_nearest,
    fit=Fit(_unsolvable, _unsolvable, _unsolvable),
)
