"""The stage's optimiser against torch's own and a hand-computed table."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from graftwork.models.catalog import DepthGroup
from graftwork.training.optimizer import (
    Pull,
    add_pull,
    build_optimizer,
    clip_gradients,
    freeze,
    rate_scale,
    set_modes,
    set_rates,
)


class Net(nn.Module):
    """Two layers and a normalisation, with dropout in each part."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
        self.high = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Dropout(0.5))


GROUPS = (DepthGroup("low", 0, 12, ("low.",)), DepthGroup("high", 1, 12, ("high.",)))


def step(net: Net, optimizer: torch.optim.Optimizer) -> None:
    net.high(net.low(torch.ones(4, 3))).square().sum().backward()
    optimizer.step()


def test_a_frozen_group_does_not_move_and_holds_no_gradient() -> None:
    """Even with weight decay, and after a step in which it was trained: AdamW moves a zero gradient's parameter."""
    net = Net()
    both = build_optimizer(net, GROUPS, {"low": 0.1, "high": 0.1}, weight_decay=0.5)
    set_rates(both, 1.0)
    step(net, both)
    freeze(net, GROUPS, {"high": 0.1})
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    optimizer = build_optimizer(net, GROUPS, {"high": 0.1}, weight_decay=0.5)
    set_rates(optimizer, 1.0)
    step(net, optimizer)
    after = net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("low."))
    assert not torch.equal(before["high.0.weight"], after["high.0.weight"])
    assert all(parameter.grad is None for parameter in net.low.parameters())


def test_frozen_parts_run_without_dropout() -> None:
    """Eval mode where nothing is trained, training mode elsewhere."""
    net = Net()
    freeze(net, GROUPS, {"high": 0.1})
    set_modes(net)
    assert not any(module.training for module in net.low.modules())
    assert all(module.training for module in net.high.modules())


def test_each_group_has_its_rate_and_only_matrices_decay() -> None:
    """Against the parameter groups one would write by hand."""
    optimizer = build_optimizer(Net(), GROUPS, {"low": 0.1, "high": 0.2}, weight_decay=0.01)
    set_rates(optimizer, 0.5)
    found = [(group["lr"], group["weight_decay"], len(group["params"])) for group in optimizer.param_groups]
    assert found == [(0.05, 0.01, 1), (0.05, 0.0, 1), (0.1, 0.01, 1), (0.1, 0.0, 3)]


def test_the_pull_is_the_gradient_of_the_squared_distance() -> None:
    """Against autograd on the penalty itself; what has no start is not pulled, and what has no gradient gets none."""
    net = Net()
    start = {name: torch.randn_like(p) for name, p in net.named_parameters() if name.startswith("low.")}
    net.low[0].bias.requires_grad_(False)
    data = net.high(net.low(torch.ones(4, 3))).square().sum()
    penalty = 0.15 * (net.low[0].weight - start["low.0.weight"]).square().sum()
    trained = [p for p in net.parameters() if p.requires_grad]
    expected = torch.autograd.grad(data + penalty, trained, retain_graph=True)
    data.backward()
    add_pull(net, Pull(0.3, start))
    for parameter, gradient in zip(trained, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert net.low[0].bias.grad is None


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("constant", [0.5, 1.0] + [1.0] * 8),
    ],
)
def test_rates_follow_the_schedule(schedule: str, expected: list[float]) -> None:
    """Ten steps, two of warm-up: a table made by hand."""
    assert [rate_scale(step, 10, 0.2, schedule) for step in range(10)] == pytest.approx(expected)


@pytest.mark.parametrize(("steps", "warmup"), [(20, 0.3), (37, 0.1), (50, 0.9)])
def test_one_cycle_equals_torch(steps: int, warmup: float) -> None:
    """Torch's OneCycleLR without its momentum."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, steps, pct_start=warmup, cycle_momentum=False)
    for index in range(steps):
        assert rate_scale(index, steps, warmup, "one-cycle") == pytest.approx(scheduler.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        if index < steps - 1:
            scheduler.step()


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant", "one-cycle"])
@given(steps=st.integers(1, 300), warmup=st.floats(0, 0.99))
def test_rates_are_shares_of_the_peak(schedule: str, steps: int, warmup: float) -> None:
    """However short the stage; none of them is past its end before the last step."""
    scales = [rate_scale(step, steps, warmup, schedule) for step in range(steps)]
    assert all(0 < scale <= 1 for scale in scales)
    assert max(scales) > 0.5 or steps < 3


def test_cosine_equals_torch() -> None:
    """Without warm-up it is torch's CosineAnnealingLR."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for index in range(20):
        assert rate_scale(index, 20, 0.0, "cosine") == pytest.approx(scheduler.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("norm", [0.01, 1000.0])
def test_clipping_is_that_of_torch(norm: float) -> None:
    """Two steps end where torch's clip_grad_norm_ before the same optimiser's step ends, clipped or not."""
    torch.manual_seed(0)
    ours = Net().eval()
    theirs = copy.deepcopy(ours)
    for net in (ours, theirs):
        optimizer = build_optimizer(net, GROUPS, {"low": 0.1, "high": 0.2}, weight_decay=0.01)
        set_rates(optimizer, 1.0)
        for _ in range(2):
            net.high(net.low(torch.ones(4, 3) * 5)).pow(3).sum().backward()
            if net is ours:
                clip_gradients(optimizer, norm)
            else:
                torch.nn.utils.clip_grad_norm_(net.parameters(), norm)
            optimizer.step()
            optimizer.zero_grad()
    for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found, expected)
