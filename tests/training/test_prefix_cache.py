"""Activations of what is frozen: computed once, the same whatever is beside a row, and never trusted unseen."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from graftwork.fingerprint import file_digest
from graftwork.models import prefix_cache
from graftwork.models.prefix import cut_at
from graftwork.models.prefix_cache import KIND, SHARD, Arithmetic, PrefixCache
from graftwork.models.serving.classifier import Classifier, Pooling
from graftwork.models.serving.config import WEIGHTS, ServingConfig
from graftwork.models.serving.inference import infer
from graftwork.models.serving.text import TextEncoder
from graftwork.models.text import load_pretrained
from graftwork.storage import Store
from graftwork.training.bundle import MODEL
from graftwork.training.engine import run_stages
from graftwork.training.plan import ResolvedRun
from graftwork.workspace import Workspace

ARITHMETIC = Arithmetic("float32", ("here",))
TEXTS = [
    f"the {a} film {b} " + "and not very good " * (i % 3)
    for i, a in enumerate(["good", "dull", "long", "new"])
    for b in ["was bad", "is clever and moving", "cold"]
]


@pytest.fixture
def model(tiny_checkpoint: Path) -> Classifier:
    return load_pretrained(tiny_checkpoint, ServingConfig(("no", "yes"), ("text",), "mean", 16), seed=3)


@pytest.fixture
def encoder(tiny_checkpoint: Path) -> TextEncoder:
    return TextEncoder(tiny_checkpoint, 16)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


class Asked:
    """A cache, and how many rows it computed at each call."""

    def __init__(self, store: Store, encoder: TextEncoder, budget: int = 1 << 30, arithmetic: Arithmetic = ARITHMETIC):
        self.cache, self.encoder = PrefixCache(store, budget, arithmetic), encoder
        self.computed = 0

    def __call__(self, model: Classifier, texts: Sequence[str], depth: int = 2) -> list[torch.Tensor]:
        self.computed = 0
        rows = self.encoder.encode(list(texts))
        return self.cache.activations(cut_at(model, depth).lower, self.encoder, rows, self.count)

    def count(self, done: int, total: int) -> None:
        self.computed = done


def test_pooled_rows_are_the_features(
    model: Classifier, encoder: TextEncoder, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One vector a row, what the model itself pools from it, under a prefix of its own for each way of pooling."""
    rows, computed = encoder.encode(TEXTS), list[int]()
    cache = PrefixCache(store, 1 << 30, ARITHMETIC)
    for pooling in ("mean", "cls", "mean"):
        model.pool = Pooling(pooling, 32)
        vectors = torch.cat(cache.vectors(model, encoder, rows, lambda done, total: computed.append(done)))
        torch.testing.assert_close(vectors, infer(model, model.features, encoder, rows), atol=1e-6, rtol=1e-5)
    assert computed[-1] == len(TEXTS) and len(store.keys(KIND)) == 2
    monkeypatch.setattr(prefix_cache, "BATCH_TOKENS", 64)
    small = PrefixCache(Store(tmp_path / "small"), 1 << 30, ARITHMETIC)
    assert torch.equal(torch.cat(small.vectors(model, encoder, rows, lambda done, total: None)), vectors)


def test_only_new_rows_are_computed(model: Classifier, encoder: TextEncoder, store: Store) -> None:
    """The same rows again cost nothing, more rows what they are more, and a text that is there twice is one row."""
    ask = Asked(store, encoder)
    first = ask(model, TEXTS[:6])
    assert (ask.computed, len(first)) == (6, 6)
    ask(model, TEXTS[:6])
    assert ask.computed == 0
    more = ask(model, [*TEXTS, TEXTS[0]])
    assert ask.computed == len(TEXTS) - 6
    assert torch.equal(more[0], first[0]) and torch.equal(more[-1], first[0])


