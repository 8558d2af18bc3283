"""What an attack adds to what a model reads: to the embeddings of texts, to the pixels of pictures.

It is nothing until it is moved up a gradient. Who attacks decides how far and how often.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from graftwork.models.serving.config import PixelConfig

TINY = 1e-12
REACH = 2.5  # a step of several that go to and fro, over the distance that equal steps in one direction would need


class Move(Protocol):
    """What is added to a batch, from the first time that it is computed on; `distance` takes a gradient."""

    distance: Tensor

    def attach(self, body: Any) -> RemovableHandle: ...
    def up(self, gradient: Tensor, far: float, most: float) -> None: ...


@contextmanager
def moved(body: nn.Module, pixels: PixelConfig | None) -> Iterator[Move]:
    """What the body computes on in here is moved. pixels: of a body that reads pictures."""
    move = EmbeddingMove() if pixels is None else PixelMove(pixels)
    handle = move.attach(body)
    try:
        yield move
    finally:
        handle.remove()


class EmbeddingMove:
    """Added to embeddings, (batch, tokens, width). Far is a Euclidean distance over all of a row's tokens."""

    distance: Tensor

    def attach(self, body: Any) -> RemovableHandle:
        return body.get_input_embeddings().register_forward_hook(self._add)

    def up(self, gradient: Tensor, far: float, most: float) -> None:
        """So far along each row's gradient, and back to a distance of `most` if that is beyond it."""
        moved = self.distance.detach() + far * gradient / _norms(gradient)
        self.distance = (moved * (most / _norms(moved)).clamp(max=1)).requires_grad_()

    def _add(self, _module: nn.Module, _given: Any, states: Tensor) -> Tensor:
        if not hasattr(self, "distance"):
            self.distance = torch.zeros_like(states).requires_grad_()
        return states + self.distance


class PixelMove:
    """Added to pixels, (batch, 3, side, side). Far is what each of them changes at most, as a share of its range."""

    distance: Tensor

    def __init__(self, pixels: PixelConfig) -> None:
        self.mean, self.std = (torch.tensor(each).view(3, 1, 1) for each in (pixels.mean, pixels.std))

    def attach(self, body: Any) -> RemovableHandle:
        return body.register_forward_pre_hook(self._add, with_kwargs=True)

    def up(self, gradient: Tensor, far: float, most: float) -> None:
        """So far each pixel by its gradient's sign, back to `most`, and back to what a picture can show."""
        moved = (self.distance.detach() + far * gradient.sign()).clamp(-most, most)
        self.distance = torch.clamp(moved, -self.shown, 1 - self.shown).requires_grad_()

    def _add(self, _module: nn.Module, given: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        pixels = named["pixel_values"]
        if not hasattr(self, "distance"):
            self.mean, self.std = self.mean.to(pixels.device), self.std.to(pixels.device)
            self.shown = pixels * self.std + self.mean  # as it was before it was normalised: from 0 to 1
            self.distance = torch.zeros_like(pixels).requires_grad_()
        return given, named | {"pixel_values": pixels + self.distance / self.std}


def _norms(states: Tensor) -> Tensor:
    return states.flatten(1).norm(dim=1).clamp(min=TINY)[:, None, None]
