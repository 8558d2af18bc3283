"""A tiny classifier with random weights, loaded as a served model is."""

from pathlib import Path

import pytest
from tiny import write_served

from graftwork.models.serving.config import ServingConfig
from graftwork.models.serving.model import ServingModel, load
from graftwork.training.bundle import copy_serving_code


def write_model(checkpoint: Path, folder: Path, columns: tuple[str, ...] = ("text",)) -> ServingModel:
    """A model folder, and the model it holds."""
    config = ServingConfig(("no", "yes"), columns, "mean", max_tokens=16)
    write_served(checkpoint, folder, config)
    copy_serving_code(folder)
    return load(folder)


@pytest.fixture(scope="session")
def served_folder(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder behind `served`; read it, don't write to it."""
    folder = tmp_path_factory.mktemp("served")
    write_model(tiny_checkpoint, folder)
    return folder


@pytest.fixture(scope="session")
def served(served_folder: Path) -> ServingModel:
    """It reads a column `text` and knows the classes `no` and `yes`."""
    return load(served_folder)


@pytest.fixture(scope="session")
def served_pairs(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> ServingModel:
    """It reads two columns."""
    return write_model(tiny_checkpoint, tmp_path_factory.mktemp("pairs"), columns=("question", "answer"))
