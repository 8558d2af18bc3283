"""Metrics of texts that are written, against counting done the slow way, and tables worked out by hand."""

from collections.abc import Callable
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from data_projects import Project, make_sentence
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.data.manifest import load_rows
from graftwork.evaluation.baselines import FrozenEncoder, predict_baseline
from graftwork.evaluation.comparison import compare
from graftwork.evaluation.metrics import describe_classes, measure
from graftwork.evaluation.predictions import frame_predictions, labels_of, open_predictions, probabilities_of
from graftwork.targets.catalog import GENERATION
from graftwork.targets.generation import common_sequence, common_words, words_of

TEXTS = st.lists(st.sampled_from("a b c dd é.".split()), max_size=7).map(" ".join)


def value(name: str, labels: list[str], texts: list[str]) -> float:
    metric = GENERATION.learning.metrics[name]
    values = np.array(texts, dtype=object)[:, None]
    return float(metric.value(metric.columns(np.array(labels, dtype=object), values).sum(axis=0)))


def longest_by_trying(one: list[str], other: list[str]) -> int:
    """Of all sequences of `one`, the longest that `other` has."""
    return max(
        size for size in range(len(one) + 1) for chosen in combinations(one, size) if is_within(chosen, tuple(other))
    )


@cache
def is_within(part: tuple[str, ...], whole: tuple[str, ...]) -> bool:
    waiting = iter(whole)
    return all(word in waiting for word in part)


@given(TEXTS, TEXTS)
@settings(deadline=None, max_examples=200)
def test_words_in_common_are_counted_as_by_trying_all(one: str, other: str) -> None:
    """The longest sequence that both have, and how many words both have, each as often as in both."""
    a, b = words_of(one), words_of(other)
    assert common_sequence(a, b) == longest_by_trying(a, b)
    assert common_words(a, b) == sum(min(a.count(word), b.count(word)) for word in set(a))


def chrf_by_hand(labels: list[str], texts: list[str]) -> float:
    """Length by length, over all rows together, as the paper and sacrebleu have it."""
    precisions, recalls = [], []
    for size in range(1, 7):
        written = wanted = both = 0
        for label, text in zip(labels, texts, strict=True):
            mine, theirs = (
                ["".join(each.split())[i : i + size] for i in range(len("".join(each.split())) - size + 1)]
                for each in (text, label)
            )
            written += len(mine) if theirs else 0
            wanted += len(theirs)
            both += sum(min(mine.count(gram), theirs.count(gram)) for gram in set(mine))
        if written and wanted:
            precisions.append(both / written)
            recalls.append(both / wanted)
    precision, recall = (sum(each) / len(each) if each else 0.0 for each in (precisions, recalls))
    return 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
@settings(deadline=None, max_examples=100)
def test_chrf_is_that_of_all_rows_together(rows: list[tuple[str, str]]) -> None:
    """A function of sums over rows: no mean of the rows' own."""
    labels, texts = map(list, zip(*rows, strict=True))
    assert value("chrf", labels, texts) == pytest.approx(chrf_by_hand(labels, texts), abs=1e-12)


@pytest.mark.parametrize(
    ("label", "written", "expected"),
    [
        (
            "the cat sat on the mat",
            "the cat sat on the mat",
            {"rouge_l": 1, "token_f1": 1, "chrf": 1, "exact_match": 1},
        ),
        # Four words of five, of four: in order three.
        ("a b c d e", "b a c d", {"rouge_l": 2 * 3 / 9, "token_f1": 2 * 4 / 9, "exact_match": 0}),
        ("The  Cat\n", "the cat", {"rouge_l": 1, "token_f1": 1, "exact_match": 1}),
        ("the cat.", "the cat", {"rouge_l": 1, "token_f1": 1, "exact_match": 0}),
        ("一只猫", "一只狗", {"rouge_l": 2 / 3, "token_f1": 2 / 3}),
        ("yes", "", {"rouge_l": 0, "token_f1": 0, "chrf": 0, "exact_match": 0}),
        # chrF with one row "ab" for "abc": precision 1, 1, recall 2/3, 1/2 of the lengths that both have.
        ("abc", "ab", {"chrf": 5 * 1 * (7 / 12) / (4 * 1 + 7 / 12)}),
        ("!!", "!!", {"rouge_l": 1, "token_f1": 1, "exact_match": 1}),
        # Without words it is the signs that have to be the same: nothing is no answer to an emoji.
        ("\U0001f600", "", {"rouge_l": 0, "token_f1": 0, "chrf": 0, "exact_match": 0}),
        ("a", "!", {"rouge_l": 0, "token_f1": 0}),
    ],
)
def test_a_row_counts_as_worked_out_by_hand(label: str, written: str, expected: dict[str, float]) -> None:
    assert {name: value(name, [label], [written]) for name in expected} == pytest.approx(expected)


