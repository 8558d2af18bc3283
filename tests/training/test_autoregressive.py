"""A stage that learns from sounds alone: a WaveNet tells each sample from those before it, and says what it learnt."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.torch import load_file
from tiny import RATE, resolve_run, write_family_project

from graftwork.errors import GraftworkError, Paused, RecipeError
from graftwork.generation import generate_sound
from graftwork.models.serving.config import WEIGHTS
from graftwork.recipe import load_recipe
from graftwork.settings import Settings
from graftwork.training.bundle import ServingBundle
from graftwork.training.engine import run_stages
from graftwork.training.plan import ResolvedRun
from graftwork.workspace import Workspace

LISTEN = "{name: listen, objective: autoregressive, train: all, epochs: 2, learning_rate: 1e-2}"
STAGES = f"stages=[{LISTEN}, {{name: head, train: head, epochs: 1, learning_rate: 1e-2}}]"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wavenet")
    write_family_project(folder, "wavenet")
    return folder


@pytest.fixture(scope="module")
def trained(project: Path) -> tuple[Workspace, ResolvedRun, ServingBundle]:
    workspace = Workspace.open(Settings(home=project / "home"))
    run = resolve_run(project, workspace, STAGES)
    return workspace, run, run_stages(run, workspace, lambda event: None, lambda: False)


def test_it_learns_what_comes_next_and_leaves_a_classifier(
    trained: tuple[Workspace, ResolvedRun, ServingBundle],
) -> None:
    """In fewer bits a sample from epoch to epoch, below those of a guess; its own head is gone from the model."""
    workspace, run, bundle = trained
    listen, head = run.plan.stages
    assert [*listen.rates] == ["embeddings", "block.0", "block.1", "block.2", "neck", "objective"]
    assert (listen.own_parameters, head.own_parameters) == (33 * 256, 0)
    first, last = bundle.stages[0].epochs
    assert last.validation_loss < first.validation_loss < np.log(256)
    left = load_file(workspace.store.root / listen.key / WEIGHTS)
    assert not [name for name in left if name.startswith("objective.")]


def test_stopped_and_gone_on_it_ends_with_the_same_bits(
    project: Path, trained: tuple[Workspace, ResolvedRun, ServingBundle]
) -> None:
    """In the middle of the stage that has a head of its own."""
    _, run, bundle = trained
    workspace = Workspace.open(Settings(home=project / "other"))
    again = resolve_run(project, workspace, STAGES)
    assert again.run_id == run.run_id
    calls = iter(range(1000))
    with pytest.raises(Paused):
        run_stages(again, workspace, lambda event: None, lambda: next(calls) > 9)
    done = run_stages(again, workspace, lambda event: None, lambda: False)
    assert [stage.weights_digest for stage in done.stages] == [stage.weights_digest for stage in bundle.stages]


def test_what_it_learnt_can_be_listened_to(
    project: Path, tmp_path: Path, trained: tuple[Workspace, ResolvedRun, ServingBundle]
) -> None:
    """The same seed says the same, another one something else; a stage that learnt labels says nothing."""
    workspace, _, _ = trained
    recipe = load_recipe(project / "recipe.yaml", (STAGES,))
    say = partial(generate_sound, workspace, recipe, "listen", seconds=0.1)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        say(tmp_path / f"{name}.wav", seed=seed)
    sounds = {name: soundfile.read(tmp_path / f"{name}.wav") for name in "abc"}
    assert all(rate == RATE and len(samples) == RATE // 10 for samples, rate in sounds.values())
    assert np.array_equal(sounds["a"][0], sounds["b"][0])
    assert not np.array_equal(sounds["a"][0], sounds["c"][0])
    for stage, message in (("head", "did not learn what comes next"), ("other", "no stage 'other'")):
        with pytest.raises(GraftworkError, match=message):
            generate_sound(workspace, recipe, stage, tmp_path / "d.wav", seconds=0.1)
    with pytest.raises(GraftworkError, match="it is there already"):
        say(tmp_path / "a.wav", seed=3)


def test_a_family_that_was_not_made_so_is_refused(tmp_path: Path) -> None:
    write_family_project(tmp_path, "wav2vec2")
    with pytest.raises(RecipeError, match="it was not made to tell what comes next"):
        resolve_run(tmp_path, Workspace.open(Settings(home=tmp_path / "home")), STAGES)
