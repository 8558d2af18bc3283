"""A tiny classifier with random weights, loaded as a served model is."""

from pathlib import Path

import pytest
from tiny import write_served

from graftwork.models import serving
from graftwork.models.serving import ServingConfig, ServingModel


def write_model(checkpoint: Path, folder: Path, columns: tuple[str, ...] = ("text",)) -> ServingModel:
    """A model folder, and the model it holds."""
    config = ServingConfig(("no", "yes"), columns, "mean", max_tokens=16)
    write_served(checkpoint, folder, config)
    (folder / "serving.py").write_text(Path(serving.__file__).read_text("utf-8"), encoding="utf-8")
    return serving.load(folder)


@pytest.fixture(scope="session")
def served_folder(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder behind `served`; read it, don't write to it."""
    folder = tmp_path_factory.mktemp("served")
    write_model(tiny_checkpoint, folder)
    return folder


@pytest.fixture(scope="session")
def served(served_folder: Path) -> ServingModel:
    """It reads a column `text` and knows the classes `no` and `yes`."""
    return serving.load(served_folder)


@pytest.fixture(scope="session")
def served_pairs(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> ServingModel:
    """It reads two columns."""
    return write_model(tiny_checkpoint, tmp_path_factory.mktemp("pairs"), columns=("question", "answer"))
