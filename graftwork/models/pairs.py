"""Learning from pictures and their captions: what belongs together is brought together in the space of two towers.

Equal captions, and captions of one picture, belong together wherever they stand: they are no negatives of each other.
Methods: CLIP (Radford et al. 2021), SigLIP (Zhai et al. 2023), locked towers (LiT, Zhai et al. 2022), rows of one label
as positives in both directions (UniCL, Yang et al. 2022).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from graftwork.models.serving.classifier import Classifier
from graftwork.models.towers import TextTower

AT_ONCE = 1024  # rows that are compared with all others


class PairModel:
    """A classifier's body with the tower of texts that it has beside it, as `objective`."""

    def __init__(self, model: Classifier) -> None:
        self.model = model

    def forward(self, pixels: Tensor, captions: Tensor) -> Tensor:
        """(batch, 3, side, side) pixels and (batch, tokens, 2) ids with their mask -> (batch, 2 x width).

        The states of pictures, and beside each that of its caption.
        """
        ids, mask = captions.unbind(-1)
        tower: Any = self.model.get_submodule("objective")
        return torch.cat([self.model.features(pixels, mask), tower.texts.features(ids, mask)], dim=1)


class PairCriterion:
    """The mean loss of a batch of what `PairModel` gives, and (batch, 2) numbers of its captions and its pictures."""

    def __init__(self, tower: TextTower) -> None:
        self.tower = tower

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(outputs.device.type, enabled=False):  # cosines near 1 are all the same in bfloat16
            seen, read = directions(outputs.float())
            near = seen @ read.T * self.tower.scale.exp()
            if self.tower.bias is not None:
                return _each_by_itself(near + self.tower.bias, belong(labels, labels)).mean()
            fits = belong(labels, labels)
            return (_one_of_all(near, fits).mean() + _one_of_all(near.T, fits).mean()) / 2

    def measure(self, outputs: Tensor, labels: Tensor) -> tuple[float, float]:
        """Of all rows: the loss, and how often what is nearest belongs to what is asked for, the mean of both ways."""
        scale = float(self.tower.scale.detach().exp())
        bias = None if self.tower.bias is None else float(self.tower.bias.detach())
        seen, read = directions(outputs)
        told = [_compare(one, other, labels, scale, bias) for one, other in ((seen, read), (read, seen))]
        losses = [each.losses.mean().item() for each in told]
        right = [each.is_right.double().mean().item() for each in told]
        return losses[0] if bias is not None else sum(losses) / 2, sum(right) / 2


def directions(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """The states of pictures and of captions, each of length 1."""
    seen, read = (nn.functional.normalize(part, dim=1) for part in outputs.chunk(2, dim=1))
    return seen, read


def belong(labels: Tensor, others: Tensor) -> Tensor:
    """(rows, 2) and (others, 2) numbers of captions and pictures -> (rows, others): whether one of them is the same."""
    return (labels[:, None] == others[None]).any(-1)


class _Compared(NamedTuple):
    losses: Tensor
    is_right: Tensor


def _compare(some: Tensor, others: Tensor, labels: Tensor, scale: float, bias: float | None) -> _Compared:
    """Each of some with all others, so many at once: what it costs, and whether the nearest belongs to it.

    What is as near and does not belong is nearer, and what is no number is not near.
    """
    losses, is_right = [], []
    for start in range(0, len(some), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        near, fits = some[part] @ others.T * scale, belong(labels[part], labels)
        losses.append(_one_of_all(near, fits) if bias is None else _each_by_itself(near + bias, fits))
        best, next_best = (near.masked_fill(each, -torch.inf).amax(1) for each in (~fits, fits))
        is_right.append(best > next_best)
    return _Compared(torch.cat(losses), torch.cat(is_right))


def _one_of_all(near: Tensor, fits: Tensor) -> Tensor:
    """(rows,): how unlikely what belongs is among all others, the mean of several."""
    likely = near.log_softmax(1)
    return -likely.masked_fill(~fits, 0).sum(1) / fits.sum(1)


def _each_by_itself(near: Tensor, fits: Tensor) -> Tensor:
    """(rows,): how unlikely it is of each other that it belongs where it does, and does not elsewhere, the sum."""
    return -nn.functional.logsigmoid(torch.where(fits, near, -near)).sum(1)
