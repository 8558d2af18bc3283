"""Choosing a checkpoint: the one that knows something is first, and what chance may have done is said."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import write_project
from writers import write_writer_project

from graftwork.checkpoints.lock import lock_path
from graftwork.choice import choose
from graftwork.errors import CheckpointError, RecipeError
from graftwork.models.prefix_cache import KIND, SHARD
from graftwork.recipe import Recipe, load_recipe
from graftwork.settings import Settings
from graftwork.workspace import Workspace

GOOD, BAD = "good great bright clever warm moving".split(), "bad awful dull boring weak cold".split()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(Settings(home=tmp_path / "home"))


@pytest.fixture
def recipe(tmp_path: Path, tiny_checkpoint: Path) -> Recipe:
    """144 reviews whose words tell their label, and the tiny checkpoint."""
    write_project(tmp_path, tiny_checkpoint)
    lines = [
        f"the {first} film was {second} {filler},{label}"
        for label, words in (("yes", GOOD), ("no", BAD))
        for first in words
        for second in words
        for filler in ("and long", "and new")
    ]
    (tmp_path / "made.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    return load_recipe(tmp_path / "recipe.yaml")


@pytest.fixture
def blank(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A checkpoint to which every word is the same, so that nothing but chance tells its classes apart."""
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "blank"))
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"] = torch.zeros_like(tensors["embeddings.word_embeddings.weight"])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_what_a_person_may_do_instead_is_there(tmp_path: Path, workspace: Workspace) -> None:
    """No baseline is named that the recipe has not: where texts are written no checkpoint tells as it comes."""
    write_writer_project(tmp_path, tmp_path / "checkpoint")
    with pytest.raises(RecipeError, match="not yet for text generation") as raised:
        choose(load_recipe(tmp_path / "recipe.yaml"), [], workspace)
    assert "frozen-head" not in str(raised.value)


def test_the_one_that_knows_something_is_first(recipe: Recipe, workspace: Workspace, blank: Path) -> None:
    """Wherever it is named; the interval of the difference is above zero, and figures are those of the files."""
    told: list[tuple[int, int]] = []
    found = choose(recipe, [f"file://{blank}"], workspace, lambda *event: told.append(event))
    knowing, blind = found.candidates
    assert (knowing.source, blind.source) == (recipe.checkpoint.source, f"file://{blank}")
    assert knowing.accuracy.value > 0.95 and knowing.log_loss.value < blind.log_loss.value
    assert blind.accuracy.low <= blind.accuracy.value <= blind.accuracy.high < 0.8
    assert blind.is_distinguishable and blind.best_against is not None
    assert blind.best_against.difference.value == pytest.approx(knowing.accuracy.value - blind.accuracy.value)
    assert knowing.best_against is None
    assert blind.size_bytes == sum(path.stat().st_size for path in blank.iterdir())
    tensors = load_file(blank / "model.safetensors")
    assert blind.parameters == sum(tensor.numel() for name, tensor in tensors.items() if name[:6] != "pooler")
    assert (blind.max_tokens, blind.licence, blind.architecture) == (512, "apache-2.0", "bert")
    assert told[-1] == (2 * sum(found.rows.values()),) * 2 and told == sorted(told)


def test_the_holdout_is_not_looked_at(recipe: Recipe, workspace: Workspace) -> None:
    """No feature of a holdout row is computed; again, none at all is, and the figures are the same."""
    first = choose(recipe, [], workspace)
    kept = sum(len(load_file(workspace.store.root / key / SHARD)["names"]) for key in workspace.store.keys(KIND))
    assert kept == sum(first.rows.values()) < 144
    before = workspace.store.keys(KIND)
    (again,) = choose(recipe, [], workspace).candidates
    assert workspace.store.keys(KIND) == before
    assert again.accuracy == first.candidates[0].accuracy


def test_twins_are_not_distinguishable(recipe: Recipe, workspace: Workspace, tmp_path: Path) -> None:
    """The same files in another folder give the same predictions, and no interval that clears zero."""
    twin = shutil.copytree(recipe.checkpoint.source.removeprefix("file://"), tmp_path / "twin")
    _, other = choose(recipe, [f"file://{twin}"], workspace).candidates
    assert other.best_against is not None and other.best_against.difference.value == 0
    assert not other.is_distinguishable


def test_what_can_not_be_used_is_said(
    recipe: Recipe, workspace: Workspace, make_checkpoint: Callable[..., Path]
) -> None:
    """A refused licence, a branch and a folder that is not there stand beside the rest; without a rest, they are it."""
    refused = [f"file://{make_checkpoint(licence='cc-by-nc-4.0')}", "hf://owner/name@main", "file:///nowhere"]
    found = choose(recipe, refused, workspace)
    assert [candidate.source for candidate in found.candidates] == [recipe.checkpoint.source]
    assert [each.source for each in found.refused] == refused
    for each, words in zip(found.refused, ("cc-by-nc-4.0, allowed are", "40 hex", "no such folder"), strict=True):
        assert words in each.problem
    alone = load_recipe(recipe.path, [f"checkpoint.source={refused[0]}"])
    lock_path(recipe.path).unlink()
    with pytest.raises(CheckpointError, match="cc-by-nc"):
        choose(alone, [], workspace)


def test_a_candidate_is_taken_in_once_and_never_stale(recipe: Recipe, workspace: Workspace, blank: Path) -> None:
    """Neither lockfile nor recipe change; a folder that is another one by now is measured as it is."""
    recipe_before = recipe.path.read_bytes()
    source = f"file://{blank}"
    before = choose(recipe, [source], workspace).candidates[1]
    made = len(workspace.store.made)
    choose(recipe, [source], workspace)
    assert len(workspace.store.made) == made
    locked = lock_path(recipe.path).read_bytes()
    shutil.copyfile(
        Path(recipe.checkpoint.source.removeprefix("file://")) / "model.safetensors", blank / "model.safetensors"
    )
    os.utime(blank / "model.safetensors")
    after = next(each for each in choose(recipe, [source], workspace).candidates if each.source == source)
    assert after.accuracy.value > before.accuracy.value
    assert (lock_path(recipe.path).read_bytes(), recipe.path.read_bytes()) == (locked, recipe_before)
