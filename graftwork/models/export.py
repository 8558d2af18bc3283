"""A served model as an ONNX graph, for runtimes without torch: token ids or pixels in, probabilities or numbers out.

Of a model that tags words the probabilities are of each token, (rows, tokens, tags).

It takes any batch and any length. The graph is compared with the model it was made from before anybody is given it.
onnx and onnxruntime are imported when they are needed: `pip install 'graftwork[export]'`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graftwork.errors import GraftworkError, Problem, RecipeError, RegistryError
from graftwork.models.serving.config import TOKENS, Input, ServingConfig
from graftwork.models.serving.inference import BATCH_TOKENS, inference_batches
from graftwork.models.serving.model import ServingModel
from graftwork.models.serving.outputs import values_of

GRAPH = "model.onnx"
NAMES = {
    "text": ("input_ids", "attention_mask"),
    "image": ("pixel_values",),
    "audio": ("input_values", "attention_mask"),
}
PROBABILITIES, NUMBERS = "probabilities", "numbers"
# Of a probability, or of a number in standard deviations. Kernels of another runtime round otherwise; what goes wrong
# in an export is off by far more.
TOLERANCE = 1e-4
EAGER = ("t5",)  # with torch's attention it can't be traced
ONE_FILE_BYTES = 1 << 30  # a graph of 2 GiB can't be written; larger weights lie beside it
SAMPLE = (2, 8)  # rows and tokens that the graph is traced with


class Values(nn.Module):
    """A model with what turns its head's outputs into probabilities, or into numbers in the label's own unit."""

    def __init__(self, served: ServingModel) -> None:
        super().__init__()
        self.model, self.config = served.model, served.config

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        return values_of(self.model(inputs, mask), self.config)


def export_onnx(served: ServingModel, inputs: Sequence[Input], path: Path) -> float:
    """Write the graph of a model that lies on the CPU; the largest difference of a value from the model's own.

    inputs: that both are given. Raises RecipeError where the exporter is not installed, RegistryError if it fails,
    or if the graph gives something else.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it, and says so less plainly
    except ImportError as error:
        raise RecipeError(Problem(f"{error.name} is not installed", hint="pip install 'graftwork[export]'")) from error
    expected = _expected(served, inputs)
    try:
        _trace(served, path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = _run(session, served, inputs)
    except (OSError, GraftworkError):
        raise
    except Exception as error:
        problem = f"{served.model.body.config.model_type} can't be exported: {type(error).__name__}"
        raise RegistryError(Problem(problem, str(path))) from error
    difference = float(abs(found - expected).max()) / (served.config.scale or (0, 1))[1]
    if not difference <= TOLERANCE:
        problem = f"the graph differs by {difference:.2g} from the model, {TOLERANCE:g} is tolerated"
        raise RegistryError(Problem(problem, str(path)))
    return difference


def _expected(served: ServingModel, inputs: Sequence[Input]) -> np.ndarray:
    """(2 x inputs, classes), or where words have tags (2 x inputs, tokens of the longest, tags), 0 behind a text."""
    if served.target != TOKENS:
        return np.tile(served.probabilities(inputs), (2, 1))
    lengths = [len(row) for row in served.encoder.encode(inputs)]
    return np.tile(_stack(served.token_values(inputs), lengths), (2, 1, 1))


def _stack(values: Sequence[np.ndarray], lengths: Sequence[int]) -> np.ndarray:
    """(texts, tokens of the longest, tags) of each text's (tokens, tags), what padding gives left out."""
    stacked = np.zeros((len(values), max(lengths), values[0].shape[1]))
    for row, each, length in zip(stacked, values, lengths, strict=True):
        row[:length] = each[:length]
    return stacked


def _trace(served: ServingModel, path: Path) -> None:
    size = sum(parameter.nbytes for parameter in served.model.parameters())
    body: Any = served.model.body
    if body.config.model_type in EAGER:
        body.set_attn_implementation("eager")
    given, lengths = _sample_of(served.config)
    axes = {0: torch.export.Dim("batch")} | ({1: torch.export.Dim("length", **lengths)} if len(given) > 1 else {})
    torch.onnx.export(
        Values(served).eval(),
        given,
        path,
        input_names=NAMES[served.modality][: len(given)],
        output_names=[_output(served)],
        dynamic_shapes=(axes,) * len(given),
        dynamo=True,
        external_data=size > ONE_FILE_BYTES,
        verbose=False,
    )


def _sample_of(config: ServingConfig) -> tuple[tuple[Tensor, ...], dict[str, int]]:
    """What the graph is traced with, and the least length where any is taken."""
    rows, tokens = SAMPLE
    if config.pixels is not None:
        return (torch.zeros(rows, 3, config.pixels.side, config.pixels.side),), {}
    sound = config.sound
    if sound is None:
        ids = torch.ones(SAMPLE, dtype=torch.int64)
        return (ids, torch.ones_like(ids)), {}
    if sound.kind == "spectrogram":
        return (torch.zeros(rows, sound.frames, sound.bins),), {}
    samples = torch.zeros(rows, tokens * sound.token_samples)
    return (samples, torch.ones_like(samples, dtype=torch.int64)), {"min": 2 * sound.token_samples}


def _run(session: Any, served: ServingModel, inputs: Sequence[Input]) -> np.ndarray:
    """As `_expected`: each by itself, then in batches.

    Texts are padded to the longest of a batch. Some models of sounds hear how long the silence is that fills a row up,
    so those are padded as `infer` pads them.
    """
    rows, most = served.encoder.encode(inputs), served.encoder.max_tokens
    everything = list(range(len(rows)))
    if served.modality == "audio":
        batches = list(inference_batches(rows, BATCH_TOKENS, most))
        singles = [(length, [row]) for length, indices in batches for row in indices]
    else:
        batches = [(max(map(len, rows)), everything)]
        singles = [(len(rows[row]), [row]) for row in everything]
    found: list[list[Any]] = [[None] * len(rows), [None] * len(rows)]
    known = [each.name for each in session.get_inputs()]
    for part, (length, indices) in [(0, each) for each in singles] + [(1, each) for each in batches]:
        tensors = served.encoder.pad([rows[row] for row in indices], length)
        given = {name: tensor.numpy() for name, tensor in zip(known, tensors, strict=False)}
        (values,) = session.run([_output(served)], given)
        for index, each in zip(indices, values, strict=True):
            found[part][index] = each
    both = [each for part in found for each in part]
    return _stack(both, [len(row) for row in rows] * 2) if served.target == TOKENS else np.array(both, dtype=np.float64)


def _output(served: ServingModel) -> str:
    return PROBABILITIES if served.config.scale is None else NUMBERS
