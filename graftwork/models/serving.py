"""The classifier that is trained, judged and served: one file, which travels inside every serving bundle.

It imports nothing of the rest of the package, so that a bundle can be loaded where only torch, transformers,
safetensors and numpy are installed. A folder that `load` reads holds `serving.json` (classes, pooling, lengths, head),
`config.json` and the tokenizer's files as transformers writes them, and `model.safetensors`.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

FORMAT = 1
WEIGHTS = "model.safetensors"
CONFIG = "serving.json"
BATCH_TOKENS = 4096
# What transformers gives a pooling layer of its own if nobody tells it not to.
POOLED = ("bert", "roberta", "ernie")
WITH_DECODER = ("t5",)
# Rows are padded to one of these lengths and batched with rows of the same: little padding, and few shapes to plan for.
LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)

Text = str | tuple[str, str]


@dataclass(frozen=True)
class ServingConfig:
    """What turns texts into class probabilities, beside the weights."""

    classes: tuple[str, ...]
    columns: tuple[str, ...]
    pooling: str
    max_tokens: int
    hidden_layers: tuple[int, ...] = ()
    dropout: float = 0.0

    def write(self, folder: Path) -> None:
        text = json.dumps({"format": FORMAT} | asdict(self), indent=1, ensure_ascii=False)
        (folder / CONFIG).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "ServingConfig":
        """Raises ValueError if the folder was written in another format."""
        fields: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if fields.pop("format", None) != FORMAT:
            raise ValueError(f"{folder / CONFIG}: expected serving format {FORMAT}")
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
        return cls(**values)


class TextClassifier(nn.Module):
    """A transformers encoder, pooled over its tokens, and a head on top."""

    def __init__(self, body: nn.Module, config: ServingConfig) -> None:
        super().__init__()
        self.body = body
        self.pool = Pooling(config.pooling, hidden_size(body))
        self.head = make_head(hidden_size(body), config)

    def features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, tokens) ids and mask -> (batch, hidden) pooled states."""
        states = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.pool(states, attention_mask)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, tokens) ids and mask -> (batch, classes) logits."""
        return self.head(self.features(input_ids, attention_mask))


class Pooling(nn.Module):
    """One state for a row's tokens: their `mean` or `max`, that of the first (`cls`) or the `last`, or by `attention`.

    That is their mean, weighed by how well they answer a query, which is learnt; at first all weigh the same.
    Method: a learnt query (Yang et al. 2016), its answers scaled as by Vaswani et al. (2017).
    """

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "attention":
            self.query = nn.Parameter(torch.zeros(width))

    def forward(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, tokens, hidden) states and (batch, tokens) mask -> (batch, hidden)."""
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
    """The width of the encoder's last hidden state."""
    config: Any = body.config
    return int(config.hidden_size)


def make_head(width: int, config: ServingConfig) -> nn.Sequential:
    """Dropout and a linear layer, after the hidden layers the recipe asks for."""
    layers: list[nn.Module] = []
    for size in config.hidden_layers:
        layers += [nn.Dropout(config.dropout), nn.Linear(width, size), nn.GELU()]
        width = size
    return nn.Sequential(*layers, nn.Dropout(config.dropout), nn.Linear(width, len(config.classes)))


def make_body(folder: Path, has_weights: bool = False) -> tuple[nn.Module, dict[str, Any]]:
    """The bare encoder that config.json describes, and transformers' report of what it loaded.

    has_weights: read the folder's weights too; the report then lists missing, unexpected and mismatched tensors.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what was not loaded is returned, and judged by the caller

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    config.use_cache = False  # of what decoders would keep for the next token
    extra = {"add_pooling_layer": False} if config.model_type in POOLED else {}
    kind = AutoModelForTextEncoding if config.model_type in WITH_DECODER else AutoModel
    if not has_weights:
        return _encoder_of(kind.from_config(config, dtype=torch.float32, **extra)), {}
    model, report = kind.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
        **extra,
    )
    return _encoder_of(model), report


def _encoder_of(model: Any) -> nn.Module:
    """The part that reads, of a model that could write, too."""
    return model.encoder if model.config.model_type in WITH_DECODER else model


class TextEncoder:
    """Texts to token ids, with the checkpoint's own tokenizer."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        self.max_tokens = max_tokens

    def encode(self, texts: Sequence[Text]) -> list[list[int]]:
        """The ids of each text or pair, cut to `max_tokens`, special tokens included; at least one."""
        rows = self.tokenize(texts)["input_ids"] if texts else []
        return [row or [self.filler] for row in rows]

    @property
    def filler(self) -> int:
        """The token that pads, and stands for a text that has none: one that means nothing, if there is one."""
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        return int(next((token for token in known if token is not None), 0))

    def tokenize(self, texts: Sequence[Text]) -> Any:
        """What the tokenizer says of these texts or pairs, of which there is at least one."""
        pairs = [text if isinstance(text, tuple) else (text, None) for text in texts]
        firsts, seconds = zip(*pairs, strict=True)
        second = None if seconds[0] is None else list(seconds)
        return self.tokenizer(list(firsts), second, truncation=True, max_length=self.max_tokens)

    def pad(self, rows: Sequence[Sequence[int]], length: int) -> tuple[Tensor, Tensor]:
        """Ids and attention mask, both (rows, length)."""
        ids = torch.full((len(rows), length), self.filler)
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        return ids, mask


