"""Attention in float32 where the layers around it multiply in bfloat16."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import BLOCK_FAMILIES

from graftwork.models.attention import NAME
from graftwork.models.serving.classifier import Classifier, make_body
from graftwork.models.serving.config import ServingConfig
from graftwork.models.serving.inference import autocast
from graftwork.models.serving.text import TextEncoder
from graftwork.models.text import attention_of, load_pretrained

TEXTS = ["the film", "the film is not very good and not very long", "a clever movie", "dull"]
CPU = torch.device("cpu")


@pytest.mark.parametrize("architecture", BLOCK_FAMILIES)
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


@pytest.mark.parametrize("architecture", [name for name in BLOCK_FAMILIES if name != "deberta-v2"])
def test_in_bfloat16_attention_alone_is_computed_in_float32(
    architecture: str, make_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch's attention is given is float32, what comes of it is near to float32; gradients flow through."""
    folder = make_checkpoint(architecture)
    model = load_pretrained(folder, ServingConfig(("no", "yes"), ("text",), "mean", 16), seed=3).eval()
    seen, attend = [], torch.nn.functional.scaled_dot_product_attention

    def watch(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.append((query.dtype, key.dtype, value.dtype, torch.is_autocast_enabled("cpu")))
        return attend(query, key, value, **options)

    exact = _logits(model, folder, "float32")
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watch)
    logits = _logits(model, folder, "bfloat16")
    logits.float().sum().backward()
    assert set(seen) == {(torch.float32, torch.float32, torch.float32, False)}
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), exact, atol=0.02, rtol=0.02)
    inside = [p for name, p in model.named_parameters() if name.startswith("body.") and p.ndim == 2]
    assert all(p.grad is not None for p in inside)


def _logits(model: Classifier, folder: Path, precision: str) -> torch.Tensor:
    encoder = TextEncoder(folder, 16)
    ids, mask = encoder.pad(encoder.encode(TEXTS), 16)
    with autocast(CPU, precision):
        return model(ids, mask)
