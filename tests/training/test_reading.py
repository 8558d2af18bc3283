"""What is counted of the texts that a model is given."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import WORDS, resolve_run, write_family_project, write_project

from graftwork.data.manifest import load_rows
from graftwork.models.serving.text import TextEncoder
from graftwork.models.text import count_tokens
from graftwork.settings import Settings
from graftwork.training.reading import SideReading, find_reading, measure_reading
from graftwork.workspace import Workspace


@pytest.mark.parametrize(
    ("architecture", "around", "most"), [("bert", 2, 5), ("gpt2", 0, 3), ("word-vectors", 0, 3), ("roberta", 2, 5)]
)
def test_texts_are_counted_as_by_hand(
    architecture: str, around: int, most: int, make_checkpoint: Callable[..., Path]
) -> None:
    """Three words fit, with or without tokens around them; what the vocabulary lacks is unknown."""
    encoder = TextEncoder(make_checkpoint(architecture), most)
    assert count_tokens(encoder, ["a good film"]) == (0, 3, 0)
    assert count_tokens(encoder, ["a good xylophone", "a good film yes a film", "", "zebra"]) == (1, 10, 3)
    assert len(encoder.encode(["a good film"])[0]) == 3 + around


def test_pairs_are_counted_together(tiny_checkpoint: Path) -> None:
    """Both texts, without the tokens before, between and after them; a pair is cut where it is too long as one."""
    assert count_tokens(TextEncoder(tiny_checkpoint, 7), [("a good", "odd film"), ("a good film", "bad film")]) == (
        1,
        9,
        1,
    )


def test_subwords_leave_nothing_unknown(tmp_path: Path) -> None:
    """A tokenizer of bytes knows every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(letters | {"<unk>": len(letters)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    config = '{"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}'
    (tmp_path / "tokenizer_config.json").write_text(config)
    _, tokens, unknown = count_tokens(TextEncoder(tmp_path, 16), ["naïve 电影 xylophone"])
    assert (tokens > 20, unknown) == (True, 0)


def test_it_is_counted_once_for_each_side(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    """By the words of the rows themselves; found again for the run, and for no other limit of tokens."""
    write_project(tmp_path, make_checkpoint("word-vectors"))
    workspace = Workspace.open(Settings(home=tmp_path / "home"))
    run, shorter = (resolve_run(tmp_path, workspace, "stages.1.train=all", f"input.max_tokens={n}") for n in (16, 6))
    assert find_reading(workspace.store, run.plan) is None
    reading = measure_reading(workspace.store, run)
    assert reading == find_reading(workspace.store, run.plan) == measure_reading(workspace.store, run)
    assert find_reading(workspace.store, shorter.plan) is None
    rows = load_rows(workspace.store, run.manifest)
    expected = {}
    for side, texts in rows.groupby("side")["text"]:
        words = [word for text in texts for word in text.split()]
        expected[side] = SideReading(len(texts), 0, len(words), sum(word not in WORDS for word in words))
    assert reading is not None and reading.sides == expected
    assert list(reading.sides) == ["train", "validation", "holdout"]
    cut = measure_reading(workspace.store, shorter)
    assert cut is not None and all(each.cut_share == 1 for each in cut.sides.values())


def test_nothing_is_read_of_pictures(tmp_path: Path) -> None:
    """No share is told of what has no tokens."""
    write_family_project(tmp_path, "resnet")
    workspace = Workspace.open(Settings(home=tmp_path / "home"))
    assert measure_reading(workspace.store, resolve_run(tmp_path, workspace)) is None
