"""Planted copies, edits and groups are found; what is reported is true."""

import random
import re
import time
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from graftwork.data.leakage import distinct_rows, near_duplicates
from graftwork.data.rows import Row, content_digest
from graftwork.data.splits import Memory, place_rows

ENGLISH = [f"{a}{b}" for a in ("re", "un", "over", "mis", "out", "") for b in ("turn", "write", "look", "draw", "act")]
VOCABULARY = [f"{word}{end}" for word in ENGLISH for end in ("", "s", "ed", "ing", "er", "able")]


def row(row_id: str, text: str, label: int = 0, group: str | None = None, line: int = 1) -> Row:
    """A row of one source."""
    return Row(row_id, "s", "f", line, group, text, None, label, content_digest(text))


def jaccard(a: str, b: str) -> float:
    """The similarity by its definition: shared over all words and pairs of neighbouring words."""
    sets = []
    for text in (a, b):
        words = re.findall(r"\w+", text.casefold()) or [text.casefold()]
        sets.append({(word,) for word in words} | set(pairwise(words)))
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@pytest.mark.parametrize("length", [20, 35])
def test_one_word_edits_are_found(length: int):
    """Of 500 texts with one word replaced, dropped or added, at least 0.95 are found."""
    generator = random.Random(length)
    texts = [generator.choices(VOCABULARY, k=length) for _ in range(500)]
    edited = []
    for words in texts:
        words, place = list(words), generator.randrange(length)
        words[place : place + generator.randrange(2)] = generator.choices(VOCABULARY, k=generator.randrange(2))
        edited.append(words)
    pairs = set(near_duplicates([" ".join(words) for words in texts + edited], 0.8))
    assert sum((i, i + 500) in pairs for i in range(500)) >= 0.95 * 500


def test_edits_are_found_in_a_language_without_spaces():
    """Of 300 Chinese-like texts of 40 characters with one character replaced, at least 0.95 are found."""
    generator = random.Random(0)
    letters = [chr(0x4E00 + n) for n in range(800)]
    texts = [generator.choices(letters, k=40) for _ in range(300)]
    edited = []
    for characters in texts:
        characters = list(characters)
        characters[generator.randrange(40)] = generator.choice(letters)
        edited.append(characters)
    pairs = set(near_duplicates(["".join(characters) for characters in texts + edited], 0.8))
    assert sum((i, i + 300) in pairs for i in range(300)) >= 0.95 * 300


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("ab cé!", max_size=12), max_size=25), st.sampled_from([0.3, 0.8, 1.0]))
def test_a_reported_pair_is_as_similar_as_it_must_be(texts: list[str], threshold: float):
    """No pair below the threshold is ever reported, measured by the definition."""
    for i, j in near_duplicates(texts, threshold):
        assert i < j and jaccard(texts[i], texts[j]) >= threshold


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9])
def test_pairs_at_any_threshold_are_found(threshold: float):
    """Of all pairs that the definition finds, at least 0.99 are reported."""
    generator = random.Random(3)
    first = [generator.choices(VOCABULARY, k=40) for _ in range(150)]
    second = [words[: generator.randrange(15, 41)] + generator.choices(VOCABULARY, k=1) for words in first]
    texts = [" ".join(words) for words in first + second]
    wanted = {(i, i + 150) for i in range(150) if jaccard(texts[i], texts[i + 150]) >= threshold}
    assert len(wanted) >= 10
    assert len(wanted & set(near_duplicates(texts, threshold))) >= 0.99 * len(wanted)


def test_near_duplicates_of_many_texts_cost_near_linear_time():
    """Four times the texts, boilerplate among them, take less than eight times as long (a full comparison takes 16)."""
    generator = random.Random(1)
    texts = [" ".join(generator.choices(VOCABULARY, k=12)) if n % 2 else "thanks for all" for n in range(12_000)]
    seconds = []
    for count in (3_000, 12_000):
        start = time.process_time()
        near_duplicates(texts[:count], 0.8)
        seconds.append(time.process_time() - start)
    assert seconds[1] < 8 * seconds[0]


def test_writings_of_one_text_are_exact_duplicates():
    """Unicode form, case and white space make no other text; anything else does."""
    assert content_digest("Caf\u00e9  Noir") == content_digest(" cafe\u0301 noir\n")
    assert content_digest("cafe noir") != content_digest("caf\u00e9 noir")
    assert content_digest("a", "b c") != content_digest("a b", "c")