def rows_of(texts: list[str], labels: list[str]) -> "Callable[[], object]":
    import pandas as pd

    frame = pd.DataFrame({"row_id": [f"r{row:03}" for row in range(len(labels))], "label": labels})
    return frame_predictions(frame.assign(group=None, source="made"), np.array(texts, dtype=object)[:, None])


def test_stored_texts_come_back_and_are_compared(tmp_path: Path) -> None:
    """An empty one, one that looks like a number, one of several lines; the nearer ones win, with an interval."""
    import pandas as pd

    labels = ["a b", "12", "c\nd", "e f g", "h"] * 20
    near, far = ["a b", "12", "c d", "e f", ""] * 20, ["a", "13", "", "x", ""] * 20
    frames = []
    for number, texts in enumerate((near, far)):
        path = f"{tmp_path}/{number}.parquet"
        rows_of(texts, labels).to_parquet(path, index=False)
        frames.append(pd.read_parquet(path))
        assert probabilities_of(frames[-1])[:, 0].tolist() == texts
    assert labels_of(frames[0], GENERATION).tolist() == labels
    groups = np.arange(100)
    measured = measure(labels_of(frames[0], GENERATION), probabilities_of(frames[0]), groups, 200, 0, GENERATION)
    assert measured.keys() == {"rouge_l", "token_f1", "chrf", "exact_match"}
    assert all(each.low <= each.value <= each.high for each in measured.values())
    facts = {"name": "champion", "metric": "rouge_l", "threshold": 0.0, "level": 0.95, "samples": 500}
    better = compare(frames[1], frames[0], **facts, target=GENERATION)
    assert better.is_cleared and better.mid_p is None
    assert compare(frames[1], frames[0], **facts | {"metric": "exact_match"}, target=GENERATION).mid_p < 0.05
    assert describe_classes(np.array(labels), probabilities_of(frames[0]), ("text",), GENERATION) == ((), ())


def test_baselines_read_what_they_say() -> None:
    """The text that most rows have, of several the first by alphabet; and that of the row that is most alike."""
    from scipy.sparse import csr_matrix

    learning = GENERATION.learning
    labels = learning.as_array(["no", "yes", "yes", "no", "so"])
    assert learning.prior(labels, 1).tolist() == ["no"]
    known = csr_matrix(np.eye(5))
    asked = csr_matrix(np.array([[0, 0.6, 0.8, 0, 0], [0, 0, 0, 0, 1.0], [0, 0, 0, 0, 0]]))
    assert learning.regress(known, labels, 1.0, 1)(asked).tolist() == [["yes"], ["so"], ["no"]]


def test_a_baseline_of_texts_is_no_other_targets(tmp_path: Path) -> None:
    """Of the same rows, on which the text reads as the digits of classes do."""
    project = Project(tmp_path)
    rows = [(n % 2, (n + 1) % 2) for n in range(200)]
    lines = [f"{make_sentence(n)},{a},{b},{a}{b}\n" for n, (a, b) in enumerate(rows)]
    project.write("reviews.csv", "text,a,b,both\n" + "".join(lines))
    project.data["label"] = {"from": ["a", "b"]}
    manifests = [project.validate_as("text-multi-label")]
    project.data["label"] = {"from": "both"}
    manifests.append(project.validate_as("text-generation"))
    store, encoder = project.workspace.store, FrozenEncoder("checkpoint", "mean", 8, "float32")
    told = []
    for manifest in manifests:
        judged = load_rows(store, manifest, sides=("holdout",))
        key = predict_baseline(store, "majority", manifest, judged, encoder, 0, lambda *_: None)
        told.append(probabilities_of(open_predictions(store, key)))
    assert told[0].dtype == np.float64
    assert set(told[1][:, 0]) <= {"01", "10"}
