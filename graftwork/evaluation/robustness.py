"""How many rows a model still has right when they are changed a little: in its embeddings, at worst, and in spelling.

An attack in the embeddings moves all tokens of a row together, by a Euclidean distance of `epsilon` at most over all of
them, to where the loss of its true class rises. It finds what a gradient finds: a model may fail where none looked.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graftwork.models.serving.classifier import Classifier
from graftwork.models.serving.config import Text
from graftwork.models.serving.inference import inference_batches
from graftwork.models.serving.model import ServingModel

BATCH_TOKENS = 2048
TINY = 1e-12
REACH = 2.5  # a step of several, over the distance that equal steps in one direction would need
WORD = re.compile(r"[^\W\d_]{4,}")


def attack_probabilities(
    served: ServingModel, texts: Sequence[Text], labels: np.ndarray, epsilon: float, steps: int
) -> np.ndarray:
    """(texts, classes) probabilities where an attack has moved each text's embeddings.

    labels: (texts,) the true classes. steps: 1 goes `epsilon` along the gradient (FGM, Miyato et al. 2017); more go to
    and fro inside that distance, and what counts is where the loss of a row was highest (projected gradient descent,
    Madry et al. 2018).
    """
    model, rows = served.model.eval(), served.encoder.encode(texts)
    found = torch.empty(len(rows), len(served.classes))
    for length, places in inference_batches(rows, BATCH_TOKENS, served.encoder.max_tokens):
        inputs, mask = served.encoder.pad([rows[place] for place in places], length)
        truth = torch.from_numpy(labels[places]).to(served.device)
        found[places] = _attack(model, inputs.to(served.device), mask.to(served.device), truth, epsilon, steps).cpu()
    return torch.softmax(found.double(), dim=-1).numpy()


def swap_letters(text: str, share: float, seed: int) -> str:
    """The text with two neighbouring letters swapped inside some of its words of four letters and more.

    share: probability that it happens to a word. Its first and its last letter stay where they are.
    """
    generator = np.random.default_rng([seed, *text.encode()])

    def swap(match: re.Match[str]) -> str:
        word = match[0]
        if generator.random() >= share:
            return word
        place = int(generator.integers(1, len(word) - 2))
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]

    return WORD.sub(swap, text)


def _attack(model: Classifier, inputs: Tensor, mask: Tensor, labels: Tensor, epsilon: float, steps: int) -> Tensor:
    """(rows, classes) logits at the highest loss that was met."""
    stride = epsilon if steps == 1 else REACH * epsilon / steps
    with _moved(model.body) as move:
        worst = model(inputs, mask)
        loss = nn.functional.cross_entropy(worst, labels, reduction="none")
        highest = loss.detach()
        for _ in range(steps):
            (move.gradient,) = torch.autograd.grad(loss.sum(), move.distance)
            move.up(stride, epsilon)
            logits = model(inputs, mask)
            loss = nn.functional.cross_entropy(logits, labels, reduction="none")
            is_higher = loss.detach() > highest
            worst = torch.where(is_higher[:, None], logits, worst)
            highest = torch.maximum(highest, loss.detach())
    return worst.detach()


class _Move:
    """What is added to a batch's embeddings, (batch, tokens, width): nothing until it is moved."""

    distance: Tensor
    gradient: Tensor

    def __call__(self, _module: nn.Module, _given: Any, states: Tensor) -> Tensor:
        if not hasattr(self, "distance"):
            self.distance = torch.zeros_like(states).requires_grad_()
        return states.detach() + self.distance

    def up(self, far: float, most: float) -> None:
        """So far along each row's gradient, and back to a distance of `most` if that is beyond it."""
        moved = self.distance.detach() + far * self.gradient / _norms(self.gradient)
        self.distance = (moved * (most / _norms(moved)).clamp(max=1)).requires_grad_()


def _norms(states: Tensor) -> Tensor:
    return states.flatten(1).norm(dim=1).clamp(min=TINY)[:, None, None]


@contextmanager
def _moved(body: nn.Module) -> Iterator[_Move]:
    model: Any = body
    move = _Move()
    handle = model.get_input_embeddings().register_forward_hook(move)
    try:
        yield move
    finally:
        handle.remove()
