"""An untouched checkpoint: inputs in, pooled vectors out, each computed once and kept by the prefix cache."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from graftwork.models.prefix_cache import PrefixCache, arithmetic_of
from graftwork.models.serving.classifier import Classifier
from graftwork.models.serving.config import Input, PixelConfig, ServingConfig, SoundConfig
from graftwork.models.serving.inference import autocast, infer, pick_device
from graftwork.models.serving.model import Encoder, make_encoder
from graftwork.models.serving.words import UNREAD, first_pieces
from graftwork.models.text import load_body
from graftwork.storage import Store

TIMED_ROWS, WARM_ROWS = 256, 16


@dataclass(frozen=True)
class FrozenModel:
    """A loaded checkpoint. model: its head has no meaning."""

    model: Classifier
    encoder: Encoder
    cache: PrefixCache

    def vectors(self, inputs: Sequence[Input], on_progress: Callable[[int, int], None]) -> np.ndarray:
        """(inputs, width) float32; on_progress is told how many of how many had to be computed so far."""
        rows = self.cache.vectors(self.model, self.encoder, self.encoder.encode(inputs), on_progress)
        return torch.cat(rows).numpy()

    def word_states(
        self, texts: Sequence[str], on_progress: Callable[[int, int], None]
    ) -> tuple[np.ndarray, np.ndarray]:
        """(words, width) float32, the state of each word's first token, and which words have one, (words,)."""
        rows = self.cache.activations(self.model.body, self.encoder, self.encoder.encode(texts), on_progress)
        pieces = first_pieces(self.encoder, texts)
        states = [row[torch.from_numpy(places)].float() for row, places in zip(rows, pieces, strict=True)]
        return torch.cat(states).numpy(), np.concatenate(pieces) != UNREAD

    def time_row(self, inputs: Sequence[Input]) -> float:
        """Seconds that the vector of an input takes, measured on a part of them; nothing is taken from the cache."""
        rows = self.encoder.encode(inputs[:: -(-len(inputs) // TIMED_ROWS)])
        with autocast(next(self.model.parameters()).device, self.cache.arithmetic.precision):
            infer(self.model, self.model.features, self.encoder, rows[:WARM_ROWS])
            started = time.perf_counter()
            infer(self.model, self.model.features, self.encoder, rows)
        return (time.perf_counter() - started) / len(rows)


def load_frozen(
    folder: Path,
    *,
    pooling: str,
    max_tokens: int,
    precision: str,
    store: Store,
    cache_bytes: int,
    pixels: PixelConfig | None = None,
    sound: SoundConfig | None = None,
) -> FrozenModel:
    """The checkpoint in a verified folder, its vectors kept in the store. Raises CheckpointError if it is not whole.

    Where pooling is by attention the mean is taken: that is what it is until it has learnt something.
    """
    known = "mean" if pooling == "attention" else pooling
    config = ServingConfig(("-",), ("-",), known, max_tokens, pixels=pixels, sound=sound)
    model = Classifier(load_body(folder, config.modality), config).to(pick_device())
    cache = PrefixCache(store, cache_bytes, arithmetic_of(model, precision))
    return FrozenModel(model, make_encoder(folder, config), cache)
