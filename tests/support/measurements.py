"""Measured cells as a benchmark leaves them, with values that were made up."""

from typing import Any

from benchmarks.cells import Cell, Measurement, Usage
from benchmarks.machine import Machine

MACHINE = Machine("Made CPU", cores=2, threads=2, memory_gib=8, gpu=None)


def make_measurement(arm: str, seed: int, others: float = 0.0, **values: Any) -> Measurement:
    """A cell of that arm; `others`: the share of the machine that went to other processes."""
    return Measurement(
        cell=Cell(arm, seed),
        version="0",
        commit="c0ffee",
        measured_at="2026-11-01",
        machine=MACHINE,
        libraries={"torch": "2"},
        precision="float32",
        usage=Usage(wall_s=1, cpu_s=1, others=others),
        values=values,
    )
