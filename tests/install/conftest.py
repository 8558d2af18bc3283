"""Fresh environments beside the checkout's own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from projects import ROOT

TORCH = "torch==2.13.0"  # named, so that pip takes the build that lies at hand where there is one


@pytest.fixture(scope="session")
def make_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Installs what is named, in its tested version, into an environment of its own; the folder of its programs."""

    def make(*wanted: str) -> Path:
        folder = tmp_path_factory.mktemp("environment") / "venv"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        programs = folder / "bin"
        arguments = ["install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), TORCH, *wanted]
        done = subprocess.run([programs / "pip", *arguments], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return programs

    return make
