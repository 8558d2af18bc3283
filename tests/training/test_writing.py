"""Stages that learn to write: exact, frozen where they say so, computed once where they can be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import facts, resolve_run, train_until, train_with_stops
from writers import write_writer, write_writer_project

from graftwork.data.manifest import load_rows
from graftwork.errors import RecipeError
from graftwork.models.serving.config import WEIGHTS
from graftwork.models.serving.model import load
from graftwork.policy import Policy
from graftwork.recipe import load_recipe
from graftwork.settings import Settings
from graftwork.training.bundle import MODEL
from graftwork.training.engine import run_stages
from graftwork.training.plan import plan_run
from graftwork.training.reading import measure_reading
from graftwork.workspace import Workspace

CASES = [("t5", False), ("t5", True), ("gpt2", False), ("llama", True)]


def project(folder: Path, architecture: str, has_own_table: bool = False) -> Path:
    write_writer(folder / "checkpoint", architecture, has_own_table)
    write_writer_project(folder, folder / "checkpoint")
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(Settings(home=tmp_path / "home"))


@pytest.mark.parametrize(("architecture", "has_own_table"), CASES)
def test_a_killed_run_ends_with_the_same_bits(architecture: str, has_own_table: bool, tmp_path: Path) -> None:
    """Stopped in its first stage, on activations, and in its second, on texts; frozen groups stay as they were."""
    folder = project(tmp_path, architecture, has_own_table)
    whole, broken = (Workspace.open(Settings(home=tmp_path / name)) for name in ("whole", "broken"))
    run = resolve_run(folder, whole)
    first, second = run.plan.stages
    assert (first.cut, second.cut) == (2, 0)
    bundle = train_until(run, whole)
    assert facts(train_with_stops(resolve_run(folder, broken), broken, 5, 9, 12)) == facts(bundle)
    left, later = (load_file(whole.store.root / stage.key / WEIGHTS) for stage in (first, second))
    changed = {name for name in left if not torch.equal(left[name], later[name])}
    assert changed == set(left), "the second stage trains all"


def started(run: Any, workspace: Workspace) -> dict[str, torch.Tensor]:
    """The weights that a run begins with."""
    from graftwork.checkpoints.retrieve import open_checkpoint
    from graftwork.training.engine import load_model

    model = load_model(run.plan, open_checkpoint(workspace.store, run.lock), workspace.store, [])
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(("architecture", "has_own_table"), CASES)
@pytest.mark.parametrize("train", ["[head, 'top:1']", "['block.1']", "[head, lora]"])
def test_what_is_frozen_stays_to_the_bit(
    train: str, architecture: str, has_own_table: bool, tmp_path: Path, workspace: Workspace
) -> None:
    """What a stage trains moves, whether the head is a decoder, a table or none of its own; all else stays."""
    folder = project(tmp_path, architecture, has_own_table)
    run = resolve_run(folder, workspace, f"stages=[{{name: part, train: {train}, epochs: 1, learning_rate: 1e-2}}]")
    before = started(run, workspace)
    (stage,) = run.plan.stages
    bundle = train_until(run, workspace)
    after = load_file(workspace.store.root / bundle.stages[0].key / WEIGHTS)
    assert after.keys() == before.keys()
    prefixes = tuple(p for group in run.plan.groups if group.name in stage.rates for p in group.prefixes)
    if stage.adapters is not None:
        prefixes += stage.adapters.layers
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved and all(name.startswith(prefixes) for name in moved)
    assert any(name.startswith("head.") for name in moved) == (
        any(n.startswith("head.") for n in after) and "head" in train
    )


def test_a_decoder_is_trained_on_what_its_encoder_made_once(tmp_path: Path, workspace: Workspace) -> None:
    """Of each text, whatever is to be told of it: other labels of the same texts compute nothing again."""
    folder = project(tmp_path, "t5")
    head = "stages=[{name: head, train: head, epochs: 2, learning_rate: 1e-2}]"
    told: list[dict[str, Any]] = []
    run = resolve_run(folder, workspace, head)
    (stage,) = run.plan.stages
    assert (stage.cut, stage.is_pooled) == (4, False)
    assert stage.trainable == next(group.parameters for group in run.plan.groups if group.name == "head")
    bundle = run_stages(run, workspace, told.append, lambda: False)
    assert sum(event["event"] == "prefix" for event in told) > 0
    texts = (folder / "made.csv").read_text().splitlines()
    (folder / "made.csv").write_text("\n".join([texts[0], *(f"{line} film" for line in texts[1:])]) + "\n")
    again, other = resolve_run(folder, workspace, head, "name=other"), list[dict[str, Any]]()
    assert run_stages(again, workspace, other.append, lambda: False).digest != bundle.digest
    assert not [event for event in other if event["event"] == "prefix"]


@pytest.mark.parametrize("architecture", ["t5", "gpt2"])
def test_activations_teach_what_texts_do(architecture: str, tmp_path: Path, workspace: Workspace) -> None:
    """A stage above frozen blocks learns the same from what the cache keeps as from what it computes anew."""
    folder = project(tmp_path, architecture)
    stages = "stages=[{name: top, train: [head, 'top:1'], epochs: 2, learning_rate: 1e-3}]"
    runs = [resolve_run(folder, workspace, stages, f"train.prefix_cache={kept}") for kept in ("true", "false")]
    assert [run.plan.stages[0].cut for run in runs] == [2, 0]
    kept, anew = (train_until(run, workspace).stages[0].epochs for run in runs)
    for one, other in zip(kept, anew, strict=True):
        assert one.validation_loss == pytest.approx(other.validation_loss, rel=1e-4)
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)


def test_a_run_goes_on_from_a_writer(tmp_path: Path, workspace: Workspace) -> None:
    """When rows have landed it begins with the champion's weights, decoder and all."""
    folder = project(tmp_path, "t5", has_own_table=True)
    stages = "stages=[{name: all, train: all, epochs: 1, learning_rate: 1e-3}]"
    bundle = train_until(resolve_run(folder, workspace, stages), workspace)
    with (folder / "made.csv").open("a") as stream:
        stream.writelines(f"the plot of number {number} was warm,warm plot\n" for number in range(40))
    run = resolve_run(folder, workspace, stages, "start.from=champion", before=bundle)
    weights = load_file(workspace.store.root / bundle.key / MODEL / WEIGHTS)
    begins = started(run, workspace)
    assert begins.keys() == weights.keys()
    assert all(torch.equal(begins[name], weights[name]) for name in weights)


