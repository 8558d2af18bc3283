"""Replaced token detection: a small generator writes words in the place of hidden ones, and the body learns to tell
which tokens of a text are not its own.

Both learn at once, the generator to tell what was hidden, as in `graftwork.models.masked`, whose rows are used; what it
writes is drawn from what it expects, and no gradient goes back through that. Its tokens are the body's own. When the
stage is over it is gone. Method: ELECTRA (Clark et al. 2020), with its weight of the detector's loss.
"""

from typing import Any

import torch
from torch import Tensor, nn

from graftwork.models.catalog import generator_width
from graftwork.models.masked import LanguageHead, token_table
from graftwork.models.serving.classifier import Classifier, hidden_size
from graftwork.models.serving.telling import IGNORED

DETECTION = 50.0  # what it weighs beside the generator's loss
HEADS = 4  # of the generator


class Replacer(nn.Module):
    """The generator and its head, and the head that tells what it wrote."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        width = generator_width(hidden_size(body))
        sizes = {"hidden_size": width, "num_attention_heads": HEADS, "intermediate_size": 4 * width}
        self.generator = type(body)(type(body.config)(**body.config.to_dict() | sizes))
        self.generator.embeddings.word_embeddings = None  # it is given the body's
        self.writer = LanguageHead(width, token_table(body))
        wide = hidden_size(body)
        self.detector = nn.Sequential(nn.Linear(wide, wide), nn.GELU(), nn.Linear(wide, 1))


class ReplacedTokenModel:
    """A classifier's body with the heads `objective` that it has as long as a stage trains it so."""

    def __init__(self, model: Classifier) -> None:
        self.model = model

    def forward(self, rows: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, tokens, 2) rows and (batch, tokens) mask, as of `MaskedLanguageModel` -> (batch, 2).

        Of each row the loss: the mean of its hidden tokens for the generator, and DETECTION times that of all tokens
        for the body; and the share of all tokens of which it is told rightly whether they are the text's own.
        """
        ids, hidden = rows.unbind(-1)
        body, objective = self.model.body, self._objective
        is_hidden, is_real = hidden != IGNORED, attention_mask != 0
        table = token_table(body)
        states = objective.generator(
            inputs_embeds=nn.functional.embedding(ids, table), attention_mask=attention_mask
        ).last_hidden_state
        scores = objective.writer(states[is_hidden], table).float()
        told = nn.functional.cross_entropy(scores, hidden[is_hidden], reduction="none")
        own = torch.where(is_hidden, hidden, ids)
        read = own.masked_scatter(is_hidden, self._write(scores))
        found = body(input_ids=read, attention_mask=attention_mask).last_hidden_state
        wrong = (read != own).float()
        guesses = objective.detector(found).squeeze(-1).float()
        missed = nn.functional.binary_cross_entropy_with_logits(guesses, wrong, reduction="none")
        generated = torch.zeros_like(missed).masked_scatter(is_hidden, told)
        right = ((guesses > 0) == (wrong > 0)).float()
        losses = _mean(generated, is_hidden) + DETECTION * _mean(missed, is_real)
        return torch.stack([losses, _mean(right, is_real)], dim=1)

    @property
    def _objective(self) -> Any:
        return self.model.get_submodule("objective")

    def _write(self, scores: Tensor) -> Tensor:
        """(hidden,) tokens: drawn from what is expected in training, else the likeliest, so that nothing is drawn."""
        if not self.model.training:
            return scores.argmax(1)
        return torch.multinomial(scores.detach().softmax(1), 1).squeeze(1)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """(batch, tokens) -> (batch,): over those that count; 0 where none does."""
    return (values * counted).sum(1) / counted.sum(1).clamp(min=1)


def attach_replacer(model: Classifier, seed: int) -> None:
    """Give the classifier a new `objective`, drawn from the seed."""
    torch.manual_seed(seed)
    model.add_module("objective", Replacer(model.body).to(token_table(model.body).device))
