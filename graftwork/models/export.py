"""A served model as an ONNX graph, for runtimes without torch: token ids or pixels in, probabilities or numbers out.

It takes any batch and any length. The graph is compared with the model it was made from before anybody is given it.
onnx and onnxruntime are imported when they are needed: `pip install 'graftwork[export]'`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graftwork.errors import Problem, RecipeError, RegistryError
from graftwork.models.serving.config import Input
from graftwork.models.serving.model import ServingModel
from graftwork.models.serving.outputs import values_of

GRAPH = "model.onnx"
OF_TEXTS, OF_PICTURES = ("input_ids", "attention_mask"), ("pixel_values",)
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
    expected = np.tile(served.probabilities(inputs), (2, 1))
    try:
        _trace(served, path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = np.concatenate([_run(session, served, [each]) for each in inputs] + [_run(session, served, inputs)])
    except OSError:
        raise
    except Exception as error:
        problem = f"{served.model.body.config.model_type} can't be exported: {type(error).__name__}"
        raise RegistryError(Problem(problem, str(path))) from error
    difference = float(abs(found - expected).max()) / (served.config.scale or (0, 1))[1]
    if not difference <= TOLERANCE:
        problem = f"the graph differs by {difference:.2g} from the model, {TOLERANCE:g} is tolerated"
        raise RegistryError(Problem(problem, str(path)))
    return difference


def _trace(served: ServingModel, path: Path) -> None:
    size = sum(parameter.nbytes for parameter in served.model.parameters())
    body: Any = served.model.body
    if body.config.model_type in EAGER:
        body.set_attn_implementation("eager")
    batch, pixels = torch.export.Dim("batch"), served.config.pixels
    if pixels is None:
        ids = torch.ones(SAMPLE, dtype=torch.int64)
        given: tuple[Tensor, ...] = (ids, torch.ones_like(ids))
        names: tuple[str, ...] = OF_TEXTS
        axes = {0: batch, 1: torch.export.Dim("tokens")}
    else:
        given, names, axes = (torch.zeros(SAMPLE[0], 3, pixels.side, pixels.side),), OF_PICTURES, {0: batch}
    torch.onnx.export(
        Values(served).eval(),
        given,
        path,
        input_names=names,
        output_names=[_output(served)],
        dynamic_shapes=(axes,) * len(given),
        dynamo=True,
        external_data=size > ONE_FILE_BYTES,
        verbose=False,
    )


def _run(session: Any, served: ServingModel, inputs: Sequence[Input]) -> np.ndarray:
    """(inputs, classes), in one batch."""
    rows = served.encoder.encode(inputs)
    tensors = served.encoder.pad(rows, max(map(len, rows)))
    names = OF_PICTURES if served.reads_pixels else OF_TEXTS
    given = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=False)}
    (values,) = session.run([_output(served)], given)
    return np.asarray(values)


def _output(served: ServingModel) -> str:
    return PROBABILITIES if served.config.scale is None else NUMBERS
