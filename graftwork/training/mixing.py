"""Mixing of training rows: pictures that are partly other ones, and so are their labels, anew in each epoch.

Any training row may be the other one, whatever is in the batch, so that what a row becomes is a function of the seed,
the stage, the epoch and the row, as all augmentation is. Method: mixup (Zhang et al. 2018), which blends two pictures,
and CutMix (Yun et al. 2019), which pastes a rectangle of one into the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from graftwork.training.augmentation import row_generator

MIXING = 1  # the place of these draws beside those of a row's augmentation, which stay what they are without


@dataclass(frozen=True)
class Mix:
    """What a row is mixed with. share: what of it stays. box: rows and columns that are pasted; None to blend."""

    partner: int
    share: float
    box: tuple[slice, slice] | None = None

    def blend(self, mine: np.ndarray, other: np.ndarray) -> np.ndarray:
        """(side, side, 3) uint8, of two like it."""
        if self.box is None:
            return np.rint(self.share * mine + (1 - self.share) * other).astype(np.uint8)
        pixels = np.array(mine)
        pixels[self.box] = other[self.box]
        return pixels


@dataclass(frozen=True)
class Mixture:
    """How training rows are mixed. labels: of all of them, (rows,) classes or (rows, outputs). side: of the pictures.

    mixup, cutmix: what the share is drawn by, from Beta(it, it); 0 for none. Of both, each row takes one at random.
    """

    labels: np.ndarray
    outputs: int
    side: int
    mixup: float = 0.0
    cutmix: float = 0.0

    def draw(self, index: int, epoch: Sequence[int]) -> Mix:
        """What the row is mixed with in an epoch, named as of `row_generator`."""
        generator = row_generator(epoch, index, MIXING)
        # The partner first, so that it is the same however it is mixed.
        partner = int(generator.integers(len(self.labels)))
        is_cut = generator.random() < (0.5 if self.mixup and self.cutmix else bool(self.cutmix))
        middle = generator.random(2)
        alpha = self.cutmix if is_cut else self.mixup
        share = float(generator.beta(alpha, alpha))
        return _pasted(partner, share, middle, self.side) if is_cut else Mix(partner, share)

    def label(self, index: int, epoch: Sequence[int]) -> np.ndarray:
        """(outputs,) float32: what the row is of each class in an epoch."""
        mix = self.draw(index, epoch)
        mixed = mix.share * self._whole(index) + (1 - mix.share) * self._whole(mix.partner)
        return np.asarray(mixed, dtype=np.float32)

    def _whole(self, index: int) -> np.ndarray:
        label = self.labels[index]
        return np.asarray(label if label.ndim else np.arange(self.outputs) == label, dtype=np.float64)


def _pasted(partner: int, share: float, middle: np.ndarray, side: int) -> Mix:
    """A square of 1 - share of the area around a middle, as far as it lies inside; what stays is counted from that."""
    half = side * (1 - share) ** 0.5 / 2
    low, high = (np.clip(np.rint(middle * side + way * half), 0, side).astype(int) for way in (-1, 1))
    area = int(np.prod(high - low))
    return Mix(partner, 1 - area / side**2, (slice(low[0], high[0]), slice(low[1], high[1])))


def mixed_loss(logits: Tensor, shares: Tensor, class_weights: Tensor | None, label_smoothing: float) -> Tensor:
    """The mean cross-entropy with shares of classes, (rows, classes); a row weighs what its classes do, each by share.

    torch's own mean would divide by the number of rows, whatever they weigh.
    """
    total = nn.functional.cross_entropy(logits, shares, class_weights, reduction="sum", label_smoothing=label_smoothing)
    return total / (len(shares) if class_weights is None else (shares * class_weights).sum())
