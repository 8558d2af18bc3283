"""What it costs to tell tokens, row by row."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

IGNORED = -100  # in the place of a token that is not told


def told_by_row(score: Callable[[Tensor], Tensor], states: Tensor, told: Tensor) -> Tensor:
    """(batch, tokens, width) states and (batch, tokens) ids to tell by them, IGNORED where none is -> (batch, 2).

    Of each row the mean loss of what is told, in nats, and the share of it that is told rightly; 0 without any.
    score: (any, width) states to a score for each token, which only those that tell one are given.
    """
    is_told = told != IGNORED
    scores, wanted = score(states[is_told]).float(), told[is_told]
    losses = nn.functional.cross_entropy(scores, wanted, reduction="none")
    found = torch.stack([losses, (scores.argmax(1) == wanted).float()], dim=1)
    sums = found.new_zeros(len(told), 2).index_add(0, is_told.nonzero()[:, 0], found)
    return sums / is_told.sum(1, keepdim=True).clamp(min=1)
