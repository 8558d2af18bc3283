"""The head that a stage begins with."""

from collections.abc import Sequence

import torch
from torch import nn

from graftwork.fingerprint import seed_of


def start_head(head: nn.Sequential, start: str | float, seed: Sequence[int]) -> None:
    """Keep the head as it is (`keep`), draw it anew (`fresh`), or scale its logits by a factor.

    What pools the tokens stays as it is. seed: the numbers that name the stage, (seed, stage).
    """
    if start == "fresh":
        torch.manual_seed(seed_of(*seed, "head"))
        for layer in head:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    elif start != "keep":
        with torch.no_grad():
            for parameter in head[-1].parameters():
                parameter *= start
