"""The recipes of digits, as their headers say to run them: trained from nothing, extracted, gone on from."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from projects import ROOT

pytestmark = pytest.mark.e2e


def commands(recipe: Path) -> list[str]:
    """Of its header."""
    return [line.removeprefix("#     ") for line in recipe.read_text().splitlines() if line.startswith("#     ")]


@pytest.mark.parametrize("pair", ["digits", "digits-vgg"])
def test_a_body_that_was_trained_from_nothing_is_a_checkpoint(pair: str, tmp_path: Path) -> None:
    for name in ("recipes", "policies", "examples/digits"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / ".graftwork").mkdir()
    place = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": place, "PYTHONPATH": str(ROOT)}
    told = ""
    for recipe in (f"{pair}-low", f"{pair}-high"):
        for command in commands(tmp_path / "recipes" / f"{recipe}.yaml"):
            done = subprocess.run(
                shlex.split(command), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            told = done.stdout + done.stderr
            assert done.returncode == 0, told
    (candidate,) = [line for line in told.splitlines() if line.startswith("candidate")]
    assert float(candidate.split()[1]) > 0.85
