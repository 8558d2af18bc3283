"""Writers of checkpoints: told what transformers is told, they lose what it loses; and they write what it writes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import write_checkpoint
from writers import OWN_TABLE, WRITERS, write_writer

from graftwork.checkpoints.safety import read_tensor_shapes
from graftwork.errors import CheckpointError, RecipeError
from graftwork.models.serving.config import ServingConfig
from graftwork.models.serving.telling import IGNORED
from graftwork.models.serving.text import TextEncoder, fill
from graftwork.models.serving.writer import (
    Writer,
    end_token,
    make_writer_encoder,
    padded_left,
    text_of,
    write_texts,
)
from graftwork.models.text import load_pretrained
from graftwork.models.writing import ReadRows, ToldRows, is_joined, told_rows, writing_head_parameters

TEXTS = ["the film", "the film was not very good and the plot was cold and dull", "a clever movie", "dull", "old plot"]
LABELS = ["good", "not good and dull", "a movie", "bad film", "very very very long and very very very dull film"]
CASES = [(name, own) for name in WRITERS for own in (False, True) if name in OWN_TABLE or not own]
MOST = 6


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{'own' if case[1] else 'tied'}")
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Writer, TextEncoder]:
    """transformers' model, and our writer and encoder of its files."""
    architecture, has_own_table = request.param
    theirs = write_writer(tmp_path, architecture, has_own_table, seed=1)
    config = ServingConfig(("verdict",), ("text",), "mean", 12, target="generation", writes=MOST)
    model: Any = load_pretrained(tmp_path, config, seed=1)
    config_json = json.loads((tmp_path / "config.json").read_text())
    counted = writing_head_parameters(
        architecture, tmp_path, config_json, {name: shape for name, (shape, _) in read_tensor_shapes(tmp_path).items()}
    )
    assert counted == sum(parameter.numel() for parameter in model.head.parameters())
    return theirs, model.eval(), make_writer_encoder(tmp_path, config)


def padder(encoder: TextEncoder) -> ToldRows:
    joined = is_joined(encoder)
    return ToldRows(ReadRows(encoder, 12 + MOST * joined), 12 + MOST, joined)


def test_the_loss_of_a_row_is_that_of_transformers(both: tuple[Any, Writer, TextEncoder]) -> None:
    """Of its target's tokens, the end too, and of no others; whatever it is padded with, and beside whom."""
    theirs, model, encoder = both
    rows = told_rows(encoder, TEXTS, LABELS, MOST)
    end = end_token(encoder)
    with torch.inference_mode():
        found = model(*padder(encoder).pad(rows, max(map(len, rows))))
        for row, (loss, _) in zip(rows, found, strict=True):
            assert row.told[-1] == end
            assert sum(each != IGNORED for each in row.told) <= MOST
            labels = torch.tensor([row.told])
            torch.testing.assert_close(loss, theirs(input_ids=torch.tensor([row.read]), labels=labels).loss)


def test_it_writes_what_transformers_writes(both: tuple[Any, Writer, TextEncoder]) -> None:
    """Each text by itself, and all of them in one batch."""
    theirs, model, encoder = both
    rows, end = encoder.encode(TEXTS), end_token(encoder)
    ids, mask = encoder.pad(rows, 12)
    with torch.inference_mode():
        together = model.write(ids, mask, end, MOST).tolist()
        assert len({tuple(each) for each in together}) > 1, "all write the same"
        for row, found in zip(rows, together, strict=True):
            how = {"max_new_tokens": MOST, "do_sample": False, "num_beams": 1, "pad_token_id": end, "eos_token_id": end}
            wanted = theirs.generate(
                input_ids=torch.tensor([row]), attention_mask=torch.ones(1, len(row)).long(), **how
            )
            wanted = wanted[0, 1 if model.has_decoder else len(row) :].tolist()
            assert found[: len(wanted)] == wanted
            assert set(found[len(wanted) :]) <= {end}


def test_a_text_is_the_same_whatever_the_batch(both: tuple[Any, Writer, TextEncoder]) -> None:
    """Alone, or with longer and shorter ones; no more than so many tokens, and progress is told."""
    _, model, encoder = both
    rows, told = encoder.encode(TEXTS * 3), list[int]()
    together = write_texts(model, encoder, rows, MOST, told.append)
    alone = [write_texts(model, encoder, [row], MOST)[0, 0] for row in rows]
    assert together[:, 0].tolist() == alone
    assert all(len(text.split()) <= MOST for text in alone)
    assert told[-1] == len(rows)


def test_rows_are_moved_to_the_right() -> None:
    ids, mask = torch.tensor([[1, 2, 0, 0], [3, 4, 5, 6]]), torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    moved, left = padded_left(ids, mask)
    assert moved[left == 1].tolist() == [1, 2, 3, 4, 5, 6]
    assert left.tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]