def test_it_is_counted_what_is_cut(tmp_path: Path, workspace: Workspace) -> None:
    """Texts with the prompt around them, and labels that leave no room for their end."""
    folder = project(tmp_path, "gpt2")
    (folder / "made.csv").write_text(
        "text,verdict\n"
        + "".join(f"the {'very ' * number}good film,{'bad ' * (number % 5)}film\n" for number in range(60))
    )
    run = resolve_run(folder, workspace, "input.max_tokens=20", "output.max_tokens=4", "input.prompt='{text} was'")
    reading = measure_reading(workspace.store, run)
    assert reading is not None
    sides = reading.sides.values()
    assert sum(side.texts for side in sides) == run.manifest.counts.kept
    rows = load_rows(workspace.store, run.manifest)
    assert sum(side.cut for side in sides) == sum(len(text.split()) + 1 > 20 for text in rows["text"]) > 0
    assert sum(side.labels_cut for side in sides) == sum(len(text.split()) + 1 > 4 for text in rows["label"]) > 0


def test_two_columns_make_one_prompt(tmp_path: Path, workspace: Workspace) -> None:
    """A model that reads no pairs reads both in a prompt, and served it is given both."""
    folder = project(tmp_path, "gpt2")
    lines = (folder / "made.csv").read_text().splitlines()[1:]
    cut = (line.replace(" was ", ",", 1) for line in lines)
    (folder / "made.csv").write_text("thing,words,verdict\n" + "\n".join(cut) + "\n")
    stages = "stages=[{name: all, train: all, epochs: 1, learning_rate: 1e-3}]"
    columns = ("input.text=[thing, words]", stages)
    with pytest.raises(RecipeError, match="no token between the texts of a pair"):
        resolve_run(folder, workspace, *columns)
    with pytest.raises(RecipeError, match=r"does not name \{thing\}"):
        resolve_run(folder, workspace, *columns, "input.prompt='{words} film'")
    run = resolve_run(folder, workspace, *columns, "input.prompt='{words} of {thing}'")
    served = load(workspace.store.root / train_until(run, workspace).key / MODEL, "cpu")
    ids = served.encoder.encode([("the old film", "good and warm")])[0]
    assert served.encoder.tokenizer.decode(ids) == "good and warm [UNK] the old film"
    assert served.probabilities([("the old film", "good and warm")]).shape == (1, 1)


