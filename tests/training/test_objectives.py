"""Stages that learn without a head, or against an adversary: their losses by hand, and what they leave."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from sklearn.neighbors import NearestNeighbors
from torch import nn

from graftwork.errors import RecipeError, TrainingError
from graftwork.models.contrastive import contrastive_loss, measure_nearness
from graftwork.models.serving.config import WEIGHTS, ServingConfig
from graftwork.models.serving.text import TextEncoder
from graftwork.models.text import load_pretrained
from graftwork.training.adversary import Attack, add_plain_gradient
from graftwork.training.engine import check_processes, run_stages
from graftwork.training.plan import ResolvedRun
from graftwork.training.stages import Adversary
from graftwork.workspace import Workspace

CONFIG = ServingConfig(("no", "yes"), ("text",), "mean", 16)
FEW = (
    "stages.0={name: pairs, objective: contrastive, train: 'top:1', epochs: 4, learning_rate: 1e-3}",
    "stages.1={name: head, train: head, solver: lbfgs}",
)


def test_the_contrastive_loss_of_three_rows_by_hand() -> None:
    """Two of a class at a right angle, a third near the first; the third has no other of its class."""
    features = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 4.0]])  # cosines: 0, 0.6, 0.8
    expected = (math.log(1 + math.exp(0.6 / 0.5)) + math.log(1 + math.exp(0.8 / 0.5))) / 2
    loss = contrastive_loss(features, torch.tensor([1, 1, 0]), temperature=0.5)
    assert loss.item() == pytest.approx(expected)
    assert contrastive_loss(features, torch.tensor([0, 1, 2]), temperature=0.5).item() == 0


@given(st.integers(2, 40), st.integers(0, 99))
@settings(max_examples=50)
def test_the_nearest_neighbour_is_another_row(rows: int, seed: int) -> None:
    """As scikit-learn finds it."""
    generator = torch.Generator().manual_seed(seed)
    features, labels = torch.randn(rows, 5, generator=generator), torch.randint(0, 3, (rows,), generator=generator)
    found = NearestNeighbors(n_neighbors=1, metric="cosine").fit(features).kneighbors(return_distance=False)[:, 0]
    expected = (labels[found] == labels).double().mean().item()
    loss, accuracy = measure_nearness(features, labels, temperature=0.5)
    assert accuracy == pytest.approx(expected)
    assert loss == pytest.approx(contrastive_loss(features, labels, temperature=0.5).item(), abs=1e-5)


def test_bfloat16_does_not_reach_it() -> None:
    """Cosines near one would all be the same."""
    features, labels = 5 + torch.randn(20, 8, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = contrastive_loss(features, labels, temperature=0.1)
    assert torch.equal(found, contrastive_loss(features, labels, temperature=0.1))


def test_several_processes_are_refused_before_anything_is_trained(resolve: Callable[..., ResolvedRun]) -> None:
    """Whichever stage it is that compares the rows of a batch."""
    plan = resolve(*FEW).plan
    check_processes(plan, 1)
    with pytest.raises(TrainingError, match="GRAFTWORK_PROCESSES: stage 'pairs' compares the rows"):
        check_processes(plan, 2)


def test_few_rows_are_brought_together_and_a_head_is_fitted(
    resolve: Callable[..., ResolvedRun], workspace: Workspace
) -> None:
    """The stage runs on cached activations, moves its block alone, and its rows lie nearer to their class after it."""
    run = resolve(*FEW)
    pairs, _ = run.plan.stages
    assert ([*pairs.rates], pairs.cut) == (["block.2"], 2)
    bundle = run_stages(run, workspace, lambda event: None, lambda: False)
    left = load_file(workspace.store.root / pairs.key / WEIGHTS)
    fresh = load_pretrained(workspace.store.root / run.lock.key, CONFIG, seed=run.plan.seed).state_dict()
    moved = {name for name in left if not torch.equal(left[name], fresh[name])}
    assert moved
    assert all(name.startswith("body.encoder.layer.2.") for name in moved)
    assert bundle.stages[0].best.train_loss > 0


def test_an_attack_is_made_of_autograd_s_own_gradients(tiny_checkpoint: Path) -> None:
    """One step: the mean of the gradients at the embeddings and at embeddings that lie epsilon up the gradient."""
    model, encoder = load_pretrained(tiny_checkpoint, CONFIG, seed=3).eval(), TextEncoder(tiny_checkpoint, 16)
    ids, mask = encoder.pad(encoder.encode(["a good film", "bad"]), 6)
    labels, weight = torch.tensor([1, 0]), model.head[-1].weight

    def loss() -> torch.Tensor:
        return nn.functional.cross_entropy(model(ids, mask), labels)

    value = Attack(model.body, None, Adversary(epsilon=0.5, steps=1))(loss)
    found = weight.grad.clone()
    embedding = model.body.get_input_embeddings()
    states: list[torch.Tensor] = []

    def keep(_module: nn.Module, _given: object, out: torch.Tensor) -> torch.Tensor:
        states.append(out.detach().requires_grad_())
        return states[-1]

    handle = embedding.register_forward_hook(keep)
    model.zero_grad()
    assert add_plain_gradient(loss) == pytest.approx(value)
    plain, gradient = weight.grad.clone(), states[0].grad
    handle.remove()
    moved = states[0].detach() + 0.5 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None]
    handle = embedding.register_forward_hook(lambda *_: moved)
    model.zero_grad()
    assert add_plain_gradient(loss) > value
    handle.remove()
    torch.testing.assert_close(found, (plain + weight.grad) / 2)


def test_an_attack_leaves_nothing_behind(tiny_checkpoint: Path) -> None:
    """No hook, and the same logits."""
    model, encoder = load_pretrained(tiny_checkpoint, CONFIG, seed=3).eval(), TextEncoder(tiny_checkpoint, 16)
    ids, mask = encoder.pad(encoder.encode(["a good film", "bad"]), 6)
    before = model(ids, mask).detach()
    Attack(model.body, None, Adversary(epsilon=1.0, steps=3))(lambda: model(ids, mask).logsumexp(1).mean())
    assert not model.body.get_input_embeddings()._forward_hooks
    assert torch.equal(model(ids, mask), before)


def test_an_adversary_is_met_in_the_loop_and_never_below_a_cache(
    resolve: Callable[..., ResolvedRun], workspace: Workspace
) -> None:
    """Frozen blocks are computed in each step, since what they read is moved; other weights come of it."""
    plain, attacked = resolve(), resolve("stages.1.adversary={epsilon: 0.5, steps: 2}")
    assert [stage.cut for stage in plain.plan.stages] == [3, 2]
    assert [stage.cut for stage in attacked.plan.stages] == [3, 0]
    first, second = (run_stages(run, workspace, lambda event: None, lambda: False) for run in (plain, attacked))
    assert first.stages[0] == second.stages[0]
    assert first.stages[1].weights_digest != second.stages[1].weights_digest
    assert second.stages[1].best.validation_accuracy > 0.5


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (
            "{name: a, objective: contrastive, train: all, epochs: 1, learning_rate: 1, augment: {word_dropout: 0.1}}",
            "trains no head and takes no augment",
        ),
        ("{name: a, train: all, epochs: 1, learning_rate: 1, temperature: 0.2}", "temperature is for"),
        ("{name: a, train: all, epochs: 1, learning_rate: 1, adversary: {epsilon: 0}}", "adversary.epsilon"),
    ],
)
def test_what_can_t_be_meant_is_refused(resolve: Callable[..., ResolvedRun], stage: str, message: str) -> None:
    """Before anything is spent."""
    with pytest.raises(RecipeError, match=message):
        resolve(f"stages.0={stage}")
