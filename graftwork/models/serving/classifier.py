"""A pretrained body, the pooling of its states into one, and a head that tells classes."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .config import COSINE, TOWERS, UNPOOLED, WAVEFORM, WIDTHS, ServingConfig, find_width
from .own import make_own_body, read_own_config
from .text import TextEncoder

# What transformers gives a pooling layer of its own if nobody tells it not to.
POOLED = ("bert", "roberta", "ernie", "vit")
WITH_DECODER = ("t5",)
# Towers whose states are projected into the space that both share.
PROJECTED = {
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "clip_text_model": "CLIPTextModelWithProjection",
    "siglip_text_model": "SiglipTextModel",
}
# Towers that read a text with padding up to their last position, and without a mask: the last token tells of it all.
FILLED_UP = ("siglip_text_model",)
# What transformers calls what a body pools by itself.
POOLED_STATES = ("pooler_output", "image_embeds", "text_embeds")


class Classifier(nn.Module):
    """A transformers body, its states pooled into one, and a head on top."""

    def __init__(self, body: nn.Module, config: ServingConfig) -> None:
        super().__init__()
        self.body = body
        self.pool = Pooling(config.pooling, hidden_size(body))
        self.head = make_head(hidden_size(body), config)
        self.modality = config.modality
        sound = config.sound
        read: Any = body.config
        self.filled = read if getattr(read, "model_type", "") in FILLED_UP else None
        self.has_mask = sound is None or (sound.has_mask and sound.kind == WAVEFORM)

    def features(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """What the modality's rows are padded to, and their mask -> (batch, hidden) pooled states.

        (batch, tokens) ids; (batch, 3, side, side) pixels; (batch, samples) of sound, or (batch, frames, bins).
        """
        if self.filled is not None:
            inputs, mask = fill_up(inputs, mask, self.filled)
        given = self.body(**_inputs_of(self.modality, inputs, mask if self.has_mask else None))
        if self.pool.kind == "body":
            return next(state for name in POOLED_STATES if (state := getattr(given, name, None)) is not None).flatten(1)
        states = given.last_hidden_state
        if self.modality == "text":
            return self.pool(states, mask)
        if self.modality == "audio" and inputs.ndim == 2:
            return self.pool(states, frame_mask(self.body, mask, states.shape[1]))
        return self.pool(states, torch.ones(states.shape[:2], dtype=torch.long, device=states.device))

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """What `features` reads -> (batch, classes) logits."""
        return self.head(self.features(inputs, mask))


def _inputs_of(modality: str, inputs: Tensor, mask: Tensor | None) -> dict[str, Any]:
    """What the body is called with. mask: None where it takes none."""
    if modality == "image":
        return {"pixel_values": inputs}
    if modality == "text":
        return {"input_ids": inputs, "attention_mask": mask}
    return {"input_values": inputs} | ({} if mask is None else {"attention_mask": mask})


def fill_up(ids: Tensor, mask: Tensor, config: Any) -> tuple[Tensor, Tensor]:
    """(batch, tokens) ids and mask -> (batch, positions): padding, which is read as well, in all that are left."""
    padding = ids.new_full((ids.shape[0], config.max_position_embeddings), config.pad_token_id)
    whole = torch.cat([ids.masked_fill(mask == 0, config.pad_token_id), padding], 1)[:, : padding.shape[1]]
    return whole, torch.ones_like(whole)


def frame_mask(body: Any, mask: Tensor, frames: int) -> Tensor:
    """(batch, samples) -> (batch, frames): which states of a body that reads samples are of the recording."""
    if hasattr(body, "frame_mask"):
        return body.frame_mask(mask)
    lengths = body._get_feat_extract_output_lengths(mask.sum(1)).clamp(min=1)
    return (torch.arange(frames, device=mask.device) < lengths[:, None]).long()


class Pooling(nn.Module):
    """One state for a row's tokens: their `mean` or `max`, that of the first (`cls`) or the `last`, or by `attention`.

    The latter is their mean, weighed by how well they answer a query, which is learnt; at first all weigh the same.
    `body` leaves it to the body, which pools by itself; `none` leaves each token its own.
    Method: a learnt query (Yang et al. 2016), its answers scaled as by Vaswani et al. (2017).
    """

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "attention":
            self.query = nn.Parameter(torch.zeros(width))

    def forward(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, tokens, hidden) states and (batch, tokens) mask -> (batch, hidden), or the states as they are."""
        if self.kind == UNPOOLED:
            return states
        if self.kind == "cls":
            return states[:, 0]
        if self.kind == "last":
            last = attention_mask.sum(1, keepdim=True) - 1
            return states.gather(1, last.unsqueeze(-1).expand(-1, -1, states.shape[-1])).squeeze(1)
        mask = attention_mask.unsqueeze(-1)
        if self.kind == "max":
            return states.masked_fill(mask == 0, -torch.inf).amax(1)
        weights = mask.to(states.dtype)
        if self.kind == "attention":
            answers = (states * self.query).sum(-1, keepdim=True) / len(self.query) ** 0.5
            weights = answers.masked_fill(mask == 0, -torch.inf).softmax(1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)