def test_a_row_depends_on_its_tokens_alone(
    model: Classifier, encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, in another order or in other batches, the bits are those of all together."""
    together = Asked(Store(tmp_path / "a"), encoder)(model, TEXTS)
    backwards = Asked(Store(tmp_path / "b"), encoder)(model, TEXTS[::-1])[::-1]
    monkeypatch.setattr(prefix_cache, "BATCH_TOKENS", 64)
    small = Asked(Store(tmp_path / "c"), encoder)(model, TEXTS)
    for row, other, third in zip(together, backwards, small, strict=True):
        assert torch.equal(row, other) and torch.equal(row, third)


def test_another_body_depth_or_machine_is_another_prefix(model: Classifier, encoder: TextEncoder, store: Store) -> None:
    """It is the frozen tensors themselves that count: one that was moved by a hair gives activations of its own."""
    ask = Asked(store, encoder)
    ask(model, TEXTS)
    ask(model, TEXTS, depth=1)
    assert ask.computed == len(TEXTS)
    elsewhere = Asked(store, encoder, arithmetic=Arithmetic("float32", ("elsewhere",)))
    elsewhere(model, TEXTS)
    assert elsewhere.computed == len(TEXTS)
    with torch.no_grad():
        model.body.encoder.layer[2].output.dense.bias += 1e-3  # above the cut
    ask(model, TEXTS)
    assert ask.computed == 0
    with torch.no_grad():
        model.body.encoder.layer[0].output.dense.bias += 1e-3
    ask(model, TEXTS)
    assert ask.computed == len(TEXTS)


def test_a_damaged_shard_is_computed_again(model: Classifier, encoder: TextEncoder, store: Store) -> None:
    """A flipped bit is found before a row is used."""
    ask = Asked(store, encoder)
    expected = [row.clone() for row in ask(model, TEXTS)]
    (key,) = store.keys(KIND)
    file = store.root / key / SHARD
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.unlink()
    file.write_bytes(content)
    again = ask(model, TEXTS)
    assert ask.computed == len(TEXTS)
    assert all(torch.equal(row, other) for row, other in zip(expected, again, strict=True))


def test_what_was_computed_before_a_stop_stays(
    model: Classifier, encoder: TextEncoder, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shard by shard."""
    monkeypatch.setattr(prefix_cache, "SHARD_BYTES", 2000)
    ask, cache = Asked(store, encoder), PrefixCache(store, 1 << 30, ARITHMETIC)

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.activations(cut_at(model, 2).lower, encoder, encoder.encode(TEXTS), stop)
    ask(model, TEXTS)
    assert 0 < ask.computed < len(TEXTS)


def test_the_budget_is_kept_by_what_is_not_in_use(model: Classifier, encoder: TextEncoder, store: Store) -> None:
    """The older prefix goes; the one in use stays, even if it alone is over the budget."""
    Asked(store, encoder)(model, TEXTS, depth=1)
    (old,) = store.keys(KIND)
    assert len(Asked(store, encoder, budget=100)(model, TEXTS, depth=2)) == len(TEXTS)
    assert old not in store.keys(KIND)
    assert len(store.keys(KIND)) == 1


def train(run: ResolvedRun, workspace: Workspace) -> tuple[Path, list[dict[str, Any]]]:
    """The weights file of the trained bundle, and the events on the way."""
    events: list[dict[str, Any]] = []
    bundle = run_stages(run, workspace, events.append, lambda: False)
    return workspace.store.root / bundle.key / MODEL / WEIGHTS, events


def test_a_warm_cache_changes_no_bit(resolve: Callable[..., ResolvedRun], workspace: Workspace, tmp_path: Path) -> None:
    """Another run on the same frozen part computes nothing, and ends as it would have without the cache's help."""
    train(resolve("train.seed=5"), workspace)
    run = resolve()
    warm, events = train(run, workspace)
    assert "prefix" not in {event["event"] for event in events}
    fresh = Store(tmp_path / "fresh")
    for key in workspace.store.keys("run") + workspace.store.keys("dataset") + workspace.store.keys("checkpoint"):
        target = fresh.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(workspace.store.root / key)
    cold, events = train(run, replace(workspace, store=fresh))
    assert "prefix" in {event["event"] for event in events}
    assert file_digest(cold) == file_digest(warm)


def test_training_on_the_cache_is_training(resolve: Callable[..., ResolvedRun], workspace: Workspace) -> None:
    """Frozen tensors are the checkpoint's to the bit, trained ones what they are without it but for rounding."""
    run = resolve()
    assert [(stage.cut, stage.is_pooled) for stage in run.plan.stages] == [(3, True), (2, False)]
    cut, whole = (load_file(train(each, workspace)[0]) for each in (run, resolve("train.prefix_cache=false")))
    frozen = load_file(workspace.store.root / run.lock.key / WEIGHTS)
    for name, tensor in cut.items():
        if name.startswith(("body.encoder.layer.2.", "head.")):
            torch.testing.assert_close(tensor, whole[name], atol=1e-4, rtol=1e-3)
            assert name.startswith("head.") or name.endswith("key.bias") or not torch.equal(tensor, frozen[name[5:]])
        else:
            assert torch.equal(tensor, frozen[name[5:]])


def test_a_head_is_trained_on_vectors_as_on_tokens(resolve: Callable[..., ResolvedRun], workspace: Workspace) -> None:
    """The same batches and the same dropout: weights and losses differ by rounding, 1e-5 at most."""
    stages = "stages=[{name: head, train: head, epochs: 3, learning_rate: 1e-2}]"
    ends, curves = [], []
    for run in (resolve(stages), resolve(stages, "train.prefix_cache=false")):
        bundle = run_stages(run, workspace, lambda event: None, lambda: False)
        ends.append(load_file(workspace.store.root / bundle.key / MODEL / WEIGHTS))
        curves.append([(step.step, step.loss) for step in bundle.stages[0].steps])
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], atol=1e-5, rtol=1e-5)
    assert curves[0] == [(step, pytest.approx(loss, abs=1e-5)) for step, loss in curves[1]]
    assert (
        not resolve(stages, "input.pooling=attention").plan.stages[0].is_pooled
    )  # what pools is trained with the head
    kept = [load_file(workspace.store.root / key / SHARD)["states"].shape for key in workspace.store.keys(KIND)]
    assert kept == [(run.plan.rows["train"] + run.plan.rows["validation"], 32)]