def test_a_long_text_is_cut_where_it_is_least_missed(tmp_path: Path) -> None:
    """A body that goes on keeps the end of what it read, an encoder its beginning; labels end where they are cut."""
    long = "a b the film was good " * 4 + "very dull"
    for architecture in ("gpt2", "t5"):
        write_writer(tmp_path / architecture, architecture)
        config = ServingConfig(("verdict",), ("text",), "mean", 8, target="generation", writes=3)
        encoder = make_writer_encoder(tmp_path / architecture, config)
        (row,) = told_rows(encoder, [long], [LABELS[-1]], 3)
        read = encoder.tokenizer.decode(row.read[:8], skip_special_tokens=True)
        assert read.endswith("very dull") == (architecture == "gpt2")
        told = [token for token in row.told if token != IGNORED]
        assert encoder.tokenizer.decode(told[:-1]) == "very very"
        assert (len(told), told[-1]) == (3, end_token(encoder))


def test_a_label_is_a_word_of_its_own(tmp_path: Path) -> None:
    """Where tokens know of the space before them, it follows what is read with one, unless the prompt ends so."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    write_writer(tmp_path, "gpt2")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["[UNK]", "[SEP]"])
    tokenizer.train_from_iterator(TEXTS + LABELS, trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for prompt, expected in ((None, "a film so good"), ("{text}: ", "a film: so good"), ("{text}:", "a film: so good")):
        encoder = TextEncoder(tmp_path, 40, prompt, ["text"], keeps_end=True)
        (row,) = told_rows(encoder, ["a film"], ["so good"], 20)
        assert encoder.tokenizer.decode(row.read[:-1]) == expected
        told = [token for token in row.told if token != IGNORED]
        assert text_of(encoder, told) == "so good"
        assert row.read[-len(told) :] == told


def test_a_prompt_holds_what_is_read() -> None:
    """Each column where the prompt names it; braces in a text are text."""
    assert fill("sum up: {text} =>", ["text"], "the {text}") == "sum up: the {text} =>"
    assert fill("{b} before {a}", ["a", "b"], ("one {b}", "two")) == "two before one {b}"


def test_what_can_not_write_is_refused(tmp_path: Path) -> None:
    """An encoder, T5's encoder alone, and a Llama whose file lacks the table it tells tokens by."""

    def parameters(folder: Path, architecture: str) -> int:
        shapes = {name: shape for name, (shape, _) in read_tensor_shapes(folder).items()}
        return writing_head_parameters(architecture, folder, json.loads((folder / "config.json").read_text()), shapes)

    for architecture, said in (
        ("bert", "not made to write texts.*t5"),
        ("t5", "no decoder"),
        ("llama", "no table to tell tokens by"),
    ):
        folder = tmp_path / architecture
        write_checkpoint(folder, architecture)
        with pytest.raises(RecipeError, match=said):
            parameters(folder, architecture)


@pytest.mark.parametrize("first", [1_000_000, -5, "x", [0], True])
def test_a_decoder_begins_with_a_token_that_there_is(first: Any, tmp_path: Path) -> None:
    """Else nothing would be found at its place in the table, or nothing but an error."""
    write_writer(tmp_path, "t5")
    shapes = {name: shape for name, (shape, _) in read_tensor_shapes(tmp_path).items()}
    facts = json.loads((tmp_path / "config.json").read_text())
    with pytest.raises(CheckpointError, match=r"decoder_start_token_id is .*, expected the number of one of its"):
        writing_head_parameters("t5", tmp_path, facts | {"decoder_start_token_id": first}, shapes)


def test_a_decoder_is_taken_whole(tmp_path: Path) -> None:
    """A table that its config says is its own has to be there, and no block may be left out."""
    write_writer(tmp_path, "t5")
    shapes = {name: shape for name, (shape, _) in read_tensor_shapes(tmp_path).items() if name != "lm_head.weight"}
    path = tmp_path / "config.json"
    facts = json.loads(path.read_text())
    with pytest.raises(RecipeError, match="no table to tell tokens by"):
        writing_head_parameters("t5", tmp_path, facts | {"tie_word_embeddings": False}, shapes)
    path.write_text(json.dumps(facts | {"num_decoder_layers": 2}))
    config = ServingConfig(("verdict",), ("text",), "mean", 12, target="generation", writes=MOST)
    with pytest.raises(CheckpointError, match=r"decoder\.block\.2\..* belongs to no part of the model"):
        load_pretrained(tmp_path, config, seed=1)


def test_a_writer_needs_a_token_that_ends_a_text(tmp_path: Path) -> None:
    write_writer(tmp_path, "gpt2")
    path = tmp_path / "tokenizer_config.json"
    facts = json.loads(path.read_text())
    del facts["eos_token"]
    path.write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match="no token that ends a text"):
        told_rows(TextEncoder(tmp_path, 8, keeps_end=True), ["a film"], ["good"], 4)
