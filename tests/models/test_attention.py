"""Attention in float32 where the layers around it multiply in bfloat16."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from graftwork.models.attention import NAME
from graftwork.models.catalog import FAMILIES
from graftwork.models.serving import ServingConfig, TextClassifier, TextEncoder, autocast, make_body
from graftwork.models.text import attention_of, load_pretrained

TEXTS = ["the film", "the film is not very good and not very long", "a clever movie", "dull"]
CPU = torch.device("cpu")


@pytest.mark.parametrize("architecture", FAMILIES)
def test_in_float32_nothing_changes(architecture: str, make_checkpoint: Callable[..., Path]) -> None:
    """For every family the states are transformers' own, bit for bit."""
    folder = make_checkpoint(architecture)
    model = load_pretrained(folder, ServingConfig(("no", "yes"), ("text",), "mean", 16), seed=3).eval()
    encoder = TextEncoder(folder, 16)
    ids, mask = encoder.pad(encoder.encode(TEXTS), 16)
    body, _ = make_body(folder, has_weights=True)
    theirs = body.config._attn_implementation
    assert attention_of(model) == {"sdpa": NAME, "eager": "eager"}[theirs]
    assert (theirs == "sdpa") == (architecture != "deberta-v2")  # which has an attention of its own
    with torch.inference_mode():
        ours = model.body(input_ids=ids, attention_mask=mask).last_hidden_state
        assert torch.equal(ours, body.eval()(input_ids=ids, attention_mask=mask).last_hidden_state)


def test_in_bfloat16_attention_alone_is_computed_in_float32(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch's attention is given is float32, what the next layer is given is bfloat16; gradients flow through."""
    model = load_pretrained(tiny_checkpoint, ServingConfig(("no", "yes"), ("text",), "mean", 16), seed=3)
    seen, attend = [], torch.nn.functional.scaled_dot_product_attention

    def watch(query: torch.Tensor, *others: torch.Tensor, **options: object) -> torch.Tensor:
        seen.append((query.dtype, torch.is_autocast_enabled("cpu")))
        return attend(query, *others, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watch)
    logits = _logits(model, tiny_checkpoint)
    logits.float().sum().backward()
    assert set(seen) == {(torch.float32, False)}
    assert logits.dtype == torch.bfloat16
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in model.named_parameters() if ".value." in n)


def _logits(model: TextClassifier, folder: Path) -> torch.Tensor:
    encoder = TextEncoder(folder, 16)
    ids, mask = encoder.pad(encoder.encode(TEXTS), 16)
    with autocast(CPU, "bfloat16"):
        return model(ids, mask)
