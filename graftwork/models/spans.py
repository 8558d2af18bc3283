"""Span corruption: spans of a text are hidden behind a token each, and the decoder beside the body tells them.

A row is (tokens, 2) integers, of two columns that need not be as long as each other: the ids that the body reads, and
the ids that the decoder tells, each with IGNORED behind it. Method: T5 (Raffel et al. 2020).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graftwork.errors import CheckpointError, raise_if
from graftwork.models.beside import check_first_token
from graftwork.models.masked import token_table
from graftwork.models.serving.classifier import Classifier
from graftwork.models.serving.decoder import load_decoder
from graftwork.models.serving.telling import IGNORED, told_by_row
from graftwork.models.serving.text import TextEncoder
from graftwork.models.text import loading_problems


class SpanModel:
    """A classifier's body with the decoder `objective` that it has as long as a stage trains it so."""

    def __init__(self, model: Classifier) -> None:
        self.model = model

    def forward(self, rows: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, tokens, 2) rows and (batch, tokens) mask of what is read -> (batch, 2).

        Of each row the mean loss of what is told, and the share of it that is told rightly.
        """
        read, told = rows.unbind(-1)
        told = told[:, : int((told != IGNORED).sum(1).max())]  # it is short beside what is read
        states = self.model.body(input_ids=read, attention_mask=attention_mask).last_hidden_state
        decoder: Any = self.model.get_submodule("objective")
        return told_by_row(decoder.score, decoder.decode(states, attention_mask, told), told)


class SpanRows:
    """Pads rows with hidden spans. max_tokens: of either column."""

    def __init__(self, encoder: TextEncoder, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._padding = encoder.filler

    def pad(self, rows: Sequence[Tensor], length: int) -> tuple[Tensor, Tensor]:
        """(rows, length, 2), and the mask of what is read, (rows, length)."""
        padded = torch.full((len(rows), length, 2), IGNORED)
        for index, row in enumerate(rows):
            padded[index, : len(row)] = row
        is_read = padded[..., 0] != IGNORED
        padded[..., 0].masked_fill_(~is_read, self._padding)
        return padded, is_read.long()


def end_token(model: Classifier, encoder: TextEncoder) -> int:
    """The token that ends what is told: the tokenizer's, else the one that the model was made with."""
    config: Any = model.body.config
    known = encoder.tokenizer.eos_token_id
    return int(config.eos_token_id if known is None else known)


def attach_decoder(model: Classifier, folder: Path) -> None:
    """Give the classifier the decoder of the checkpoint in the folder as `objective`.

    Raises CheckpointError, naming each tensor, if it is not there whole, or if its first token is none.
    """
    config: Any = model.body.config
    check_first_token(getattr(config, "decoder_start_token_id", None), len(token_table(model.body)))
    decoder, report = load_decoder(folder, model.body)
    raise_if(loading_problems(None, report), CheckpointError)
    model.add_module("objective", decoder.to(token_table(model.body).device))
