"""Token embeddings whose gradient costs little on a CPU, where a new table of zeros for each step does not.

The gradient of a table of 30,000 rows is dense, and a step touches a few hundred of them: torch takes fresh memory for
all of it in each step, whose pages the system must hand out first, which is a twentieth of a step of fine-tuning. Here
one table of gradients is kept, cleared, and added to.
"""

from typing import Any

import torch
from torch import Tensor, nn


class QuickEmbedding(nn.Embedding):
    """An embedding that keeps the memory of its weight's gradient from one step to the next, until it is frozen."""

    gradient: Tensor | None = None

    @classmethod
    def of(cls, embedding: nn.Embedding) -> "QuickEmbedding":
        """One that shares the weight of another."""
        rows, width = embedding.weight.shape
        quick = cls(rows, width, embedding.padding_idx, _weight=embedding.weight.detach())
        quick.weight = embedding.weight
        return quick

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that torch gives it
        if not self.weight.requires_grad:
            self.gradient = None
        return _LookUp.apply(self.weight, input, self)

    def add_gradient(self, ids: Tensor, gradients: Tensor) -> None:
        """Add the gradients of looked-up rows, (…, width), to the weight's; those of the padding row are dropped."""
        if self.weight.grad is None:
            self.gradient = torch.zeros_like(self.weight) if self.gradient is None else self.gradient.zero_()
            self.weight.grad = self.gradient
        ids, gradients = ids.flatten(), gradients.flatten(0, -2)
        if self.padding_idx is not None:
            gradients = gradients.masked_fill((ids == self.padding_idx).unsqueeze(1), 0)
        self.weight.grad.index_add_(0, ids, gradients)


class _LookUp(torch.autograd.Function):
    """Looking up rows, whose backward hands the gradient to the embedding and none to autograd."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, embedding: QuickEmbedding) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.embedding = embedding
        return nn.functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        ctx.embedding.add_gradient(*ctx.saved_tensors, *gradients)
        return None, None, None


def quicken_embeddings(model: nn.Module, device: torch.device) -> None:
    """Put quick embeddings in the place of torch's plain ones where the model lies on a CPU."""
    if device.type != "cpu":
        return
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Embedding and child.max_norm is None and not child.scale_grad_by_freq:
                setattr(module, name, QuickEmbedding.of(child))
