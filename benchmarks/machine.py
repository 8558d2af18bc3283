"""Where and with what a cell is measured; nothing here names a machine or a path on it."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from graftwork.fingerprint import digest, file_digest

LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "numpy", "safetensors")
MEASURED_CODE = ("graftwork", "tasks", "flows", "recipes", "benchmarks/*.py", "pyproject.toml")


@dataclass(frozen=True)
class Machine:
    """What speed depends on. threads: those that torch computes with. gpu: its name, or None."""

    cpu: str
    cores: int
    threads: int
    memory_gib: int
    gpu: str | None

    @property
    def name(self) -> str:
        """A name for a folder, equal for equal machines."""
        said = self.gpu or f"{self.cpu}-{self.threads}-threads"
        return re.sub(r"[^a-z0-9]+", "-", said.lower()).strip("-")

    def __str__(self) -> str:
        host = f"{self.cpu}, {self.cores} cores, {self.threads} threads, {self.memory_gib} GiB"
        return f"{self.gpu} ({host})" if self.gpu else host


def this_machine() -> Machine:
    """This one, as torch sees it."""
    import psutil
    import torch

    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        threads=torch.get_num_threads(),
        memory_gib=round(psutil.virtual_memory().total / 2**30),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    )


def library_versions() -> dict[str, str]:
    """The versions of Python and of what computes."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def this_commit() -> str:
    """The commit that is checked out, with a + where what is measured differs from it."""
    commit = _git("rev-parse", "--short=10", "HEAD")
    return commit + "+" * bool(_git("status", "--porcelain", "--", *MEASURED_CODE))


def sources_digest(paths: Sequence[str]) -> str:
    """The digest of Python files, and of those in folders, below the project's root."""
    files = [file for path in map(Path, paths) for file in (path.rglob("*.py") if path.is_dir() else [path])]
    return digest({file.as_posix(): file_digest(file) for file in sorted(files)})


def peak_mib() -> float:
    """The most memory that this process has held, in MiB: its own alone, where getrusage counts its parent's in."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


def busy_seconds() -> float:
    """Processor seconds that all processes have used since the start, and those that a hypervisor kept."""
    import psutil

    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq + times.steal


def _cpu_model() -> str:
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return re.sub(r"\((R|TM)\)|\s+", lambda match: "" if match[1] else " ", found[1]) if found else platform.machine()


def _git(*arguments: str) -> str:
    """What git says, or nothing where there is no repository."""
    try:
        return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
