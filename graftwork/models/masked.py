"""Masked language modelling: words of a text are hidden, and the body learns to tell them from what is around them.

A row with hidden words is (tokens, 2) integers: the ids that the body reads, and the ids that it is to tell, IGNORED
where nothing was hidden. Method: BERT (Devlin et al. 2019).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.models.serving.classifier import Classifier, hidden_size
from graftwork.models.serving.telling import IGNORED, told_by_row
from graftwork.models.serving.text import TextEncoder


class LanguageHead(nn.Module):
    """States to a score for each token, by the body's own table of tokens: what is learnt goes into the body."""

    def __init__(self, width: int, table: Tensor) -> None:
        super().__init__()
        vocabulary, table_width = table.shape
        self.dense = nn.Linear(width, table_width)
        self.norm = nn.LayerNorm(table_width)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, states: Tensor, table: Tensor) -> Tensor:
        """(tokens, width) states and (vocabulary, table width) -> (tokens, vocabulary)."""
        return nn.functional.linear(self.norm(nn.functional.gelu(self.dense(states))), table, self.bias)


class MaskedLanguageModel:
    """A classifier's body with the head `objective` that it has as long as a stage trains it so."""

    def __init__(self, model: Classifier) -> None:
        self.model = model

    def forward(self, rows: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, tokens, 2) rows and (batch, tokens) mask -> (batch, 2).

        Of each row the mean loss of its hidden tokens, and the share of them that is told rightly; 0 without any.
        """
        ids, hidden = rows.unbind(-1)
        states = self.model.body(input_ids=ids, attention_mask=attention_mask).last_hidden_state
        head: Any = self.model.get_submodule("objective")
        return tell_hidden(head, states, hidden, token_table(self.model.body))


def tell_hidden(head: LanguageHead, states: Tensor, hidden: Tensor, table: Tensor) -> Tensor:
    """Of (batch, tokens, width) states and (batch, tokens) hidden ids, what `MaskedLanguageModel` gives."""
    return told_by_row(lambda chosen: head(chosen, table), states, hidden)


def mean_loss(found: Tensor, _labels: Tensor) -> Tensor:
    """Of a batch of what `MaskedLanguageModel` gives."""
    return found[:, 0].mean()


def measure_hidden(found: Tensor, _labels: Tensor) -> tuple[float, float]:
    """The loss of all rows, and the share of hidden words told rightly, of what `MaskedLanguageModel` gives."""
    loss, accuracy = found.mean(0).tolist()
    return loss, accuracy


class MaskedRows:
    """Pads rows with hidden words, and where a row says more of each token, that with what is given for it."""

    def __init__(self, encoder: TextEncoder, *more: int) -> None:
        self.max_tokens = encoder.max_tokens
        self._padding = torch.tensor([int(encoder.tokenizer.pad_token_id), IGNORED, *more])

    def pad(self, rows: Sequence[Tensor], length: int) -> tuple[Tensor, Tensor]:
        """(rows, length, 2 or more), and the attention mask, (rows, length)."""
        padded = self._padding.repeat(len(rows), length, 1)
        mask = torch.zeros(len(rows), length, dtype=torch.long)
        for index, row in enumerate(rows):
            padded[index, : len(row)] = row
            mask[index, : len(row)] = 1
        return padded, mask


def token_table(body: nn.Module) -> Tensor:
    """The weights that give each token its first state, (vocabulary, table width)."""
    model: Any = body
    return model.get_input_embeddings().weight


def attach_language_head(model: Classifier, seed: int) -> None:
    """Give the classifier a new head `objective`, drawn from the seed."""
    torch.manual_seed(seed)
    table = token_table(model.body)
    model.add_module("objective", LanguageHead(hidden_size(model.body), table).to(table.device))


def detach_objective(model: Classifier) -> None:
    """Take it away, if there is one: what it was for is learnt."""
    model._modules.pop("objective", None)
