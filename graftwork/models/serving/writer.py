"""A pretrained body and what writes by it: T5's decoder, or the table that a decoder of texts tells tokens by.

Training is told what to write, token by token; serving writes, always the likeliest next token.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .classifier import WITH_DECODER, Classifier
from .config import OWN_TABLE, ServingConfig
from .decoder import Decoder, load_decoder
from .inference import BATCH_TOKENS, inference_batches
from .telling import told_by_row
from .tensors import read_tensors
from .text import TextEncoder

NOTHING: dict[str, Any] = {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set()}


@dataclass(frozen=True)
class Told:
    """A batch of what is read and what is to be told of it.

    read: (batch, tokens) ids, or (batch, tokens, width) activations in their place. told: (batch, written) ids; where
    the body itself writes they stand at the places of `read`, IGNORED wherever nothing is told.
    """

    read: Tensor
    told: Tensor

    def to(self, device: torch.device) -> "Told":
        return Told(self.read.to(device), self.told.to(device))


class TokenTable(nn.Module):
    """States to a score for each token: by a table of its own, or by the one that the body reads tokens by."""

    def __init__(self, body: nn.Module, has_own_table: bool) -> None:
        super().__init__()
        model: Any = body
        self._embeddings = (model.get_input_embeddings(),)  # in a tuple, which modules are not looked for in
        vocabulary, width = self._embeddings[0].weight.shape
        self.lm_head = nn.Linear(width, vocabulary, bias=False) if has_own_table else None

    def score(self, states: Tensor) -> Tensor:
        """(…, width) states -> (…, tokens)."""
        table = self._embeddings[0].weight if self.lm_head is None else self.lm_head.weight
        return nn.functional.linear(states, table)


class Writer(Classifier):
    """A body that reads a text, and a head that tells the tokens of another: no pooling, no classes."""

    head: Any

    def __init__(self, body: nn.Module, head: Decoder | TokenTable) -> None:
        nn.Module.__init__(self)  # and no classifier's, whose head and pooling it has not
        self.body, self.head = body, head
        self.has_decoder = isinstance(head, Decoder)
        self.modality, self.has_mask = "text", True

    def forward(self, inputs: Any, mask: Tensor) -> Tensor:
        """`Told`, and the mask of what is read, (batch, tokens) -> (batch, 2).

        Of each row the mean loss of the tokens that are told, the end among them, and the share told rightly.
        """
        states = self.body(input_ids=inputs.read, attention_mask=mask).last_hidden_state
        if self.has_decoder:
            states, told = self.head.decode(states, mask, inputs.told), inputs.told
        else:
            states, told = states[:, :-1], inputs.told[:, 1:]
        return told_by_row(self.head.score, states, told)

    def write(self, ids: Tensor, mask: Tensor, end: int, max_new_tokens: int) -> Tensor:
        """(batch, tokens) ids and mask -> (batch, up to max_new_tokens) ids; after a row's end token, that again."""
        if self.has_decoder:
            states = self.body(input_ids=ids, attention_mask=mask).last_hidden_state
            return self.head.write(states, mask, end, max_new_tokens)
        return self._go_on(*padded_left(ids, mask), end, max_new_tokens)

    def _go_on(self, ids: Tensor, mask: Tensor, end: int, max_new_tokens: int) -> Tensor:
        """What the body writes behind rows that are padded on the left, from what it keeps of earlier tokens."""
        from transformers import DynamicCache

        config: Any = self.body.config
        kept = DynamicCache(config=config)
        places = (mask.cumsum(1) - 1).clamp(min=0)
        is_done = torch.zeros_like(ids[:, :1], dtype=torch.bool)
        written: list[Tensor] = []
        while len(written) < max_new_tokens and not is_done.all():
            given = {"attention_mask": mask, "position_ids": places, "past_key_values": kept, "use_cache": True}
            states = self.body(input_ids=ids, **given).last_hidden_state
            ids = self.head.score(states[:, -1:]).argmax(-1).masked_fill(is_done, end)
            written.append(ids)
            is_done = is_done | (ids == end)
            mask, places = torch.cat([mask, torch.ones_like(ids)], dim=1), places[:, -1:] + 1
        return torch.cat(written, dim=1) if written else ids[:, :0]


def padded_left(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of ids that were padded on the right, and their mask, so that all end at the same place."""
    length = ids.shape[1]
    places = torch.arange(length, device=ids.device) - (length - mask.sum(1, keepdim=True))
    return ids.gather(1, places.clamp(min=0)), (places >= 0).long()


def write_texts(
    model: Writer,
    encoder: TextEncoder,
    rows: Sequence[Sequence[int]],
    max_new_tokens: int,
    on_progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """(rows, 1) texts, one for each row of ids; on_progress is told how many are done."""
    device = next(model.parameters()).device
    end = end_token(encoder)
    texts = np.full((len(rows), 1), "", dtype=object)
    done = 0
    model.eval()
    with torch.inference_mode():
        for length, indices in inference_batches(rows, BATCH_TOKENS, encoder.max_tokens):
            ids, mask = encoder.pad([rows[index] for index in indices], length)
            written = model.write(ids.to(device), mask.to(device), end, max_new_tokens).cpu().tolist()
            for index, row in zip(indices, written, strict=True):
                texts[index, 0] = text_of(encoder, row[: row.index(end)] if end in row else row)
            done += len(indices)
            if on_progress:
                on_progress(done)
    return texts


def text_of(encoder: TextEncoder, ids: Sequence[int]) -> str:
    """What ids say, without special tokens and white space around it."""
    text: str = encoder.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.strip()


def end_token(encoder: TextEncoder) -> int:
    """The token that ends a text. Raises ValueError if the tokenizer has none."""
    known = (encoder.tokenizer.eos_token_id, encoder.tokenizer.sep_token_id)
    found = next((token for token in known if token is not None), None)
    if found is None:
        raise ValueError("the tokenizer has no token that ends a text")
    return int(found)


def make_writer_encoder(folder: Path, config: ServingConfig) -> TextEncoder:
    """What makes prompts of texts, and ids of them. Where the body goes on writing, what is cut is their beginning."""
    architecture = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    return TextEncoder(folder, config.max_tokens, config.prompt, config.columns, architecture not in WITH_DECODER)


def make_writer(body: nn.Module, has_own_table: bool) -> Writer:
    """A writer whose head is yet to be loaded."""
    config: Any = body.config
    return Writer(body, (Decoder if config.model_type in WITH_DECODER else TokenTable)(body, has_own_table))


def load_head(body: nn.Module, folder: Path) -> tuple[Writer, dict[str, Any]]:
    """A writer with the head that the checkpoint in a folder has, and what its files lack or hold of it."""
    model: Any = body
    if model.config.model_type in WITH_DECODER:
        decoder, report = load_decoder(folder, body)
        return Writer(body, decoder), report
    table = read_tensors(folder, lambda name: name == OWN_TABLE).get(OWN_TABLE)
    if table is None or torch.equal(table, model.get_input_embeddings().weight.cpu()):
        return make_writer(body, has_own_table=False), NOTHING
    writer = make_writer(body, has_own_table=True)
    wanted = writer.head.lm_head.weight
    if table.shape != wanted.shape:
        return writer, NOTHING | {"mismatched_keys": {(OWN_TABLE, table.shape, wanted.shape)}}
    wanted.data.copy_(table)
    return writer, NOTHING
