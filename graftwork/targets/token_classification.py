"""A tag for each word of a text. A row's label is the tags' indices, `0 0 3 4`; judged is word by word.

A judged word's label is `3 1 0 5 6`: its tag, whether it begins a text, and what each tag is (`tag_codes`), so that
metrics know where entities begin and end. As an array that is (words, 2 + tags). Values of a word that the model did
not read are all 0: it is told nothing, which is wrong whatever its tag is.

An entity is words next to each other with tags of one type, by the rules of CoNLL-2000's conlleval: `B-` and `S-` begin
one, `E-` and `S-` end it, and so does another type; `I-` after `O` begins one, too. Tags without such a prefix make of
each word an entity, apart from `O`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork.targets import classification
from graftwork.targets.classification import SMALLEST_PROBABILITY
from graftwork.targets.learning import Fit, Learning, Metric, Sums, counted, macro_f1, mean_of

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100  # in the place of a token's tag, where it is not the first of a word
NOTHING = -1  # in the place of a word's tag, where none is told
OUTSIDE = "O"
BEGIN, INSIDE, END, SINGLE = 1, 2, 3, 4
ROLES = 5  # a code is the type's number times this, and the role
PREFIXES = {"B": BEGIN, "I": INSIDE, "E": END, "L": END, "S": SINGLE, "U": SINGLE}


def tag_codes(tags: Sequence[str]) -> list[int]:
    """What each tag says: the number of its type times ROLES, and its role in an entity; 0 outside of all."""
    has_prefixes = any(tag.startswith(("B-", "I-")) for tag in tags)
    types: dict[str, int] = {}
    codes = []
    for tag in tags:
        prefix, dash, kind = tag.partition("-")
        is_part = has_prefixes and dash and prefix in PREFIXES
        number = types.setdefault(kind if is_part else tag, len(types))
        codes.append(0 if tag == OUTSIDE else number * ROLES + (PREFIXES[prefix] if is_part else SINGLE))
    return codes


def word_labels(label: str, codes: Sequence[int]) -> list[str]:
    """The label of each word, of a row's."""
    told = " ".join(map(str, codes))
    return [f"{tag} {int(place == 0)} {told}" for place, tag in enumerate(label.split())]


