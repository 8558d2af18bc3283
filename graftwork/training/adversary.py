"""Training on texts whose embeddings are moved to where the loss rises most, beside the texts as they are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.training.stages import Adversary

TINY = 1e-12


def add_plain_gradient(compute: Callable[[], Tensor]) -> float:
    """Add the gradient of what is computed; its value."""
    loss = compute()
    loss.backward()
    return loss.item()


class EmbeddingAttack:
    """Moves the embeddings of a batch, row by row, up the gradient of its loss.

    In `steps` equal steps to a distance of `epsilon` at most, measured over all of a row's tokens. The gradients of the
    texts as they are and after each step count the same, which makes use of all that is computed.
    Method: FreeLB (Zhu et al. 2020); one step is FGM (Miyato, Dai and Goodfellow 2017).
    """

    def __init__(self, body: nn.Module, adversary: Adversary) -> None:
        model: Any = body
        self.embedding: nn.Module = model.get_input_embeddings()
        self.adversary = adversary

    def __call__(self, compute: Callable[[], Tensor]) -> float:
        """Add the mean of these gradients; the loss of the texts as they are."""
        epsilon, steps = self.adversary.epsilon, self.adversary.steps
        with self._moved() as move:
            loss = compute()
            (loss / (1 + steps)).backward()
            for _ in range(steps):
                move.up(epsilon / steps)
                (compute() / (1 + steps)).backward()
        return loss.item()

    @contextmanager
    def _moved(self) -> Iterator["Move"]:
        move = Move()
        handle = self.embedding.register_forward_hook(move)
        try:
            yield move
        finally:
            handle.remove()


class Move:
    """What is added to a batch's embeddings, (batch, tokens, width): nothing until it is moved."""

    def __init__(self) -> None:
        self.distance: Tensor | None = None

    def __call__(self, _module: nn.Module, _given: Any, states: Tensor) -> Tensor:
        if self.distance is None:
            self.distance = torch.zeros_like(states).requires_grad_()
        return states + self.distance

    def up(self, far: float) -> None:
        """Move each row so far along its gradient."""
        assert self.distance is not None and self.distance.grad is not None
        gradient = self.distance.grad
        norms = gradient.flatten(1).norm(dim=1).clamp(min=TINY)
        self.distance = (self.distance.detach() + far * gradient / norms[:, None, None]).requires_grad_()