def test_conflicts_and_returning_ids_are_set_aside():
    """Equal texts with different labels go all of them; an id with another text goes when it comes later."""
    rows = [row("1", "same", 0), row("2", "Same", 1), row("3", "first"), row("3", "second", line=2), row("4", "First")]
    found = distinct_rows(rows, known={}, conflicts="quarantine")
    assert [r.row_id for r in found.conflicts] == ["1", "2"]
    assert [r.text for r in found.renamed] == ["second"]
    assert [(d.row.row_id, d.kept.row_id) for d in found.duplicates] == [("4", "3")]
    assert [r.row_id for r in distinct_rows(rows, {}, conflicts="keep").rows] == ["1", "2", "3"]


def test_the_row_that_was_kept_before_stays_the_one():
    """A copy that lands later under a smaller id does not take the place of the known row."""
    rows = [row("b", "text"), row("a", "text")]
    assert distinct_rows(rows, {content_digest("text"): "b"}, conflicts="quarantine").rows == [rows[0]]
    assert distinct_rows(rows, {}, conflicts="quarantine").rows == [rows[1]]


edges = st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)).filter(lambda pair: pair[0] < pair[1]), max_size=25)
groups = st.lists(st.none() | st.integers(0, 12), min_size=30, max_size=30)


def place(rows: list[Row], pairs: list[tuple[int, int]], memory: Memory, seed: int = 7):
    """Place rows with the usual shares."""
    return place_rows(rows, pairs, memory, by_group=True, holdout=0.3, validation=0.2, seed=seed)


@settings(max_examples=150, deadline=None)
@given(edges, groups, st.randoms(use_true_random=False))
def test_units_are_the_connected_components(pairs, numbers, shuffler):
    """Units equal scipy's components over groups and pairs, share a side, and don't depend on the order of the rows."""
    rows = [row(f"{n:02}", f"text {n}", group=None if g is None else f"s/{g}") for n, g in enumerate(numbers)]
    placed, bridges = place(rows, pairs, Memory())
    links = pairs + [(n, 30 + g) for n, g in enumerate(numbers) if g is not None]
    graph = coo_array((np.ones(len(links)), tuple(zip(*links, strict=True)) if links else ((), ())), shape=(43, 43))
    components = connected_components(graph, directed=False)[1][:30]
    units = [item.unit for item in placed]
    assert not bridges
    assert all((units[i] == units[j]) == (components[i] == components[j]) for i in range(30) for j in range(30))
    assert len({(item.unit, item.side) for item in placed}) == len(set(units))
    order = shuffler.sample(range(30), 30)
    moved = [(order.index(i), order.index(j)) for i, j in pairs]
    assert place([rows[i] for i in order], moved, Memory())[0] == placed


@settings(max_examples=150, deadline=None)
@given(edges, groups, st.integers(1, 29))
def test_a_side_once_given_is_kept_and_never_joined_with_another(pairs, numbers, count):
    """Whatever lands later, known rows stay, and connected rows stand on one side, or the new row is set aside."""
    rows = [row(f"{n:02}", f"text {n}", group=None if g is None else f"s/{g}") for n, g in enumerate(numbers)]
    before, _ = place(rows[:count], [pair for pair in pairs if pair[1] < count], Memory())
    memory = Memory(
        sides={item.row.content: item.side for item in before},
        groups={item.row.group: item.side for item in before if item.row.group},
        row_ids={item.row.content: item.row.row_id for item in before},
    )
    after, bridges = place(rows, pairs, memory, seed=8)
    side = {item.row.row_id: item.side for item in after}
    assert all(side[item.row.row_id] == item.side for item in before)
    assert len(after) + len(bridges) == 30
    assert all(len(bridge.neighbours) > 1 for bridge in bridges)
    for i, j in pairs:
        if {f"{i:02}", f"{j:02}"} <= side.keys():
            assert side[f"{i:02}"] == side[f"{j:02}"]
    assert all(n == 1 for n in Counter(g for g, _ in {(i.row.group, i.side) for i in after if i.row.group}).values())


def test_shares_come_out_near_what_was_asked():
    """Of 4,000 units the shares of the sides are within four standard errors of the recipe's."""
    placed, _ = place([row(str(n), f"text {n}") for n in range(4000)], [], Memory())
    sides = Counter(item.side for item in placed)
    assert abs(sides["holdout"] / 4000 - 0.3) < 4 * (0.3 * 0.7 / 4000) ** 0.5
    assert abs(sides["validation"] / 4000 - 0.2) < 4 * (0.2 * 0.8 / 4000) ** 0.5
