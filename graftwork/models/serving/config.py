"""What of a bundle is no weight: `serving.json`."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, SupportsBytes

Text = str | tuple[str, str]
Input = Text | SupportsBytes  # the latter gives an encoded picture or sound
Edge = int | tuple[int, int] | None
FORMAT = 1
WEIGHTS = "model.safetensors"
CONFIG = "serving.json"
TOKEN_SIDE = 16
TOKENS_PER_SECOND = 50  # of sound
WAVEFORM, SPECTROGRAM = "waveform", "spectrogram"
# Models of two towers, by what config.json calls them and what is read: its section for the tower, and what that is.
TOWERS = {
    ("clip", "image"): ("vision_config", "clip_vision_model"),
    ("clip", "text"): ("text_config", "clip_text_model"),
    ("siglip", "image"): ("vision_config", "siglip_vision_model"),
    ("siglip", "text"): ("text_config", "siglip_text_model"),
}
LAYERS, COSINE = "layers", "cosine"  # heads: of linear layers, or telling classes by how near they are
CLASSIFICATION = "classification"  # what earlier folders hold, which don't say
GENERATION, TOKENS = "generation", "token-classification"
UNPOOLED = "none"  # in the place of a pooling, where each token keeps its state
# What files call what writes: T5's decoder, and a table that tokens are told by and not read by; and what they hold of
# the decoder that it has no use for: the encoder's table of tokens again, and a table that was never used.
DECODER, OWN_TABLE = "decoder.", "lm_head.weight"
REPEATED = ("decoder.embed_tokens.weight", "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight")
# What config.json calls the width of the last state, architecture by architecture.
WIDTHS = ("projection_dim", "projection_size", "hidden_size", "dim", "n_embd", "d_model", "hidden_sizes", "hidden_dim")


@dataclass(frozen=True)
class PixelConfig:
    """How a picture becomes (3, side, side) numbers.

    edge: what its shorter edge becomes before the middle is cut out, or what its width and height become, whatever its
    proportions; None where both become `side`. mean, std: of each colour, taken from values between 0 and 1.
    """

    side: int
    edge: Edge
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def tokens(self) -> int:
        """What a picture counts in a batch: one for each square of TOKEN_SIDE pixels."""
        return math.ceil(self.side / TOKEN_SIDE) ** 2


@dataclass(frozen=True)
class SoundConfig:
    """What is read of a recording, at which rate (Hz).

    max_samples: what is longer is cut to its middle. kind: the samples themselves, or a spectrogram. is_normalized: the
    samples of each recording get a mean of 0 and a variance of 1. has_mask: the body is to be told which samples are
    padding; without, it was made to read zeros there. bins, frames, mean, std: of a spectrogram, how many frequency
    bands by how many steps of time, and what its numbers are brought to 0 and 0.5 by.
    """

    rate: int
    max_samples: int
    kind: str = WAVEFORM
    is_normalized: bool = True
    has_mask: bool = True
    bins: int = 0
    frames: int = 0
    mean: float = 0.0
    std: float = 0.5

    @property
    def token_samples(self) -> int:
        """The samples that count as one token in a batch: those of 20 ms, as many as Wav2Vec2 makes one state of."""
        return self.rate // TOKENS_PER_SECOND

    @property
    def tokens(self) -> int:
        """What the longest recording counts in a batch."""
        return -(-self.max_samples // self.token_samples)

    def tokens_of(self, samples: int) -> int:
        """What a recording of so many samples counts; a spectrogram has one size."""
        longest = self.max_samples if self.kind == SPECTROGRAM else min(samples, self.max_samples)
        return -(-longest // self.token_samples)


MediaConfig = PixelConfig | SoundConfig


@dataclass(frozen=True)
class ServingConfig:
    """What turns inputs into values, beside the weights. pixels, sound: None where the other is read.

    classes: of a model that gives a number or a text, one name for it. target: what it gives, as in OUTPUTS. scale:
    mean and standard deviation that its numbers are learnt in. separator: between the classes that it tells. writes:
    the most tokens of a text that it writes. prompt: what it reads then, with the columns in braces. head: COSINE, or
    None for layers.
    """

    classes: tuple[str, ...]
    columns: tuple[str, ...]
    pooling: str
    max_tokens: int
    hidden_layers: tuple[int, ...] = ()
    dropout: float = 0.0
    pixels: PixelConfig | None = None
    sound: SoundConfig | None = None
    target: str = CLASSIFICATION
    scale: tuple[float, ...] | None = None
    separator: str | None = None
    writes: int | None = None
    prompt: str | None = None
    head: str | None = None

    @property
    def modality(self) -> str:
        """What it reads: text, image or audio."""
        return "image" if self.pixels is not None else "text" if self.sound is None else "audio"

    def write(self, folder: Path) -> None:
        facts = {name: value for name, value in asdict(self).items() if value is not None}
        if self.target == CLASSIFICATION:
            del facts["target"]
        text = json.dumps({"format": FORMAT} | facts, indent=1, ensure_ascii=False)
        (folder / CONFIG).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "ServingConfig":
        """Raises ValueError if the folder was written in another format."""
        fields: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if fields.pop("format", None) != FORMAT:
            raise ValueError(f"{folder / CONFIG}: expected serving format {FORMAT}")
        pixels, sound = fields.pop("pixels", None), fields.pop("sound", None)
        return cls(
            **_with_tuples(fields),
            pixels=pixels and PixelConfig(**_with_tuples(pixels)),
            sound=sound and SoundConfig(**sound),
        )


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def find_width(config: Mapping[str, Any]) -> int:
    """The width of the last hidden state that a config.json tells; of several stages, that of the last."""
    width = next(config[name] for name in WIDTHS if config.get(name))
    return int(width[-1] if isinstance(width, list | tuple) else width)