def hidden_size(body: nn.Module) -> int:
    """The width of the body's last hidden state."""
    config: Any = body.config
    return find_width({name: getattr(config, name, None) for name in WIDTHS})


class Cosine(nn.Module):
    """Tells classes by the cosine of a state with the one that stands for each, which is learnt, as its scale is.

    scale: its logarithm. shift: the same for all classes; it is there so that logits are those of the model of two
    towers whose texts the states are of. A softmax does not see it, so that it is not learnt.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.out_features = outputs
        self.weight = nn.Parameter(torch.zeros(outputs, width))
        self.scale = nn.Parameter(torch.zeros(()))
        self.shift: Tensor
        self.register_buffer("shift", torch.zeros(()))

    def forward(self, states: Tensor) -> Tensor:
        """(batch, width) -> (batch, outputs)."""
        with torch.autocast(states.device.type, enabled=False):  # cosines differ by less than bfloat16 tells
            near = nn.functional.normalize(states.float(), dim=1) @ nn.functional.normalize(self.weight, dim=1).T
            return near * self.scale.exp() + self.shift


def make_head(width: int, config: ServingConfig) -> nn.Sequential:
    """Dropout and a linear layer, or cosines, after the hidden layers the recipe asks for."""
    if config.head == COSINE:
        return nn.Sequential(nn.Dropout(config.dropout), Cosine(width, len(config.classes)))
    layers: list[nn.Module] = []
    for size in config.hidden_layers:
        layers += [nn.Dropout(config.dropout), nn.Linear(width, size), nn.GELU()]
        width = size
    return nn.Sequential(*layers, nn.Dropout(config.dropout), nn.Linear(width, len(config.classes)))


def make_body(folder: Path, modality: str = "text", has_weights: bool = False) -> tuple[nn.Module, dict[str, Any]]:
    """The bare encoder that config.json describes, and transformers' report of what it loaded.

    modality: what it is to read, which tells the tower of two. has_weights: read the folder's weights too; the report
    then lists missing, unexpected and mismatched tensors.
    """
    own = read_own_config(folder)
    if own is not None:
        return make_own_body(folder, own, has_weights)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what was not loaded is returned, and judged by the caller

    config: Any = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    section, _ = TOWERS.get((config.model_type, modality), ("", ""))
    config = getattr(config, section) if section else config
    config.use_cache = False  # of what decoders would keep for the next token
    if config.model_type in FILLED_UP:
        config.pad_token_id = _padding_of(folder, config.pad_token_id)
    if hasattr(config, "layerdrop"):  # chance that comes from elsewhere, so that no step could be repeated
        config.apply_spec_augment, config.layerdrop = False, 0.0
    extra = {"add_pooling_layer": False} if config.model_type in POOLED else {}
    kind = getattr(transformers, _class_of(config.model_type))
    if not has_weights:
        make = kind if config.model_type in PROJECTED else partial(kind.from_config, dtype=torch.float32)
        return _encoder_of(make(config, **extra)), {}
    model, report = kind.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are in the report then, each by its name
        **extra,
    )
    return _encoder_of(model), report


def _padding_of(folder: Path, stated: int | None) -> int:
    """The token that its tokenizer pads with: config.json need not say it, as SigLIP 2's does not."""
    known = (TextEncoder(folder, 1).tokenizer.pad_token_id, stated)
    return next((token for token in known if token is not None), 0)


def _class_of(architecture: str) -> str:
    """What of transformers makes such models."""
    usual = "AutoModelForTextEncoding" if architecture in WITH_DECODER else "AutoModel"
    return PROJECTED.get(architecture, usual)


def _encoder_of(model: Any) -> nn.Module:
    """The part that reads, of a model that could write, too."""
    return model.encoder if model.config.model_type in WITH_DECODER else model
