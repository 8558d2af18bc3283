"""A classifier cut in two gives what it gave whole."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import BLOCK_FAMILIES

from graftwork.models.catalog import FAMILIES, Family
from graftwork.models.prefix import cut_at
from graftwork.models.serving.classifier import Classifier
from graftwork.models.serving.config import ServingConfig
from graftwork.models.serving.text import TextEncoder
from graftwork.models.text import load_pretrained
from graftwork.training.optimizer import set_modes

TEXTS = ["the film", "the film is not very good and not very long", "a clever movie", "dull"]


@pytest.fixture(params=BLOCK_FAMILIES)
def whole(request: pytest.FixtureRequest, make_checkpoint: Callable[..., Path]) -> tuple[Classifier, TextEncoder]:
    folder = make_checkpoint(request.param)
    config = ServingConfig(("no", "yes"), ("text",), "mean", 16, dropout=0.1)
    return load_pretrained(folder, config, seed=3).eval(), TextEncoder(folder, 16)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_two_parts_are_the_whole(whole: tuple[Classifier, TextEncoder], depth: int) -> None:
    """For every family, at every depth, bit for bit, also where rows are padded with nothing instead of tokens."""
    model, encoder = whole
    ids, mask = encoder.pad(encoder.encode(TEXTS), 16)
    cut = cut_at(model, depth)
    with torch.inference_mode():
        states = cut.lower(input_ids=ids, attention_mask=mask).last_hidden_state
        logits = cut.upper(states * mask.unsqueeze(-1), mask)
        assert torch.equal(logits, model(ids, mask))


def test_the_upper_part_is_trained_in_place(whole: tuple[Classifier, TextEncoder]) -> None:
    """Parameters are shared, so what is learnt through the upper part is in the whole, which stays as it was."""
    model, _ = whole
    before = [name for name, _ in model.named_parameters()]
    shared = {id(parameter) for parameter in cut_at(model, 2).upper.parameters()}
    assert [name for name, _ in model.named_parameters()] == before
    inside = {name for name, parameter in model.named_parameters() if id(parameter) in shared}
    family = FAMILIES[model.body.config.model_type]
    below = tuple(f"body.{part}" for part in ("embeddings.", "wte.", "wpe.", "embed_tokens.", *_blocks(family, 0, 1)))
    assert not [name for name in inside if name.startswith(below) and "relative_attention_bias" not in name]
    assert any(name.startswith(f"body.{family.blocks}2.") for name in inside)


def _blocks(family: Family, *places: int) -> list[str]:
    return [f"{family.blocks}{place}." for place in places]


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_a_cut_drops_out_what_training_the_whole_does(architecture: str, make_checkpoint: Callable[..., Path]) -> None:
    """Nothing below the cut or at it; what is above does so although a part of it is a copy."""
    folder = make_checkpoint(architecture)
    model = load_pretrained(folder, ServingConfig(("no", "yes"), ("text",), "mean", 16), seed=3).eval()
    encoder = TextEncoder(folder, 16)
    ids, mask = encoder.pad(encoder.encode(TEXTS), 16)
    cut = cut_at(model, 2)
    with torch.inference_mode():
        states = cut.lower(input_ids=ids, attention_mask=mask).last_hidden_state
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(("head.", f"body.{FAMILIES[architecture].blocks}2.")))
    set_modes(model)
    results = []
    for compute in (lambda: cut.upper(states.clone(), mask), lambda: model(ids, mask)):
        torch.manual_seed(1)
        results.append(compute())
    assert not torch.equal(results[0], model.eval()(ids, mask))
    torch.testing.assert_close(*results, rtol=0, atol=0)
