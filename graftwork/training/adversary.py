"""Training on rows that are moved to where the loss rises most, beside the rows as they are."""

import math
from collections.abc import Callable

from torch import Tensor, nn

from graftwork.models.moves import REACH, moved
from graftwork.models.serving.config import PixelConfig
from graftwork.training.stages import Adversary


def add_plain_gradient(compute: Callable[[], Tensor]) -> float:
    """Add the gradient of what is computed; its value."""
    loss = compute()
    loss.backward()
    return loss.item()


class Attack:
    """Moves a batch up the gradient of its loss, in `steps` steps and to a distance of `epsilon` at most.

    The gradients of the rows as they are and after each step count the same, which makes use of all that is computed.
    Method, of texts: FreeLB (Zhu et al. 2020), in equal steps; one step is FGM (Miyato, Dai and Goodfellow 2017). Of
    pictures: projected gradient descent (Madry et al. 2018) from the picture itself; one step is FGSM (Goodfellow,
    Shlens and Szegedy 2015).
    """

    def __init__(self, body: nn.Module, pixels: PixelConfig | None, adversary: Adversary) -> None:
        self.body, self.pixels, self.steps = body, pixels, adversary.steps
        is_fro = pixels is not None and adversary.steps > 1
        self.stride = (REACH if is_fro else 1.0) * adversary.epsilon / adversary.steps
        # Equal steps can't lead beyond it, and to bring them back would round them.
        self.most = math.inf if pixels is None else adversary.epsilon

    def __call__(self, compute: Callable[[], Tensor]) -> float:
        """Add the mean of these gradients; the loss of the rows as they are."""
        with moved(self.body, self.pixels) as move:
            loss = compute()
            (loss / (1 + self.steps)).backward()
            for _ in range(self.steps):
                assert move.distance.grad is not None
                move.up(move.distance.grad, self.stride, self.most)
                (compute() / (1 + self.steps)).backward()
        return loss.item()
