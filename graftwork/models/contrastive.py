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
    with torch.autocast(features.device.type, enabled=False):  # cosines near 1 are all the same in bfloat16
        states = nn.functional.normalize(features, dim=1)
        losses, counts, _ = _compare(states, states, labels, labels, 0, temperature)
    return losses.sum() / (counts > 0).sum().clamp(min=1)


def measure_nearness(features: Tensor, labels: Tensor, temperature: float) -> tuple[float, float]:
    """Of (rows, width) and (rows,): the loss of all, and the share of rows whose nearest other is of their class."""
    states = nn.functional.normalize(features.float(), dim=1)
    losses, told, right = 0.0, 0, 0
    for start in range(0, len(states), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        lost, counts, nearest = _compare(states[some], states, labels[some], labels, start, temperature)
        losses, told = losses + lost.sum().item(), told + int((counts > 0).sum())
        right += int((labels[nearest] == labels[some]).sum())
    return losses / max(1, told), right / len(states)


def _compare(
    some: Tensor, states: Tensor, their_labels: Tensor, labels: Tensor, start: int, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Of some rows, those from `start` on: loss, how many others are of their class, and the place of the nearest."""
    alone = torch.arange(len(states), device=states.device) == torch.arange(
        start, start + len(some), device=states.device
    ).unsqueeze(1)
    near = (some @ states.T / temperature).masked_fill(alone, -torch.inf)
    likely = near - near.logsumexp(1, keepdim=True)
    is_same = (their_labels.unsqueeze(1) == labels) & ~alone
    counts = is_same.sum(1)
    return -likely.masked_fill(~is_same, 0).sum(1) / counts.clamp(min=1), counts, near.argmax(1)
