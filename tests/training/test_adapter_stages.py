"""Stages that train adapters, among others: each leaves an ordinary model, and its adapters beside it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from graftwork.models.adapters import ADAPTER_CONFIG
from graftwork.models.serving.classifier import Classifier
from graftwork.models.serving.config import WEIGHTS
from graftwork.models.serving.model import load
from graftwork.models.serving.text import TextEncoder
from graftwork.models.text import load_pretrained
from graftwork.training.bundle import ADAPTER, ADAPTERS, MODEL, ServingBundle
from graftwork.training.engine import run_stages, serving_config
from graftwork.training.plan import ResolvedRun
from graftwork.workspace import Workspace

TEXTS = ["the good film was bad", "the dull film was clever and good", "new"]
MIXED = (
    "stages=[{name: head, train: head, epochs: 1, learning_rate: 1e-2}, "
    "{name: first, train: [head, lora], epochs: 2, learning_rate: 1e-2, lora: {rank: 2, blocks: 'top:2', dora: true}}, "
    "{name: second, train: lora, epochs: 2, learning_rate: 1e-2, lora: {targets: attention, dropout: 0.1}}, "
    "{name: full, train: all, epochs: 1, learning_rate: 1e-4}]"
)


def train(run: ResolvedRun, workspace: Workspace) -> ServingBundle:
    return run_stages(run, workspace, lambda event: None, lambda: False)


def weights(workspace: Workspace, key: str) -> dict[str, torch.Tensor]:
    """The tensors that a stage, or the checkpoint, holds, by their names in the classifier."""
    tensors = load_file(workspace.store.root / key / WEIGHTS)
    return {name if key.startswith("stage/") else f"body.{name}": tensor for name, tensor in tensors.items()}


def features(model: Classifier, encoder: TextEncoder) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval().features(*encoder.pad(encoder.encode(TEXTS), 16))


@pytest.fixture
def mixed(resolve: Callable[..., ResolvedRun], workspace: Workspace) -> tuple[ResolvedRun, ServingBundle]:
    run = resolve(MIXED)
    return run, train(run, workspace)


def test_stages_of_all_kinds_follow_each_other(
    mixed: tuple[ResolvedRun, ServingBundle], workspace: Workspace, tiny_checkpoint: Path
) -> None:
    """Head, adapters twice, all: every stage and the bundle hold the checkpoint's tensors and a head, and no others."""
    run, bundle = mixed
    names = load_pretrained(tiny_checkpoint, serving_config(run.plan), seed=0).state_dict().keys()
    for stage in bundle.stages:
        assert weights(workspace, stage.key).keys() == names
    folder = workspace.store.root / bundle.key
    assert {path.name for path in (folder / ADAPTERS).iterdir()} == {"1-first", "2-second"}
    assert load(folder / MODEL, device="cpu").probabilities(TEXTS).shape == (3, 2)


@pytest.mark.parametrize("place", [1, 2])
def test_what_is_kept_and_its_body_are_what_the_stage_left(
    mixed: tuple[ResolvedRun, ServingBundle], workspace: Workspace, tiny_checkpoint: Path, place: int
) -> None:
    """Its record leads to the body, where peft puts it, and the two give what the merged weights give."""
    from peft import PeftModel

    run, bundle = mixed
    result = bundle.stages[place]
    kept = workspace.store.root / bundle.key / ADAPTERS / f"{place}-{result.stage}"
    assert {path.read_bytes() for path in kept.iterdir()} == {
        path.read_bytes() for path in (workspace.store.root / result.key / ADAPTER).iterdir()
    }
    base = json.loads((kept / ADAPTER_CONFIG).read_text())["base_model_name_or_path"].removeprefix("graftwork://")
    assert base == {1: run.lock.key, 2: bundle.stages[1].key}[place]  # a head does not change the body
    apart, merged = (load_pretrained(tiny_checkpoint, serving_config(run.plan), seed=0) for _ in range(2))
    apart.load_state_dict(weights(workspace, base), strict=False)
    merged.load_state_dict(weights(workspace, result.key))
    encoder = TextEncoder(tiny_checkpoint, 16)
    without = features(apart, encoder)
    apart.body = PeftModel.from_pretrained(apart.body, kept).base_model
    torch.testing.assert_close(features(apart, encoder), features(merged, encoder), atol=2e-6, rtol=0)
    assert not torch.allclose(without, features(merged, encoder), atol=1e-3)


def test_only_adapted_layers_and_the_head_change(resolve: Callable[..., ResolvedRun], workspace: Workspace) -> None:
    """All else is the checkpoint's, to the bit: their biases, other layers, and the embeddings."""
    run = resolve("stages.1.train=[head, lora]", "stages.1.lora={targets: [query, output.dense], blocks: 'top:2'}")
    left = weights(workspace, train(run, workspace).stages[1].key)
    adapters = run.plan.stages[1].adapters
    assert adapters is not None and len(adapters.layers) == 2 * 3  # `output.dense` ends two names
    expected = {f"{layer}.weight" for layer in adapters.layers}
    before = weights(workspace, run.lock.key)
    assert {name for name in left if name in before and not torch.equal(left[name], before[name])} == expected


def test_adapters_above_a_cut_are_trained_as_without_it(
    resolve: Callable[..., ResolvedRun], workspace: Workspace
) -> None:
    """But for rounding, for rows are padded differently below it."""
    changes = ("stages.1.train=[head, lora]", "stages.1.lora={blocks: 'top:1', rank: 4}")
    runs = resolve(*changes), resolve(*changes, "train.prefix_cache=false")
    assert [run.plan.stages[1].cut for run in runs] == [2, 0]
    cut, whole = (weights(workspace, train(run, workspace).stages[1].key) for run in runs)
    for name, tensor in cut.items():
        torch.testing.assert_close(tensor, whole[name], atol=1e-4, rtol=1e-3)
