"""What of a bundle is no weight: `serving.json`."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, SupportsBytes

Text = str | tuple[str, str]
Input = Text | SupportsBytes  # the latter gives an encoded picture
FORMAT = 1
WEIGHTS = "model.safetensors"
CONFIG = "serving.json"
TOKEN_SIDE = 16
CLASSIFICATION = "classification"  # what earlier folders hold, which don't say
# What config.json calls the width of the last state, architecture by architecture.
WIDTHS = ("hidden_size", "dim", "n_embd", "d_model", "hidden_sizes", "hidden_dim")


@dataclass(frozen=True)
class PixelConfig:
    """How a picture becomes (3, side, side) numbers.

    edge: what its shorter edge becomes before the middle is cut out; None where both its edges become `side`, whatever
    its proportions. mean, std: of each colour, taken from values between 0 and 1.
    """

    side: int
    edge: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def tokens(self) -> int:
        """What a picture counts in a batch: one for each square of TOKEN_SIDE pixels."""
        return math.ceil(self.side / TOKEN_SIDE) ** 2


@dataclass(frozen=True)
class ServingConfig:
    """What turns inputs into values, beside the weights. pixels: None where texts are read.

    classes: of a model that gives a number, one name for it. target: what it gives, as in OUTPUTS. scale: mean and
    standard deviation that its numbers are learnt in. separator: between the classes that it tells.
    """

    classes: tuple[str, ...]
    columns: tuple[str, ...]
    pooling: str
    max_tokens: int
    hidden_layers: tuple[int, ...] = ()
    dropout: float = 0.0
    pixels: PixelConfig | None = None
    target: str = CLASSIFICATION
    scale: tuple[float, ...] | None = None
    separator: str | None = None

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
        pixels = fields.pop("pixels", None)
        values = _with_tuples(fields) | {"pixels": pixels and PixelConfig(**_with_tuples(pixels))}
        return cls(**values)


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def find_width(config: Mapping[str, Any]) -> int:
    """The width of the last hidden state that a config.json tells; of several stages, that of the last."""
    width = next(config[name] for name in WIDTHS if config.get(name))
    return int(width[-1] if isinstance(width, list | tuple) else width)
