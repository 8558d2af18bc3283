"""Autoregressive learning of sound: a WaveNet learns to tell each sample's level from the samples before it.

Rows are those that it classifies; what they are called counts for nothing. Method: van den Oord et al. (2016).
"""

from typing import Any

import torch
from torch import Tensor, nn

from graftwork.models.serving.classifier import Classifier, hidden_size


class AutoregressiveModel:
    """A classifier's body with the head `objective` that it has as long as a stage trains it so."""

    def __init__(self, model: Classifier) -> None:
        self.model = model

    def forward(self, samples: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, samples) and their mask -> (batch, 2).

        Of each row the mean loss of its samples but the first, in nats, and the share of them whose level is told
        rightly; 0 without any. `graftwork.models.masked` has what makes a loss, and a measure, of them.
        """
        body: Any = self.model.body
        states, told = body.sample_states(samples)[:, :-1], body.embeddings.levels(samples)[:, 1:]
        is_real = attention_mask[:, 1:] != 0
        head = self.model.get_submodule("objective")
        # Row by row: a score for each level of each sample of a batch is more than all its states.
        return torch.stack([_told(head, *row) for row in zip(states, told, is_real, strict=True)])


def _told(head: nn.Module, states: Tensor, levels: Tensor, is_real: Tensor) -> Tensor:
    """Of (samples, hidden) states and the (samples,) levels that follow them: mean loss, and share told rightly."""
    scores, levels = head(states[is_real]).float(), levels[is_real]
    losses = nn.functional.cross_entropy(scores, levels, reduction="none")
    found = torch.stack([losses, (scores.argmax(1) == levels).float()])
    return found.sum(1) / max(1, len(levels))


def attach_sample_head(model: Classifier, seed: int) -> None:
    """Give the classifier a new head `objective`, drawn from the seed: states to a score for each level."""
    torch.manual_seed(seed)
    model.add_module("objective", make_sample_head(model).to(next(model.body.parameters()).device))


def make_sample_head(model: Classifier) -> nn.Linear:
    """(…, hidden) states -> (…, levels) scores; what it begins with is drawn by torch's generator."""
    body: Any = model.body
    return nn.Linear(hidden_size(body), body.config.quantization)
