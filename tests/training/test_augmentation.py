"""Augmentation: a function of the place, and of nothing beside a row."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.models.serving.text import TextEncoder
from graftwork.models.text import blank_token, word_numbers
from graftwork.training.augmentation import NO_WORD, WordDropout, WordEdits, row_generator
from graftwork.training.loop import Examples
from graftwork.training.plan import ResolvedRun

TEXTS = ["the good film", "a very long and very dull plot", "bad", "", "clever and moving and bright " * 3]
EPOCH = st.tuples(st.integers(0, 2**40), st.integers(0, 9), st.integers(1, 99))
BLANK = 1000


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: Path) -> TextEncoder:
    return TextEncoder(tiny_checkpoint, 16)


@pytest.fixture(scope="module")
def examples(encoder: TextEncoder) -> Examples:
    """Texts of which words are dropped; their labels are their places."""
    dropout = WordDropout(0.4, word_numbers(encoder, TEXTS), BLANK)
    rows = encoder.encode(TEXTS)
    return Examples(rows, np.arange(len(TEXTS)), encoder, [len(row) for row in rows], (dropout,))


@settings(deadline=None)
@given(epoch=EPOCH, order=st.permutations(range(len(TEXTS))), size=st.integers(1, len(TEXTS)))
def test_a_row_s_version_depends_on_nothing_beside_it(
    examples: Examples, epoch: tuple[int, int, int], order: list[int], size: int
) -> None:
    """In any order, in any batch, drawn again: the same as alone."""
    device = torch.device("cpu")
    for start in range(0, len(order), size):
        ids, _, labels = examples.batch(order[start : start + size], epoch, device)
        for row, index in zip(ids, labels.tolist(), strict=True):
            assert row[: len(examples.rows[index])].tolist() == examples.version(index, epoch)


@settings(deadline=None)
@given(epoch=EPOCH)
def test_only_words_are_dropped(examples: Examples, encoder: TextEncoder, epoch: tuple[int, int, int]) -> None:
    """A token is what it was or blank; special tokens stay, and so does the length."""
    special = {encoder.tokenizer.cls_token_id, encoder.tokenizer.sep_token_id}
    for index, row in enumerate(examples.rows):
        version = examples.version(index, epoch)
        assert len(version) == len(row)
        for before, after in zip(row, version, strict=True):
            assert after == before or (after == BLANK and before not in special)


def test_all_tokens_of_a_word_go_together() -> None:
    """Whichever word is drawn."""
    dropout = WordDropout(0.5, [np.array([NO_WORD, 0, 0, 0, 1, 2, 2, NO_WORD])], BLANK)
    versions = {tuple(dropout(0, range(8), row_generator((7, 0, epoch), 0))) for epoch in range(100)}
    expected = {
        (0, *first, *second, *third, 7)
        for first in ((1, 2, 3), (BLANK,) * 3)
        for second in ((4,), (BLANK,))
        for third in ((5, 6), (BLANK,) * 2)
    }
    assert versions == expected


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 3), max_size=6), min_size=1, max_size=2),
    st.floats(0, 0.95),
    st.floats(0, 0.95),
    EPOCH,
)
def test_edits_keep_words_whole_and_in_their_text(
    texts: list[list[int]], deletion: float, swaps: float, epoch: tuple[int, int, int]
) -> None:
    """What is left of each text are some of its words, at least one; special tokens stay where they are."""
    numbers, row, spans, number = [NO_WORD], [0], [], 0
    for text in texts:
        spans.append([])
        for size in text:
            spans[-1].append(tuple(range(len(row), len(row) + size)))
            row += spans[-1][-1]
            numbers += [number] * size
            number += 1
        row.append(-len(spans))
        numbers.append(NO_WORD)
    found = WordEdits([np.array(numbers)], deletion, swaps)(0, row, row_generator(epoch, 0))
    assert found[0] == 0
    rest = found[1:]
    for place, words in enumerate(spans, start=1):
        part, rest = rest[: rest.index(-place)], rest[rest.index(-place) + 1 :]
        left = [word for word in words if word[0] in part]
        assert sorted(part) == [token for word in left for token in word]
        assert all(part[part.index(word[0]) :][: len(word)] == list(word) for word in left)
        assert bool(left) == bool(words)
        assert deletion or len(left) == len(words)
        assert swaps or part == sorted(part)
    assert rest == []


def test_so_many_words_are_left_out_and_moved() -> None:
    """Within four standard errors; of ten words three swaps move five or so."""
    words = [np.arange(10)] * 500
    rows = range(500)
    left = [len(WordEdits(words, deletion=0.2)(row, range(10), row_generator((7, 0, 1), row))) for row in rows]
    assert np.mean(left) == pytest.approx(8, abs=4 * (10 * 0.16 / 500) ** 0.5)
    moved = [
        np.sum(WordEdits(words, swaps=0.3)(row, range(10), row_generator((7, 0, 1), row)) != np.arange(10))
        for row in rows
    ]
    assert max(moved) <= 6
    assert 4 < np.mean(moved) < 6


def test_the_probability_is_that_of_a_word() -> None:
    """Within four standard errors, over rows and over epochs, which all differ."""
    words = [np.arange(10)] * 200
    dropout = WordDropout(0.1, words, BLANK)
    drawn = np.array(
        [[dropout(row, [0] * 10, row_generator((7, 0, epoch), row)) for row in range(200)] for epoch in range(20)]
    )
    assert (drawn == BLANK).mean() == pytest.approx(0.1, abs=4 * (0.09 / drawn.size) ** 0.5)
    assert len({row.tobytes() for row in drawn}) == 20
    assert np.corrcoef(drawn.reshape(20, -1))[np.triu_indices(20, 1)].max() < 0.15


def test_the_words_of_a_pair_are_words_of_their_own(encoder: TextEncoder) -> None:
    """Numbered through, and the special tokens of both are no words."""
    (numbers,) = word_numbers(encoder, [("a good film", "bad plot")])
    assert numbers.tolist() == [NO_WORD, 0, 1, 2, NO_WORD, 3, 4, NO_WORD]


def test_tokens_are_put_together_by_the_tokenizer(make_checkpoint: Callable[..., Path]) -> None:
    """Pieces of one word have one number, also where the text is cut."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = make_checkpoint()
    encoder = TextEncoder(folder, 7)
    pieces = {name: index for index, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##mov", "##ed"])}
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = encoder.tokenizer.backend_tokenizer.post_processor
    tokenizer.save(str(folder / "tokenizer.json"))
    (numbers,) = word_numbers(TextEncoder(folder, 7), ["un unmoved unmoved"])
    assert numbers.tolist() == [NO_WORD, 0, 1, 1, 1, 2, NO_WORD]


def test_the_blank_is_the_mask_token_where_there_is_one(encoder: TextEncoder) -> None:
    """Else the unknown token."""
    tokenizer = encoder.tokenizer
    assert blank_token(encoder) == tokenizer.unk_token_id
    tokenizer.mask_token = "[MASK]"
    assert blank_token(encoder) == tokenizer.convert_tokens_to_ids("[MASK]") != tokenizer.unk_token_id
    tokenizer.mask_token = None


def test_an_augmented_stage_has_no_prefix(resolve: Callable[..., ResolvedRun]) -> None:
    """Nothing of it is computed once; the other stage is cut as before, and has no other key."""
    plain, augmented = resolve().plan, resolve("stages.1.augment={word_dropout: 0.1}").plan
    assert [stage.cut for stage in plain.stages] == [3, 2]
    assert [stage.cut for stage in augmented.stages] == [3, 0]
    assert augmented.stages[1].augment == {"word_dropout": 0.1}
    assert augmented.stages[0].key == plain.stages[0].key
    assert resolve("stages.1.augment={word_dropout: 0.0}").plan == plain
