"""What has to be as it was for a resumed training to end with the bits of an unbroken one."""

import platform
from collections.abc import Collection
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import torch

import graftwork
from graftwork.errors import Problem, TrainingError, raise_if
from graftwork.fingerprint import digest, file_digest
from graftwork.models.text import environment_facts
from graftwork.training.plan import TrainingPlan

CODE = ("training", "models", "targets", "data/batches.py")


class ResumeRefused(TrainingError):
    """The saved state belongs to other data, another plan or another environment."""


@dataclass(frozen=True)
class ResumeContract:
    """The data, the plan, and all of the environment that decides bits.

    code: digest of our own modules that train. device: its kind, and a GPU's name. cpu: the instruction set that torch
    chooses its kernels by.
    """

    SCHEMA: ClassVar[int] = 1
    manifest: str
    plan: str
    code: str
    python: str
    torch: str
    transformers: str
    peft: str
    tokenizers: str
    device: str
    cpu: str
    precision: str
    threads: int
    processes: int
    attention: str

    def differences(self, now: "ResumeContract") -> dict[str, str]:
        """Each field that is not what it was, as `old -> new`."""
        pairs = {field.name: (getattr(self, field.name), getattr(now, field.name)) for field in fields(self)}
        return {name: f"{_short(old)} -> {_short(new)}" for name, (old, new) in pairs.items() if old != new}


def contract_of(plan: TrainingPlan, device: torch.device, attention: str, processes: int) -> ResumeContract:
    """The contract that so many processes like this one, training this plan, fulfil."""
    return ResumeContract(
        manifest=plan.manifest,
        plan=digest([stage.key for stage in plan.stages]),
        code=code_digest(),
        python=platform.python_version(),
        peft=version("peft"),
        tokenizers=version("tokenizers"),
        precision=plan.precision,
        processes=processes,
        **environment_facts(device, attention),
    )


def check_contract(
    saved: ResumeContract, now: ResumeContract, accepted: Collection[str], where: str
) -> tuple[str, ...]:
    """The accepted differences as `field: old -> new`; raises ResumeRefused naming every other one."""
    differences = saved.differences(now)
    hint = "restore it, or start this stage again with --restart, or go on, no longer bit for bit, with --accept-drift"
    refused = [
        Problem(f"{name} changed since the state was saved: {change}", where, f"{hint} {name}")
        for name, change in differences.items()
        if name not in accepted
    ]
    raise_if(refused, ResumeRefused)
    return tuple(f"{name}: {change}" for name, change in differences.items())


@cache
def code_digest() -> str:
    """The digest of the modules that decide what a step does."""
    root = Path(graftwork.__file__).parent
    files = [file for part in CODE for file in ([root / part] if part.endswith(".py") else (root / part).rglob("*.py"))]
    return digest({file.relative_to(root).as_posix(): file_digest(file) for file in sorted(files)})


def _short(value: object) -> str:
    text = str(value)
    is_digest = len(text) == 64 and not text.strip("0123456789abcdef")
    return text[:12] if is_digest else text