def find_spans(codes: np.ndarray, begins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of words with these codes: which of them begin an entity, and where the one that a word begins is over, (words,).

    begins: which of them begin a text.
    """
    kinds, roles = np.divmod(codes, ROLES)
    before, role_before = (np.roll(each, 1) for each in (kinds, roles))
    is_alone = begins | (role_before == 0) | np.isin(role_before, (END, SINGLE)) | (before != kinds)
    starts = (roles != 0) & (is_alone | np.isin(roles, (BEGIN, SINGLE)))
    is_edge = starts | begins | (roles == 0)
    edges = np.append(np.flatnonzero(is_edge), len(codes))
    return starts, edges[np.searchsorted(edges, np.arange(len(codes)), side="right")]


def _as_array(labels: Iterable[str]) -> np.ndarray:
    """Of judged words; there are few different ones."""
    known: dict[str, list[int]] = {}
    for label in labels:
        if label not in known:
            known[label] = [int(number) for number in label.split()]
    return np.array([known[label] for label in labels], dtype=np.int64)


def _decide(values: np.ndarray) -> np.ndarray:
    return np.where(values.any(axis=1), values.argmax(axis=1), NOTHING)


def _outcomes(labels: np.ndarray, values: np.ndarray) -> Sums:
    """Per word and tag: is it both, is it told, is it true."""
    tags = np.arange(values.shape[1])
    actual, told = (each[:, None] == tags for each in (labels[:, 0], _decide(values)))
    return np.hstack([actual & told, told, actual]).astype(np.float64)


def _entities(labels: np.ndarray, values: np.ndarray) -> Sums:
    """Per word: does it begin an entity that is told rightly, one that is told, one that is true."""
    codes = labels[0, 2:] if len(labels) else np.zeros(1, np.int64)
    return _count_entities(labels[:, 0], _decide(values), labels[:, 1] == 1, codes)


def _count_entities(truth: np.ndarray, told: np.ndarray, begins: np.ndarray, codes: np.ndarray) -> Sums:
    """As `_entities`. truth, told: of each word its tag, or NOTHING. begins: which of them begin a text."""
    true_codes, told_codes = codes[truth], np.where(told == NOTHING, 0, codes[told])
    (true, true_ends), (found, found_ends) = (find_spans(each, begins) for each in (true_codes, told_codes))
    is_same = (true_ends == found_ends) & (true_codes // ROLES == told_codes // ROLES)
    return np.column_stack([true & found & is_same, found, true]).astype(np.float64)


def _micro_f1(sums: Sums) -> np.ndarray:
    right, told, actual = np.moveaxis(sums, -1, 0)
    return np.divide(2 * right, told + actual, out=np.zeros_like(right), where=told + actual > 0)


def _log_losses(labels: np.ndarray, values: np.ndarray) -> Sums:
    """Where nothing is told all tags are as likely."""
    clipped = np.clip(values, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    of_truth = np.take_along_axis(clipped / clipped.sum(axis=1, keepdims=True), labels[:, :1], axis=1)
    return counted(-np.log(of_truth[:, 0]))


def _right_words(labels: np.ndarray, values: np.ndarray) -> Sums:
    return counted(_decide(values) == labels[:, 0])


def mean_loss(logits: "Tensor", labels: "Tensor", label_smoothing: float = 0.0) -> "Tensor":
    """The mean over words. logits: (rows, any, tags). labels: (rows, any), IGNORED where no word begins."""
    from torch.nn.functional import cross_entropy

    found, truth = _side_by_side(logits, labels)
    loss = cross_entropy(found, truth, ignore_index=IGNORED, label_smoothing=label_smoothing, reduction="sum")
    return loss / (truth != IGNORED).sum().clamp(min=1)


def _side_by_side(logits: "Tensor", labels: "Tensor") -> "tuple[Tensor, Tensor]":
    """(tokens, tags) logits and (tokens,) labels of all places that both have; beyond is padding."""
    width = min(logits.shape[1], labels.shape[1])
    return logits[:, :width].flatten(0, 1), labels[:, :width].flatten().long()


def measure_words(logits: "Tensor", labels: "Tensor", codes: Sequence[int]) -> tuple[float, float]:
    """The mean loss of all words, and F1 of entities; of logits and labels as in `mean_loss`."""
    found, truth = (each.numpy() for each in _side_by_side(logits, labels))
    width = min(logits.shape[1], labels.shape[1])
    places = np.flatnonzero(truth != IGNORED)
    rows = places // width
    begins = np.append(True, rows[1:] != rows[:-1])[: len(rows)]
    counts = _count_entities(truth[places], found[places].argmax(axis=1), begins, np.asarray(codes))
    return mean_loss(logits, labels).item(), float(_micro_f1(counts.sum(axis=0)))


def _measure(logits: "Tensor", labels: "Tensor") -> tuple[float, float]:
    """Where nobody says what tags are, each word that has one is an entity."""
    return measure_words(logits, labels, [place * ROLES + SINGLE for place in range(logits.shape[-1])])


def _shares(labels: np.ndarray, tags: int) -> np.ndarray:
    return np.bincount(labels[:, 0], minlength=tags) / len(labels)


def _regress(features: Any, labels: np.ndarray, strength: float, tags: int) -> Callable[[Any], np.ndarray]:
    """A linear model; of a part of the words that has but one tag, where scikit-learn has nothing to fit, that tag."""
    if len(np.unique(labels[:, 0])) == 1:
        return lambda asked: np.tile(_shares(labels, tags), (asked.shape[0], 1))
    return classification.LEARNING.regress(features, labels[:, 0], strength, tags)


def _truth(labels: np.ndarray, tags: int) -> np.ndarray:
    return np.eye(tags)[labels[:, 0]]


LEARNING = Learning(
    as_array=_as_array,
    metrics={
        "entity_f1": Metric(_entities, _micro_f1),
        "macro_f1": Metric(_outcomes, macro_f1),
        # Words of a text are no independent trials, so nothing is counted for McNemar's test.
        "word_accuracy": Metric(_right_words, mean_of),
        "log_loss": Metric(_log_losses, mean_of, is_loss=True, is_share=False),
    },
    loss="log_loss",
    decide=_decide,
    criterion=mean_loss,
    measure=_measure,
    prior=_shares,
    regress=_regress,
    fit=Fit(_truth, classification.LEARNING.fit.loss, classification.LEARNING.fit.values),
    rows=lambda labels: int(labels[:, 1].sum()),
    classes=lambda labels: labels[:, 0],
)
