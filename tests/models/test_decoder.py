"""T5's decoder, read from a checkpoint's files, tells and writes what transformers' own model does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CONFIGS

from graftwork.models.serving.decoder import Decoder, load_decoder
from graftwork.models.text import load_body

END, IGNORED = 1, -100
KINDS: dict[str, dict[str, Any]] = {
    "tied": {},
    "own table": {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu", "num_decoder_layers": 2},
}


@pytest.fixture(params=KINDS)
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Any, Decoder]:
    """transformers' model, our encoder and our decoder, of the same files."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(5)
    config = T5Config(**CONFIGS["t5"], **KINDS[request.param], vocab_size=40, decoder_start_token_id=0)
    theirs: Any = T5ForConditionalGeneration(config)
    if request.param == "own table":
        theirs.lm_head.weight = torch.nn.Parameter(torch.randn(40, 32))
    theirs.shared.weight.data *= 0.3  # or every token would write itself again
    theirs.save_pretrained(tmp_path)
    body = load_body(tmp_path)
    decoder, report = load_decoder(tmp_path, body)
    assert not any(report.values())
    return theirs.eval(), body.eval(), decoder.eval()


def _texts(rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of rows of several lengths, and their mask."""
    ids = torch.randint(2, 40, (rows, length), generator=torch.Generator().manual_seed(3))
    mask = (torch.arange(length) < torch.arange(length, length - rows, -1)[:, None]).long()
    return ids * mask, mask


def test_logits_are_those_of_transformers(both: tuple[Any, Any, Decoder]) -> None:
    """Tied to the encoder's table or not, gated or not, as deep as the encoder or not, and where rows are padded."""
    theirs, body, decoder = both
    ids, mask = _texts(4, 9)
    told, is_told = _texts(4, 6)
    labels = told.masked_fill(is_told == 0, IGNORED)
    with torch.inference_mode():
        states = body(input_ids=ids, attention_mask=mask).last_hidden_state
        found = decoder(states, mask, labels)
        wanted = theirs(input_ids=ids, attention_mask=mask, labels=labels)
    torch.testing.assert_close(found[is_told == 1], wanted.logits[is_told == 1])
    loss = torch.nn.functional.cross_entropy(found.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    torch.testing.assert_close(loss, wanted.loss)


def test_in_bfloat16_it_tells_about_the_same(both: tuple[Any, Any, Decoder]) -> None:
    """Trained or not: what attends in float32 on a CPU takes states that are not."""
    _, body, decoder = both
    ids, mask = _texts(4, 9)
    states = body(input_ids=ids, attention_mask=mask).last_hidden_state.detach()
    wanted = decoder(states, mask, ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = decoder(states.bfloat16(), mask, ids)
        assert decoder.write(states.bfloat16(), mask, END, 4).shape[0] == 4
    found.float().sum().backward()
    assert (found.float() - wanted).abs().max() < 0.1 * wanted.abs().max()


def test_it_writes_what_transformers_writes(both: tuple[Any, Any, Decoder]) -> None:
    """Greedily, token by token from kept states, until a row's end or the most that is asked for."""
    theirs, body, decoder = both
    ids, mask = _texts(6, 9)
    with torch.inference_mode():
        states = body(input_ids=ids, attention_mask=mask).last_hidden_state
        found = decoder.write(states, mask, END, 12)
        wanted = theirs.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=12, do_sample=False, num_beams=1, pad_token_id=END
        )[:, 1:]
    assert len({tuple(row) for row in found.tolist()}) > 1, "all write the same"
    assert torch.equal(found, wanted)


def test_writing_tells_the_likeliest_token_of_each_place(both: tuple[Any, Any, Decoder]) -> None:
    """What was written, told again all at once without anything kept, is the likeliest at each place."""
    _, body, decoder = both
    ids, mask = _texts(6, 9)
    with torch.inference_mode():
        states = body(input_ids=ids, attention_mask=mask).last_hidden_state
        written = decoder.write(states, mask, -1, 12)
        assert torch.equal(decoder(states, mask, written).argmax(-1), written)


def test_the_encoders_table_is_held_once(both: tuple[Any, Any, Decoder]) -> None:
    """It is no tensor of the decoder, and what the decoder learns of it goes to the encoder."""
    _, body, decoder = both
    assert not [name for name in decoder.state_dict() if "embed" in name]
    ids, mask = _texts(2, 5)
    decoder(body(input_ids=ids, attention_mask=mask).last_hidden_state.detach(), mask, ids).sum().backward()
    assert body.get_input_embeddings().weight.grad.abs().sum() > 0


def test_a_decoder_that_is_not_whole_is_named(tmp_path: Path) -> None:
    """Each tensor that the files lack, hold beside, or hold in another shape."""
    from safetensors.torch import load_file, save_file
    from transformers import T5Config, T5ForConditionalGeneration

    T5ForConditionalGeneration(T5Config(**CONFIGS["t5"], vocab_size=40)).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors["decoder.final_layer_norm.weight"]
    tensors["decoder.more"] = torch.zeros(1)
    bent = "decoder.block.1.layer.2.DenseReluDense.wi.weight"
    tensors[bent] = torch.zeros(3, 3)
    save_file(tensors, path)
    _, report = load_decoder(tmp_path, load_body(tmp_path))
    assert report["missing_keys"] == {"decoder.final_layer_norm.weight"}
    assert report["unexpected_keys"] == {"decoder.more"}
    assert report["mismatched_keys"] == {(bent, (3, 3), (48, 32))}
