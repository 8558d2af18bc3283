"""The facts that a report is made from: records only, so that a page can be made again from what is stored."""

import importlib.metadata
import os
import platform
from dataclasses import dataclass

from graftwork.evaluation.evaluation import Evaluation
from graftwork.promotion.gate import Verdict
from graftwork.promotion.history import LedgerEntry
from graftwork.registry.versions import ModelVersion
from graftwork.report.examples import Example
from graftwork.training.bundle import ServingBundle
from graftwork.training.plan import ResolvedRun
from graftwork.training.reading import Reading

LIBRARIES = (
    "graftwork",
    "torch",
    "transformers",
    "peft",
    "safetensors",
    "numpy",
    "pandas",
    "scikit-learn",
    "mlflow",
    "prefect",
)


@dataclass(frozen=True)
class ReportFacts:
    """Everything a report says. version, entry: None for a run that is not registered, or not promoted.

    command: what a person types to get this run again. machine, libraries: what the report was made on and with.
    reading: None where no texts are read. examples: of what was written, where texts are.
    """

    run: ResolvedRun
    bundle: ServingBundle
    evaluation: Evaluation
    verdict: Verdict
    version: ModelVersion | None
    entry: LedgerEntry | None
    command: str
    created_at: str
    machine: str
    libraries: dict[str, str]
    reading: Reading | None = None
    examples: tuple[Example, ...] = ()


def this_machine() -> str:
    """The kind of machine; no name of a host or a user, since reports are passed on."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"


def installed_libraries() -> dict[str, str]:
    """The versions that decide the figures, Python's first."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in LIBRARIES}
