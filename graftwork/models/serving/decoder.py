"""T5's decoder and its language head: from what the encoder makes of a text, the tokens of another.

Tokens are written from a first one that stands for nothing. Method: T5 (Raffel et al. 2020).
"""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .config import DECODER, OWN_TABLE, REPEATED
from .tensors import read_tensors

STACK = "stack."  # what names of its tensors begin with here, instead of DECODER


class Decoder(nn.Module):
    """Reads the encoder's states, and tells each token from those before it.

    body: the encoder, whose table of tokens it reads by; it stays the body's. has_own_table: it tells tokens by a table
    of its own (T5 1.1, Flan-T5); else by the body's.
    """

    def __init__(self, body: nn.Module, has_own_table: bool) -> None:
        super().__init__()
        from transformers.models.t5.modeling_t5 import T5Stack

        encoder: Any = body
        config = copy.deepcopy(encoder.config)
        config.is_decoder = config.is_encoder_decoder = True
        config.num_layers = config.num_decoder_layers
        self.config = config
        self.stack: Any = T5Stack(config)
        self.stack.embed_tokens = None
        self._embeddings = (encoder.get_input_embeddings(),)  # in a tuple, which modules are not looked for in
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False) if has_own_table else None
        first = getattr(config, "decoder_start_token_id", None)
        self.start = config.pad_token_id or 0 if first is None else first

    def forward(self, states: Tensor, mask: Tensor, told: Tensor) -> Tensor:
        """(batch, read, width) states, their mask, and the ids to tell, (batch, written) -> (batch, written, tokens).

        Each id is told from those before it. What pads the ids on the right changes nothing to the left of it.
        """
        return self.score(self.decode(states, mask, told))

    def decode(self, states: Tensor, mask: Tensor, told: Tensor) -> Tensor:
        """The same, but the states that tokens are told by: (batch, written, width)."""
        begin = told.new_full((len(told), 1), self.start)
        before = torch.cat([begin, told[:, :-1]], dim=1).clamp(min=0)  # padding of no token stands for any
        found: Tensor = self._decode(states, mask, before).last_hidden_state
        return found

    def write(self, states: Tensor, mask: Tensor, end: int, max_new_tokens: int) -> Tensor:
        """(batch, up to max_new_tokens) ids, the likeliest at each place; after a row's end token, that again.

        What was computed for earlier tokens is kept while it writes.
        """
        from transformers import DynamicCache, EncoderDecoderCache

        kept = EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache(config=self.config))
        last = torch.full((len(states), 1), self.start, device=states.device)
        is_done = torch.zeros_like(last, dtype=torch.bool)
        written: list[Tensor] = []
        while len(written) < max_new_tokens and not is_done.all():
            found = self._decode(states, mask, last, kept)
            last = self.score(found.last_hidden_state).argmax(-1).masked_fill(is_done, end)
            written.append(last)
            is_done = is_done | (last == end)
        return torch.cat(written, dim=1) if written else last[:, :0]

    def score(self, states: Tensor) -> Tensor:
        """(…, width) states -> (…, tokens) scores."""
        if self.config.scale_decoder_outputs:
            states = states * self.config.d_model**-0.5
        table = self._embeddings[0].weight if self.lm_head is None else self.lm_head.weight
        return nn.functional.linear(states, table)

    def _decode(self, states: Tensor, mask: Tensor, ids: Tensor, kept: Any = None) -> Any:
        return self.stack(
            inputs_embeds=self._embeddings[0](ids),
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            past_key_values=kept,
            use_cache=kept is not None,
        )


def load_decoder(folder: Path, body: nn.Module) -> tuple[Decoder, dict[str, Any]]:
    """The decoder of a checkpoint folder, whose encoder is the body, in float32; and what its files lack or hold.

    The latter in transformers' words: missing, unexpected and mismatched tensors.
    """
    found = _read_tensors(folder)
    encoder: Any = body
    table = found.get(OWN_TABLE)
    if table is not None and torch.equal(table, encoder.get_input_embeddings().weight.cpu()):
        del found[OWN_TABLE]  # some files hold the one table by all its names
    decoder = Decoder(body, has_own_table=OWN_TABLE in found)
    wanted = decoder.state_dict()
    fitting = {name: found[name] for name in wanted.keys() & found.keys() if found[name].shape == wanted[name].shape}
    decoder.load_state_dict(fitting, strict=False)
    return decoder, {
        "missing_keys": {_stored_name(name) for name in wanted.keys() - found.keys()},
        "unexpected_keys": {_stored_name(name) for name in found.keys() - wanted.keys()},
        "mismatched_keys": {
            (_stored_name(name), found[name].shape, wanted[name].shape)
            for name in (wanted.keys() & found.keys()) - fitting.keys()
        },
    }


def _stored_name(name: str) -> str:
    return name if name == OWN_TABLE else DECODER + name.removeprefix(STACK)


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """The decoder's tensors in float32, by the names that they have here."""
    found = read_tensors(folder, lambda name: name == OWN_TABLE or (name.startswith(DECODER) and name not in REPEATED))
    return {
        stored if stored == OWN_TABLE else STACK + stored.removeprefix(DECODER): tensor
        for stored, tensor in found.items()
    }