def canonical_length(tokens: int) -> int:
    """The shortest of LENGTHS that holds so many tokens; beyond the last, the next multiple of it."""
    return next((length for length in LENGTHS if tokens <= length), -(-tokens // LENGTHS[-1]) * LENGTHS[-1])


def inference_batches(rows: Sequence[Any], batch_tokens: int, max_tokens: int) -> Iterator[tuple[int, list[int]]]:
    """Canonical length and row indices of each batch, long rows first so that memory peaks at once.

    max_tokens: no row is longer, and none is padded beyond it, where the model may have no positions.
    """
    by_length: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        by_length.setdefault(min(canonical_length(len(row)), max_tokens), []).append(index)
    for length in sorted(by_length, reverse=True):
        size = max(1, batch_tokens // length)
        indices = by_length[length]
        for start in range(0, len(indices), size):
            yield length, indices[start : start + size]


@dataclass(frozen=True)
class ServingModel:
    """A loaded bundle: texts in, probabilities out. precision: the dtype that layers multiply in."""

    model: TextClassifier
    encoder: TextEncoder
    config: ServingConfig
    device: torch.device
    precision: str = "float32"

    @property
    def classes(self) -> tuple[str, ...]:
        return self.config.classes

    @property
    def columns(self) -> tuple[str, ...]:
        """The input columns: one of texts, or two of pairs."""
        return self.config.columns

    def probabilities(self, texts: Sequence[Text], on_progress: Callable[[int], None] | None = None) -> np.ndarray:
        """(texts, classes) float64 probabilities; on_progress is told how many rows are done."""
        with autocast(self.device, self.precision):
            logits = infer(
                self.model, self.model.forward, self.encoder, self.encoder.encode(texts), on_progress=on_progress
            )
        return torch.softmax(logits.double(), dim=-1).numpy()

    def features(self, texts: Sequence[Text]) -> np.ndarray:
        """(texts, hidden) float32 pooled states of the body."""
        return infer(self.model, self.model.features, self.encoder, self.encoder.encode(texts)).numpy()


def infer(
    model: TextClassifier,
    forward: Callable[[Tensor, Tensor], Tensor],
    encoder: Any,
    rows: Sequence[Any],
    batch_tokens: int = BATCH_TOKENS,
    on_progress: Callable[[int], None] | None = None,
) -> Tensor:
    """What `forward` gives for each row, in order, float32 on the CPU; leaves the model in eval mode.

    encoder, rows: token ids and the TextEncoder of their making, or whatever else `encoder.pad` makes a batch of.
    """
    model.eval()
    device = next(model.parameters()).device
    results: list[Tensor] = [torch.empty(0)] * len(rows)
    done = 0
    with torch.inference_mode():
        for length, indices in inference_batches(rows, batch_tokens, encoder.max_tokens):
            ids, mask = encoder.pad([rows[index] for index in indices], length)
            for index, result in zip(indices, forward(ids.to(device), mask.to(device)).float().cpu(), strict=True):
                results[index] = result
            done += len(indices)
            if on_progress:
                on_progress(done)
    return torch.stack(results) if results else torch.empty(0)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Where computing is done in `precision`, a name of a torch dtype; weights stay float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def pick_device(name: str = "auto") -> torch.device:
    """The named device, or the first accelerator this torch can use, or the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load(folder: Path | str, device: str = "auto", precision: str = "float32") -> ServingModel:
    """The model of a bundle folder, ready to predict.

    precision: float32, as it was judged, or bfloat16, which is quicker where the processor multiplies it natively.
    Raises ValueError for an unknown format and RuntimeError if a tensor is missing, unexpected or of another shape.
    """
    folder = Path(folder)
    config = ServingConfig.read(folder)
    body, _ = make_body(folder)
    model = TextClassifier(body, config)
    model.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    place = pick_device(device)
    return ServingModel(model.to(place).eval(), TextEncoder(folder, config.max_tokens), config, place, precision)
