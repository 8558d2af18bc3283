"""A served model as an ONNX graph, for runtimes without torch: token ids in, probabilities out, any batch and length.

The graph is compared with the model it was made from before anybody is given it. onnx and onnxruntime are imported
when they are needed: `pip install 'graftwork[export]'`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graftwork.errors import Problem, RecipeError, RegistryError
from graftwork.models.serving import ServingModel, Text

GRAPH = "model.onnx"
INPUTS, OUTPUT = ("input_ids", "attention_mask"), "probabilities"
# Of a probability. Kernels of another runtime round otherwise; what goes wrong in an export is off by far more.
TOLERANCE = 1e-4
EAGER = ("t5",)  # with torch's attention it can't be traced
ONE_FILE_BYTES = 1 << 30  # a graph of 2 GiB can't be written; larger weights lie beside it
SAMPLE = (2, 8)  # rows and tokens that the graph is traced with


class Probabilities(nn.Module):
    """A classifier with the softmax that turns its logits into probabilities."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return torch.softmax(self.model(input_ids, attention_mask), dim=-1)


def export_onnx(served: ServingModel, texts: Sequence[Text], path: Path) -> float:
    """Write the graph of a model that lies on the CPU; the largest difference of a probability from the model's own.

    texts: rows that both are given. Raises RecipeError where the exporter is not installed, RegistryError if it fails,
    or if the graph gives something else.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it, and says so less plainly
    except ImportError as error:
        raise RecipeError(Problem(f"{error.name} is not installed", hint="pip install 'graftwork[export]'")) from error
    expected = np.tile(served.probabilities(texts), (2, 1))
    try:
        _trace(served, path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = np.concatenate([_run(session, served, [text]) for text in texts] + [_run(session, served, texts)])
    except OSError:
        raise
    except Exception as error:
        problem = f"{served.model.body.config.model_type} can't be exported: {type(error).__name__}"
        raise RegistryError(Problem(problem, str(path))) from error
    difference = float(abs(found - expected).max())
    if not difference <= TOLERANCE:
        problem = f"the graph differs by {difference:.2g} from the model, {TOLERANCE:g} is tolerated"
        raise RegistryError(Problem(problem, str(path)))
    return difference


def _trace(served: ServingModel, path: Path) -> None:
    size = sum(parameter.nbytes for parameter in served.model.parameters())
    body: Any = served.model.body
    if body.config.model_type in EAGER:
        body.set_attn_implementation("eager")
    ids = torch.ones(SAMPLE, dtype=torch.int64)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    torch.onnx.export(
        Probabilities(served.model).eval(),
        (ids, torch.ones_like(ids)),
        path,
        input_names=INPUTS,
        output_names=[OUTPUT],
        dynamic_shapes=dict.fromkeys(INPUTS, axes),
        dynamo=True,
        external_data=size > ONE_FILE_BYTES,
        verbose=False,
    )


def _run(session: Any, served: ServingModel, texts: Sequence[Text]) -> np.ndarray:
    """(texts, classes), in one batch."""
    rows = served.encoder.encode(texts)
    ids, mask = served.encoder.pad(rows, max(map(len, rows)))
    given = dict(zip(INPUTS, (ids.numpy(), mask.numpy()), strict=True))
    (probabilities,) = session.run([OUTPUT], given)
    return np.asarray(probabilities)
