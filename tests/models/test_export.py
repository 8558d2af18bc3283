"""Graphs compared with their models; those of every family are in tests/families."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import SIDE, write_image_project, write_served

from graftwork.data.chunks import TableFile
from graftwork.data.media import NamedFile, RowFiles
from graftwork.errors import DataError, RegistryError
from graftwork.models import export
from graftwork.models.export import export_onnx
from graftwork.models.serving.config import PixelConfig, ServingConfig
from graftwork.models.serving.model import ServingModel, load

TEXTS = ["a good film", "bad", "the plot was very very long and the acting was dull", "great " * 9]


def serve(checkpoint: Path, folder: Path) -> ServingModel:
    """An untrained classifier as it is served."""
    config = ServingConfig(("no", "yes"), ("text",), "mean", max_tokens=16)
    write_served(checkpoint, folder, config)
    return load(folder, "cpu")


@pytest.mark.e2e
@pytest.mark.parametrize("architecture", ["bert", "t5"])
def test_the_graph_gives_what_the_model_gives(
    architecture: str, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """For rows alone and together, of lengths that it was not traced with; it is whole in one file."""
    served = serve(make_checkpoint(architecture), tmp_path)
    (tmp_path / "out").mkdir()
    assert export_onnx(served, TEXTS, tmp_path / "out" / "model.onnx") <= 1e-5
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.onnx"]


@pytest.mark.e2e
def test_a_graph_that_gives_something_else_is_refused(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says by how much."""
    served = serve(tiny_checkpoint, tmp_path)

    class Wrong(export.Values):
        def forward(self, inputs: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            return super().forward(inputs, mask).flip(-1)

    monkeypatch.setattr(export, "Values", Wrong)
    assert not np.allclose(served.probabilities(TEXTS)[:, 0], 0.5, atol=1e-3)
    with pytest.raises(RegistryError, match="differs by"):
        export_onnx(served, TEXTS, tmp_path / "model.onnx")


@pytest.mark.e2e
def test_a_picture_that_changes_meanwhile_is_no_fault_of_the_graph(
    make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told as what it is."""
    checkpoint = make_checkpoint("resnet")
    config = ServingConfig(("no", "yes"), ("file",), "body", 4, pixels=PixelConfig(SIDE, None, (0.5,) * 3, (0.5,) * 3))
    write_served(checkpoint, tmp_path, config)
    write_image_project(tmp_path / "project", checkpoint)
    opened = RowFiles("image", TableFile(tmp_path / "project/made.csv", "csv", ("file",)), "file").open(
        2, "pictures/no/000.png"
    )
    assert isinstance(opened, NamedFile)

    class Meddling(export.Values):
        def __init__(self, served: ServingModel) -> None:
            super().__init__(served)
            (tmp_path / "project/pictures/no/000.png").unlink(missing_ok=True)

    monkeypatch.setattr(export, "Values", Meddling)
    with pytest.raises(DataError, match=r"made\.csv:2: 000\.png: it can't be read"):
        export_onnx(load(tmp_path, "cpu"), [opened], tmp_path / "model.onnx")
