"""Decoders of texts go on with their pretraining: each token is told from those before it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import facts, resolve_run, train_until, train_with_stops, write_project

from graftwork.errors import GraftworkError, RecipeError
from graftwork.generation import generate_sound
from graftwork.models.autoregressive import AutoregressiveModel
from graftwork.models.serving.config import ServingConfig
from graftwork.models.serving.text import TextEncoder
from graftwork.models.text import load_pretrained
from graftwork.recipe import load_recipe
from graftwork.settings import Settings
from graftwork.workspace import Workspace

TEXTS = ["a good film", "the plot was very very long and the acting was dull", "bad"]
STAGES = (
    "stages=[{name: adapt, objective: autoregressive, train: all, epochs: 2, learning_rate: 1e-2},"
    " {name: top, train: [head, 'top:1'], epochs: 1, learning_rate: 1e-3}]"
)
DECODERS = ("gpt2", "llama")


def tie(checkpoint: Path, is_tied: bool = True) -> None:
    """Have the checkpoint say by which table it tells tokens."""
    config = json.loads((checkpoint / "config.json").read_text()) | {"tie_word_embeddings": is_tied}
    (checkpoint / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(("architecture", "is_tied"), [("llama", None), ("llama", False), ("gpt2", False)])
def test_a_checkpoint_that_tells_tokens_by_another_table_is_refused(
    tmp_path: Path, make_checkpoint: Callable[..., Path], architecture: str, is_tied: bool | None
) -> None:
    """As Llama's do unless they say otherwise: what they would be trained by is not what they were pretrained by."""
    folder = make_checkpoint(architecture)
    if is_tied is not None:
        tie(folder, is_tied)
    write_project(tmp_path, folder)
    with pytest.raises(RecipeError, match="tells tokens by another table than it reads them by"):
        resolve_run(tmp_path, Workspace.open(Settings(home=tmp_path / "home")), STAGES)


@pytest.mark.parametrize("architecture", DECODERS)
def test_the_loss_is_that_of_transformers_own_model(make_checkpoint: Callable[..., Path], architecture: str) -> None:
    """Its model for the purpose, whose scores are of the same table, gives each text the same mean loss."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = make_checkpoint(architecture)
    model = load_pretrained(folder, ServingConfig(("no", "yes"), ("text",), "last", 16), seed=3).eval()
    encoder = TextEncoder(folder, 16)
    theirs = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, tie_word_embeddings=True)).eval()
    theirs.base_model.load_state_dict(model.body.state_dict())
    theirs.tie_weights()
    rows = encoder.encode(TEXTS)
    with torch.inference_mode():
        found = AutoregressiveModel(model).forward(*encoder.pad(rows, 16))
        for row, (loss, _) in zip(rows[:2], found[:2], strict=True):
            ids = torch.tensor([row])
            torch.testing.assert_close(loss, theirs(input_ids=ids, labels=ids).loss)
    assert found[2].tolist() == [0, 0]  # nothing comes after a single token


@pytest.mark.parametrize("architecture", DECODERS)
def test_a_stage_learns_so_and_is_resumed_exactly(
    tmp_path: Path, make_checkpoint: Callable[..., Path], architecture: str
) -> None:
    """It tells tokens better from epoch to epoch, by no head of its own."""
    folder = make_checkpoint(architecture)
    tie(folder)
    write_project(tmp_path, folder)
    whole, broken = (Workspace.open(Settings(home=tmp_path / name)) for name in ("whole", "broken"))
    run = resolve_run(tmp_path, whole, STAGES)
    adapt, _ = run.plan.stages
    assert adapt.own_parameters == 0
    assert not {"head", "objective"} & adapt.rates.keys()
    bundle = train_until(run, whole)
    first, last = bundle.stages[0].epochs
    assert last.validation_loss < first.validation_loss
    again = resolve_run(tmp_path, broken, STAGES)
    assert facts(train_with_stops(again, broken, 7)) == facts(bundle)


def test_what_was_made_otherwise_is_refused(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    """With those that were made so."""
    write_project(tmp_path, make_checkpoint("bert"))
    with pytest.raises(RecipeError, match=r"not made to tell what comes next.*gpt2, llama"):
        resolve_run(tmp_path, Workspace.open(Settings(home=tmp_path / "home")), STAGES)


def test_texts_can_t_be_listened_to(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    write_project(tmp_path, make_checkpoint("gpt2"))
    workspace, recipe = (
        Workspace.open(Settings(home=tmp_path / "home")),
        load_recipe(tmp_path / "recipe.yaml", [STAGES]),
    )
    with pytest.raises(GraftworkError, match="is not sounds"):
        generate_sound(workspace, recipe, "adapt", tmp_path / "said.wav", seconds=0.1)
