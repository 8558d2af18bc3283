"""How many rows a model still has right when they are changed a little: at worst, and in spelling.

An attack moves a row to where the loss of its true class rises. It moves all embeddings of a text together, by a
Euclidean distance of `epsilon` at most over all of them, or each pixel of a picture by that share of its range at most.
It finds what a gradient finds: a model may fail where none looked.
"""

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from graftwork.models.moves import REACH, moved
from graftwork.models.serving.classifier import Classifier
from graftwork.models.serving.config import Input, PixelConfig
from graftwork.models.serving.inference import inference_batches
from graftwork.models.serving.model import ServingModel

BATCH_TOKENS = 2048
WORD = re.compile(r"[^\W\d_]{4,}")


def attack_probabilities(
    served: ServingModel, given: Sequence[Input], labels: np.ndarray, epsilon: float, steps: int
) -> np.ndarray:
    """(rows, classes) probabilities where an attack has moved each text's embeddings, or each picture's pixels.

    labels: (rows,) the true classes. steps: 1 goes `epsilon` along the gradient (FGM, Miyato et al. 2017; of pictures
    along its signs, FGSM, Goodfellow et al. 2015); more go to and fro inside that distance, and what counts is where
    the loss of a row was highest (projected gradient descent, Madry et al. 2018).
    """
    model, rows, pixels = served.model.eval(), served.encoder.encode(given), served.config.pixels
    found = torch.empty(len(rows), len(served.classes))
    for length, places in inference_batches(rows, BATCH_TOKENS, served.encoder.max_tokens):
        inputs, mask = served.encoder.pad([rows[place] for place in places], length)
        truth = torch.from_numpy(labels[places]).to(served.device)
        batch = inputs.to(served.device), mask.to(served.device), truth
        found[places] = _attack(model, pixels, *batch, epsilon, steps).cpu()
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


def _attack(
    model: Classifier,
    pixels: PixelConfig | None,
    inputs: Tensor,
    mask: Tensor,
    labels: Tensor,
    epsilon: float,
    steps: int,
) -> Tensor:
    """(rows, classes) logits at the highest loss that was met."""
    stride = epsilon if steps == 1 else REACH * epsilon / steps
    with moved(model.body, pixels) as move:
        worst = model(inputs, mask)
        loss = nn.functional.cross_entropy(worst, labels, reduction="none")
        highest = loss.detach()
        for _ in range(steps):
            (gradient,) = torch.autograd.grad(loss.sum(), move.distance)
            move.up(gradient, stride, epsilon)
            logits = model(inputs, mask)
            loss = nn.functional.cross_entropy(logits, labels, reduction="none")
            is_higher = loss.detach() > highest
            worst = torch.where(is_higher[:, None], logits, worst)
            highest = torch.maximum(highest, loss.detach())
    return worst.detach()
