"""A tiny project to measure on."""

from pathlib import Path

import pytest
from tiny import write_project

from benchmarks import arithmetic
from benchmarks.workload import Size, Workload


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """How fast this machine multiplies is not the question here."""
    monkeypatch.setitem(arithmetic.SIDE, "cpu", 64)


@pytest.fixture
def workload(tmp_path: Path, tiny_checkpoint: Path) -> Workload:
    """Little of the tiny recipe, as one stage that trains all."""
    write_project(tmp_path, tiny_checkpoint)
    return Workload(tmp_path / "recipe.yaml", ("stages=full",), Size(warmup=1, steps=2, predicted=30, commands=1))
