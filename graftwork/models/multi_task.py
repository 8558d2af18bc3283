"""Several tasks on one body: beside the classifier's head, one for each further task, which a stage trains and leaves.

What it gives of a row is what every head makes of it, side by side, the classifier's own first; which of that counts is
for the criterion to say.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.models.serving.classifier import Classifier, hidden_size, make_head
from graftwork.models.serving.config import ServingConfig


class TaskHeads(nn.Module):
    """The heads of further tasks, and how unsure each task is, the classifier's own first: the log of a variance.

    log_variances: (tasks,), None where that is not learnt.
    """

    def __init__(self, heads: Sequence[nn.Module], is_unsure: bool) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.log_variances = nn.Parameter(torch.zeros(1 + len(heads))) if is_unsure else None


class MultiTaskModel:
    """A classifier, or what is above a cut of one, with the heads `objective` that it has as long as a stage lasts."""

    def __init__(self, model: Classifier) -> None:
        self.model = model

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """What the classifier reads -> (batch, outputs of all tasks)."""
        states = self.model.features(inputs, mask)
        objective: Any = self.model.get_submodule("objective")
        return torch.cat([self.model.head(states), *(head(states) for head in objective.heads)], dim=1)


def attach_task_heads(
    model: Classifier, config: ServingConfig, tasks: Sequence[tuple[str, ...]], is_unsure: bool, seed: int
) -> None:
    """Give the classifier a new head, made as its own is, for the classes of each task, drawn from the seed."""
    torch.manual_seed(seed)
    width = hidden_size(model.body)
    heads = [make_head(width, replace(config, classes=classes, head=None)) for classes in tasks]
    model.add_module("objective", TaskHeads(heads, is_unsure).to(next(model.body.parameters()).device))
