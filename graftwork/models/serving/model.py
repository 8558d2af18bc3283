"""A loaded bundle."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from .classifier import Classifier, make_body
from .config import GENERATION, OWN_TABLE, TOKENS, WEIGHTS, Input, ServingConfig
from .inference import autocast, infer, infer_each, pick_device
from .outputs import tell, values_of
from .text import TextEncoder
from .words import first_pieces, tell_words, word_values
from .writer import Writer, make_writer, make_writer_encoder, write_texts


class Encoder(Protocol):
    """Makes rows of inputs, and batches of rows. A row's length is what it counts in a batch.

    max_tokens: no row is longer. facts: what decides, beside a row's own content, what the body is given of it.
    """

    max_tokens: int

    @property
    def facts(self) -> dict[str, Any]: ...
    def encode(self, inputs: Sequence[Any]) -> Sequence[Any]: ...
    def content(self, row: Any) -> bytes: ...
    def pad(self, rows: Sequence[Any], length: int) -> tuple[Tensor, Tensor]: ...


def make_encoder(folder: Path, config: ServingConfig) -> Encoder:
    """What makes rows of what the model reads: texts, by the folder's tokenizer, pictures, or sounds."""
    if config.pixels is not None:
        from .images import ImageEncoder  # here alone: it needs Pillow

        return ImageEncoder(config.pixels)
    if config.sound is not None:
        from .sounds import SoundEncoder  # here alone: it needs soundfile and soxr

        return SoundEncoder(config.sound)
    return (
        make_writer_encoder(folder, config) if config.target == GENERATION else TextEncoder(folder, config.max_tokens)
    )


@dataclass(frozen=True)
class ServingModel:
    """A loaded bundle: inputs in, values out. precision: the dtype that layers multiply in."""

    model: Classifier
    encoder: Encoder
    config: ServingConfig
    device: torch.device
    precision: str = "float32"

    @property
    def classes(self) -> tuple[str, ...]:
        return self.config.classes

    @property
    def target(self) -> str:
        """What its values are, as in OUTPUTS."""
        return self.config.target

    @property
    def columns(self) -> tuple[str, ...]:
        """The input columns: one of texts, pictures or sounds, or two of pairs of texts."""
        return self.config.columns

    @property
    def modality(self) -> str:
        """What its inputs are: text, image or audio, the latter two as encoded files."""
        return self.config.modality

    def probabilities(self, inputs: Sequence[Input], on_progress: Callable[[int], None] | None = None) -> np.ndarray:
        """(inputs, classes) float64 probabilities, or (inputs, 1) numbers or texts; on_progress: how many are done.

        Where words have tags, (words, tags) of all inputs' words in their order; of a word that is not read 0.
        """
        if isinstance(self.model, Writer):
            return self._write(inputs, on_progress)
        if self.target == TOKENS:
            return word_values(self.token_values(inputs, on_progress), first_pieces(self.encoder, inputs), self.classes)
        with autocast(self.device, self.precision):
            logits = infer(
                self.model, self.model.forward, self.encoder, self.encoder.encode(inputs), on_progress=on_progress
            )
        return values_of(logits.double(), self.config).numpy()

    def token_values(
        self, inputs: Sequence[Input], on_progress: Callable[[int], None] | None = None
    ) -> list[np.ndarray]:
        """Of each text (tokens, tags) probabilities, padding among the tokens, of a model that tags words."""
        with autocast(self.device, self.precision):
            rows = self.encoder.encode(inputs)
            logits = infer_each(self.model, self.model.forward, self.encoder, rows, on_progress=on_progress)
        return [values_of(each.double(), self.config).numpy() for each in logits]

    def _write(self, inputs: Sequence[Input], on_progress: Callable[[int], None] | None) -> np.ndarray:
        encoder: Any = self.encoder
        with autocast(self.device, self.precision):
            return write_texts(self.model, encoder, encoder.encode(inputs), self.config.writes or 1, on_progress)

    def answer(self, inputs: Sequence[Input], on_progress: Callable[[int], None] | None = None) -> dict[str, Any]:
        """Columns by name, a value for each input: what is told, and how sure it is."""
        values = self.probabilities(inputs, on_progress)
        if self.target == TOKENS:
            return tell_words([str(text) for text in inputs], values, self.classes)
        return self.table(values.reshape(len(inputs), len(self.classes)))

    def table(self, values: np.ndarray) -> dict[str, Any]:
        """Columns by name for what `probabilities` gave: what is told, and the probability of each class."""
        return tell(self.target, self.classes, values, self.config.separator)

    def features(self, inputs: Sequence[Input]) -> np.ndarray:
        """(inputs, hidden) float32 pooled states of the body."""
        return infer(self.model, self.model.features, self.encoder, self.encoder.encode(inputs)).numpy()


def load(folder: Path | str, device: str = "auto", precision: str = "float32") -> ServingModel:
    """The model of a bundle folder, ready to predict.

    precision: float32, as it was judged, or bfloat16, which is quicker where the processor multiplies it natively.
    Raises ValueError for an unknown format and RuntimeError if a tensor is missing, unexpected or of another shape.
    """
    folder = Path(folder)
    config = ServingConfig.read(folder)
    body, _ = make_body(folder, config.modality)
    weights = load_file(folder / WEIGHTS)
    is_writer = config.target == GENERATION
    model = make_writer(body, f"head.{OWN_TABLE}" in weights) if is_writer else Classifier(body, config)
    model.load_state_dict(weights, strict=True)
    place = pick_device(device)
    return ServingModel(model.to(place).eval(), make_encoder(folder, config), config, place, precision)
