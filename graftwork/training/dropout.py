"""Dropout that costs little on a CPU, where drawing a mask bit by bit takes longer than the arithmetic around it.

torch draws a Bernoulli variable for each element, one after the other: a tenth of a step of fine-tuning. Here a mask is
made of 16 random bits an element, many at once, from a generator that is seeded by torch's own.
"""

import numpy as np
import torch
from torch import Tensor, nn

LEVELS = 1 << 16


class Dropout(nn.Module):
    """Zeroes each element with a probability, to 1 / 65,536 of what was asked for, and scales the others up.

    Method: inverted dropout (Srivastava et al. 2014).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.threshold = round(probability * LEVELS)
        self.scale = LEVELS / (LEVELS - self.threshold)

    def forward(self, states: Tensor) -> Tensor:
        if not self.training or self.threshold == 0:
            return states
        bits = np.random.SFC64(int(torch.randint(2**63 - 1, ()))).random_raw(-(-states.numel() // 4)).view(np.uint16)
        kept = bits[: states.numel()].reshape(states.shape) >= self.threshold
        mask = torch.from_numpy(np.multiply(kept, self.scale, dtype=np.float32))
        return states * mask.to(states.dtype)


def quicken_dropout(model: nn.Module, device: torch.device) -> None:
    """Put this dropout in the place of torch's where the model lies on a CPU; elsewhere torch's is fast."""
    if device.type != "cpu":
        return
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Dropout and child.p < 1:
                setattr(module, name, Dropout(child.p))
