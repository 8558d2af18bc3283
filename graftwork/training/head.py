"""The head that a stage, or a run, begins with."""

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


def rescale_head(head: nn.Sequential, before: Sequence[float] | None, now: Sequence[float] | None) -> None:
    """Let a head that gives numbers in one scale, (mean, standard deviation), give the same numbers in another."""
    if before is None or now is None:
        return
    with torch.no_grad():
        head[-1].weight *= before[1] / now[1]
        head[-1].bias.copy_((head[-1].bias * before[1] + before[0] - now[0]) / now[1])