def test_a_head_that_is_not_there_can_not_be_trained(tmp_path: Path, workspace: Workspace) -> None:
    folder = project(tmp_path, "gpt2")
    with pytest.raises(RecipeError, match=r"has no head of its own.*train blocks, too"):
        resolve_run(folder, workspace, "stages=[{name: head, train: head, epochs: 1, learning_rate: 1e-2}]")


def test_what_is_read_and_written_fits_the_checkpoint(tmp_path: Path, workspace: Workspace) -> None:
    """Both take positions of one that goes on with what it reads."""
    folder = project(tmp_path, "gpt2")
    with pytest.raises(
        RecipeError, match=r"input\.max_tokens is 60 and output\.max_tokens 8: this checkpoint reads at most 64"
    ):
        resolve_run(folder, workspace, "input.max_tokens=60")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("input.pooling=mean", "input.pooling is not for text generation"),
        ("head.layers=[8]", "head is not for text generation"),
        ("input.prompt='say it'", r"input.prompt: it does not name \{text\}"),
        ("evaluation.baselines=[frozen-head]", "frozen-head tells classes or numbers"),
        ("data.label.classes=[a, b]", "label: classes is not for text generation"),
        *(
            (f"stages.0.{key}", f"{key.partition('=')[0].partition('.')[0]} of top is not for text generation")
            for key in ("label_smoothing=0.1", "class_weights=balanced", "adversary={epsilon: 1.0}")
        ),
        ("stages.0.augment={word_dropout: 0.1}", "augment of top is not for text generation"),
        ("stages.0.distil={from: champion}", "distil of top is not for text generation"),
        ("stages=[{name: probe, train: head, solver: lbfgs}]", "solver of probe is not for text generation"),
        (
            "stages=[{name: adapt, objective: autoregressive, train: all, epochs: 1, learning_rate: 1e-3},"
            " {name: all, train: all, epochs: 1, learning_rate: 1e-3}]",
            "autoregressive of adapt is not for text generation",
        ),
        (
            "stages=[{name: near, objective: contrastive, train: all, epochs: 1, learning_rate: 1e-3},"
            " {name: all, train: all, epochs: 1, learning_rate: 1e-3}]",
            "contrastive of near is not for text generation",
        ),
    ],
)
def test_what_means_nothing_here_is_refused(override: str, said: str, tmp_path: Path) -> None:
    """Before anything is read, by its name."""
    write_writer_project(tmp_path, tmp_path / "checkpoint")
    with pytest.raises(RecipeError, match=said):
        load_recipe(tmp_path / "recipe.yaml", [override])


@pytest.mark.parametrize("override", ["input.prompt='{text}!'", "output.max_tokens=8"])
def test_what_writers_are_told_is_refused_elsewhere(
    override: str, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    from tiny import write_project

    write_project(tmp_path, make_checkpoint("bert"))
    with pytest.raises(RecipeError, match="is not for classification"):
        load_recipe(tmp_path / "recipe.yaml", [override])


def test_a_policy_that_asks_for_a_frozen_head_is_refused(tmp_path: Path, workspace: Workspace) -> None:
    folder = project(tmp_path, "t5")
    run = resolve_run(folder, workspace)
    policy = Policy(metric="rouge_l", baselines=("majority", "frozen-head"))
    recipe = load_recipe(folder / "recipe.yaml")
    with pytest.raises(RecipeError, match="frozen-head tells classes or numbers"):
        plan_run(recipe, run.manifest, run.lock, policy, workspace.store)
