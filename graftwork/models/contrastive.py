"""Learning from labels without a head: pooled states of one class are brought together, those of others apart.

Method: supervised contrastive learning (Khosla et al. 2020), as it is used for few examples before a head is fitted
(SetFit, Tunstall et al. 2022).
"""

import torch
from torch import Tensor, nn

AT_ONCE = 1024  # rows that are compared with all others


def contrastive_loss(features: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The mean over rows of how unlikely the others of their class are among all others, (batch, width) and (batch,).

    Likely is what is near by cosine, over the temperature. A row that has no other of its class does not count.
    """
    states = nn.functional.normalize(features, dim=1)
    alone = torch.eye(len(states), dtype=torch.bool, device=states.device)
    near = (states @ states.T / temperature).masked_fill(alone, -torch.inf)
    likely = near - near.logsumexp(1, keepdim=True)
    is_same = (labels[:, None] == labels) & ~alone
    counts = is_same.sum(1)
    losses = -likely.masked_fill(~is_same, 0).sum(1) / counts.clamp(min=1)
    return losses.sum() / (counts > 0).sum().clamp(min=1)


def measure_neighbours(features: Tensor, labels: Tensor) -> tuple[float, float]:
    """Of (rows, width) and (rows,): the share of rows whose nearest other row is of another class, and of the same."""
    states = nn.functional.normalize(features.float(), dim=1)
    right = 0
    for start in range(0, len(states), AT_ONCE):
        near = states[start : start + AT_ONCE] @ states.T
        near[torch.arange(len(near)), torch.arange(start, start + len(near))] = -torch.inf
        right += int((labels[near.argmax(1)] == labels[start : start + AT_ONCE]).sum())
    return 1 - right / len(states), right / len(states)
