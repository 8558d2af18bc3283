"""The recipes of digits and voices, as their headers say to run them: trained from nothing, extracted, gone on from."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from projects import ROOT
from safetensors.numpy import load_file

pytestmark = pytest.mark.e2e

SHORT = "{name: listen, objective: autoregressive, train: all, epochs: 1, learning_rate: 4e-3}"
SHORTENED = [f"--set=stages=[{SHORT}, {{name: head, train: head, solver: lbfgs}}]", "--set=evaluation.bootstrap=100"]
SAID_S = 0.1  # a second takes ten


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty project with what the repository has for it."""
    for name in ("recipes", "policies", "examples/digits", "examples/voices"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / ".graftwork").mkdir()
    return tmp_path


def commands(recipe: Path) -> list[str]:
    """Of its header."""
    return [line.removeprefix("#     ") for line in recipe.read_text().splitlines() if line.startswith("#     ")]


def follow(recipe: str, folder: Path, changes: list[str] | None = None) -> str:
    """Run the commands of the recipe's header, with changes where it is read; what the last one said."""
    place = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": place, "PYTHONPATH": str(ROOT)}
    told = ""
    for command in commands(folder / "recipes" / f"{recipe}.yaml"):
        words = shlex.split(command)
        if words[:2] in (["graftwork", "run"], ["graftwork", "generate"]):
            words += changes or []
        if words[:2] == ["graftwork", "generate"]:
            words.append(f"--seconds={SAID_S}")
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        told = done.stdout + done.stderr
        assert done.returncode == 0, told
    return told


def accuracy(told: str) -> float:
    """The candidate's, of what `graftwork run` said."""
    (candidate,) = [line for line in told.splitlines() if line.startswith("candidate")]
    return float(candidate.split()[1])


def test_captions_make_a_classifier_of_untrained_towers(folder: Path) -> None:
    """By the texts of its classes, without a label."""
    assert accuracy(follow("digits-told", folder)) > 0.85


@pytest.mark.parametrize("pair", ["digits", "digits-vgg"])
def test_a_body_that_was_trained_from_nothing_is_a_checkpoint(pair: str, folder: Path) -> None:
    follow(f"{pair}-low", folder)
    assert accuracy(follow(f"{pair}-high", folder)) > 0.85


def test_a_body_that_listened_is_a_checkpoint(folder: Path) -> None:
    """After one epoch of twenty: it learnt in all its layers, says something, and a head tells words by it."""
    follow("voices-first", folder, SHORTENED)
    before, after = (load_file(folder / "voices" / name / "model.safetensors") for name in ("untrained", "pretrained"))
    assert before.keys() == after.keys()
    assert not [name for name in before if np.array_equal(before[name], after[name])]
    said, rate = soundfile.read(folder / "voices/first.wav")
    assert (rate, len(said)) == (8_000, 8_000 * SAID_S)
    assert accuracy(follow("voices-second", folder)) > 0.5  # one word of four is a guess
