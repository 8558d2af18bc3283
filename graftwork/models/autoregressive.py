"""Autoregressive learning: a body learns to tell what comes next from what was before it.

A WaveNet tells each sample's level by a head `objective` that it has as long as a stage trains it so (van den Oord et
al. 2016); a decoder of texts each token by its own table of tokens, as it was pretrained (Radford et al. 2019). Rows
are those that are classified; what they are called counts for nothing.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.models.masked import token_table
from graftwork.models.serving.classifier import Classifier, hidden_size

Score = Callable[[Tensor], Tensor]


class AutoregressiveModel:
    """A classifier's body, and what it tells by: a head `objective`, or else the body's table of tokens."""

    def __init__(self, model: Classifier) -> None:
        self.model = model

    def forward(self, inputs: Tensor, attention_mask: Tensor) -> Tensor:
        """What the modality's rows are padded to, and their mask, (batch, length) both -> (batch, 2).

        Of each row the mean loss of all but the first, in nats, and the share of them that is told rightly; 0 without
        any. `graftwork.models.masked` has what makes a loss, and a measure, of them.
        """
        body: Any = self.model.body
        head: Score | None = getattr(self.model, "objective", None)
        if head is None:
            head = partial(nn.functional.linear, weight=token_table(body))
            states, told = body(input_ids=inputs, attention_mask=attention_mask).last_hidden_state, inputs
        else:
            states, told = body.sample_states(inputs), body.embeddings.levels(inputs)
        is_real = attention_mask[:, 1:] != 0
        # Row by row: a score for each level of each sample, or each token, of a batch is more than all its states.
        return torch.stack([_told(head, *row) for row in zip(states[:, :-1], told[:, 1:], is_real, strict=True)])


def _told(score: Score, states: Tensor, following: Tensor, is_real: Tensor) -> Tensor:
    """Of (length, hidden) states and what follows them, (length,): mean loss, and the share told rightly."""
    scores, following = score(states[is_real]).float(), following[is_real]
    losses = nn.functional.cross_entropy(scores, following, reduction="none")
    found = torch.stack([losses, (scores.argmax(1) == following).float()])
    return found.sum(1) / max(1, len(following))


def attach_sample_head(model: Classifier, seed: int) -> None:
    """Give the classifier a new head `objective`, drawn from the seed: states to a score for each level."""
    torch.manual_seed(seed)
    model.add_module("objective", make_sample_head(model).to(next(model.body.parameters()).device))


def make_sample_head(model: Classifier) -> nn.Linear:
    """(…, hidden) states -> (…, levels) scores; what it begins with is drawn by torch's generator."""
    body: Any = model.body
    return nn.Linear(hidden_size(body), body.config.quantization)
