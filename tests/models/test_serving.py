"""The classifier and its inference, on tiny models of every architecture."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TEXT_FAMILIES, write_served

from graftwork.errors import CheckpointError
from graftwork.models.serving.classifier import Pooling
from graftwork.models.serving.config import WEIGHTS, ServingConfig
from graftwork.models.serving.inference import canonical_length, inference_batches
from graftwork.models.serving.model import ServingModel, load
from graftwork.models.serving.text import TextEncoder
from graftwork.models.text import load_pretrained
from graftwork.training.bundle import copy_serving_code

TEXTS = ["a good film", "bad", "the plot was very very long and the acting was dull", "", "great " * 12]
CONFIG = ServingConfig(classes=("no", "yes"), columns=("text",), pooling="mean", max_tokens=16)


def write_bundle(checkpoint: Path, folder: Path, config: ServingConfig = CONFIG) -> ServingModel:
    """A serving folder of an untrained classifier, and the model it holds."""
    write_served(checkpoint, folder, config)
    return load(folder)


@pytest.mark.parametrize("architecture", TEXT_FAMILIES)
@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max", "attention"])
def test_batched_probabilities_equal_those_of_single_rows(
    architecture: str, pooling: str, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Padding and neighbours change nothing that matters: each row alone gives the same, to rounding."""
    config = ServingConfig(("no", "yes"), ("text",), pooling, 16)
    model = write_bundle(make_checkpoint(architecture), tmp_path, config)
    together = model.probabilities(TEXTS)
    alone = np.concatenate([model.probabilities([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together.sum(axis=1), 1.0)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_text_without_tokens_is_one(architecture: str, make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Where the tokenizer puts nothing around a text: it is answered, and its neighbours' answers are their own."""
    model = write_bundle(make_checkpoint(architecture), tmp_path, replace(CONFIG, pooling="last"))
    assert model.encoder.tokenizer.pad_token_id is None
    assert model.encoder.encode(["", "bad"]) == [[model.encoder.filler], model.encoder.encode(["bad"])[0]]
    assert np.isfinite(model.probabilities(TEXTS)).all()


def test_mean_pooling_is_the_mean_over_real_tokens(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Against transformers' own encoder and a hand-written mean."""
    model = write_bundle(tiny_checkpoint, tmp_path)
    ids = model.encoder.encode(["a good film"])
    states = model.model.body(input_ids=torch.tensor(ids)).last_hidden_state[0]
    np.testing.assert_allclose(model.features(["a good film"])[0], states.mean(0).detach().numpy(), atol=1e-6)


def test_max_pooling_is_the_largest_real_value() -> None:
    """Also where it is below what padding would give."""
    states = torch.tensor([[[-3.0, 1.0], [-1.0, -2.0], [0.0, 9.0]], [[-3.0, -4.0], [0.0, 0.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert Pooling("max", 2)(states, mask).tolist() == [[-1.0, 1.0], [-3.0, -4.0]]


def test_attention_pooling_is_a_softmax_over_real_tokens() -> None:
    """Against numpy; it begins as the mean, and its gradient does not vanish there."""
    mean, pool = Pooling("mean", 3), Pooling("attention", 3)
    states, mask = torch.randn(2, 4, 3), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    torch.testing.assert_close(pool(states, mask), mean(states, mask))
    pool(states, mask)[:, 0].sum().backward()
    assert pool.query.grad is not None and pool.query.grad.abs().max() > 0
    with torch.no_grad():
        pool.query.copy_(torch.tensor([1.0, -2.0, 0.5]))
    for row, length, pooled in zip(states.numpy(), (4, 2), pool(states, mask).detach().numpy(), strict=True):
        weights = np.exp(row[:length] @ pool.query.detach().numpy() / np.sqrt(3))
        np.testing.assert_allclose(pooled, weights @ row[:length] / weights.sum(), rtol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_only_attention_adds_a_tensor(tiny_checkpoint: Path, pooling: str) -> None:
    """Bundles that were written before it was there hold these tensors, by these names."""
    before = {"head.1.weight", "head.1.bias"}
    model = load_pretrained(tiny_checkpoint, replace(CONFIG, pooling=pooling), seed=0)
    assert {name for name in model.state_dict() if not name.startswith("body.")} == before
    model = load_pretrained(tiny_checkpoint, replace(CONFIG, pooling="attention"), seed=0)
    assert {name for name in model.state_dict() if not name.startswith("body.")} == before | {"pool.query"}


def test_pairs_are_encoded_as_pairs(tiny_checkpoint: Path) -> None:
    """Two columns give one sequence with a separator between them."""
    encoder = TextEncoder(tiny_checkpoint, 16)
    [pair], [first] = encoder.encode([("a good film", "bad plot")]), encoder.encode(["a good film"])
    assert pair[: len(first)] == first
    assert len(pair) == len(first) + 3


def test_batches_hold_every_row_once_within_the_budget() -> None:
    """No row is lost or repeated, none is padded beyond its canonical length, or beyond what the model reads."""
    rows = [[1] * length for length in (1, 8, 9, 30, 128, 500, 600, 7, 33)]
    seen = []
    for length, indices in inference_batches(rows, batch_tokens=256, max_tokens=600):
        assert len(indices) == 1 or len(indices) * length <= 256
        assert all(min(canonical_length(len(rows[index])), 600) == length for index in indices)
        seen += indices
    assert sorted(seen) == list(range(len(rows)))


def test_a_bundle_with_a_tensor_missing_is_not_loaded(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """`load` names the tensor instead of drawing it at random."""
    write_bundle(tiny_checkpoint, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    del tensors["head.1.bias"]
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(RuntimeError, match=r"head\.1\.bias"):
        load(tmp_path)


def test_a_checkpoint_with_a_tensor_missing_is_not_loaded(
    make_checkpoint: Callable[..., Path],
) -> None:
    """transformers would draw it at random and go on."""
    folder = make_checkpoint()
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"encoder\.layer\.1\.output\.dense\.weight is missing"):
        load_pretrained(folder, CONFIG, seed=0)


def test_a_tensor_of_another_shape_is_told_by_its_name(make_checkpoint: Callable[..., Path]) -> None:
    """As a missing one is, in the place of an error of the library."""
    folder = make_checkpoint("bert")
    bent = "encoder.layer.1.output.dense.weight"
    tensors = load_file(folder / WEIGHTS)
    name = next(each for each in tensors if each.endswith(bent))
    save_file(tensors | {name: torch.ones(3, 3)}, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"{bent} has shape \(3, 3\) in the checkpoint"):
        load_pretrained(folder, CONFIG, seed=0)


@pytest.mark.e2e
def test_serving_code_runs_without_the_package(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The folder that travels with a bundle predicts where Graftwork is not importable, and gives the same."""
    expected = write_bundle(tiny_checkpoint, tmp_path).probabilities(TEXTS)
    copy_serving_code(tmp_path)
    script = (
        "import sys; sys.modules['graftwork'] = None; from serving.model import load; "
        f"print(load({str(tmp_path)!r}).probabilities({TEXTS!r}).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    np.testing.assert_allclose(np.array(eval(done.stdout)), expected)


def test_bfloat16_is_asked_for(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """It gives other bits, and the same to what bfloat16 can tell apart; float32 is what one gets unasked."""
    exact = write_bundle(tiny_checkpoint, tmp_path)
    quick = load(tmp_path, precision="bfloat16")
    expected, found = exact.probabilities(TEXTS), quick.probabilities(TEXTS)
    assert exact.precision == "float32"
    assert (found != expected).any()
    np.testing.assert_allclose(found, expected, atol=0.01)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
