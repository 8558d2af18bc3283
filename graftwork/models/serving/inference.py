"""Rows through a model, in batches of like length."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .classifier import Classifier

BATCH_TOKENS = 4096
# Rows are padded to one of these lengths and batched with rows of the same: little padding, and few shapes to plan for.
LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


def canonical_length(tokens: int) -> int:
    """The shortest of LENGTHS that holds so many tokens; beyond the last, the next multiple of it."""
    return next((length for length in LENGTHS if tokens <= length), -(-tokens // LENGTHS[-1]) * LENGTHS[-1])


def inference_batches(rows: Sequence[Any], batch_tokens: int, max_tokens: int) -> Iterator[tuple[int, list[int]]]:
    """Canonical length and row indices of each batch, long rows first so that memory peaks at once.

    max_tokens: no row is longer, and none is padded beyond it, where the model may have no positions.
    """
    by_length: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        by_length.setdefault(min(canonical_length(len(row)), max_tokens), []).append(index)
    for length in sorted(by_length, reverse=True):
        size = max(1, batch_tokens // length)
        indices = by_length[length]
        for start in range(0, len(indices), size):
            yield length, indices[start : start + size]


def infer(
    model: Classifier,
    forward: Callable[[Tensor, Tensor], Tensor],
    encoder: Any,
    rows: Sequence[Any],
    batch_tokens: int = BATCH_TOKENS,
    on_progress: Callable[[int], None] | None = None,
) -> Tensor:
    """What `forward` gives for each row, in order, float32 on the CPU; leaves the model in eval mode.

    rows, encoder: what `encoder.pad` makes a batch of, such as token ids.
    """
    results = infer_each(model, forward, encoder, rows, batch_tokens, on_progress)
    return torch.stack(results) if results else torch.empty(0)


def infer_each(
    model: Classifier,
    forward: Callable[[Tensor, Tensor], Tensor],
    encoder: Any,
    rows: Sequence[Any],
    batch_tokens: int = BATCH_TOKENS,
    on_progress: Callable[[int], None] | None = None,
) -> list[Tensor]:
    """As `infer`, where what is given of a row may have the length that its batch was padded to."""
    model.eval()
    device = next(model.parameters()).device
    results: list[Tensor] = [torch.empty(0)] * len(rows)
    done = 0
    with torch.inference_mode():
        for length, indices in inference_batches(rows, batch_tokens, encoder.max_tokens):
            ids, mask = encoder.pad([rows[index] for index in indices], length)
            for index, result in zip(indices, forward(ids.to(device), mask.to(device)).float().cpu(), strict=True):
                results[index] = result
            done += len(indices)
            if on_progress:
                on_progress(done)
    return results


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Where computing is done in `precision`, a name of a torch dtype; weights stay float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def pick_device(name: str = "auto") -> torch.device:
    """The named device, or the first accelerator this torch can use, or the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
