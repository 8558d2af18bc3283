"""The average of weights against a mean computed by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from graftwork.training.averaging import WeightAverage
from graftwork.training.stages import Averaging

STEPS, DECAY = 12, 0.8


def walk(average: WeightAverage) -> tuple[nn.Linear, np.ndarray]:
    """A layer whose weight takes a random step at a time, the bias frozen; and its weight after each, (steps, 1, 3)."""
    torch.manual_seed(4)
    layer = nn.Linear(3, 1)
    layer.bias.requires_grad_(False)
    seen = []
    for step in range(STEPS):
        with torch.no_grad():
            layer.weight += torch.randn(1, 3)
        average.update(layer, step)
        seen.append(layer.weight.detach().double().numpy().copy())
    return layer, np.array(seen)


@pytest.mark.parametrize(("after", "first"), [(0.0, 0), (0.5, 6), (0.9, 11)])
def test_each_step_weighs_decay_times_the_next(after: float, first: int) -> None:
    """The weighted mean over the steps that count, and of nothing before them; what is frozen has none."""
    average = WeightAverage(Averaging(DECAY, after), STEPS)
    _, seen = walk(average)
    expected = np.average(seen[first:], axis=0, weights=DECAY ** np.arange(STEPS - first)[::-1])
    assert average.tensors.keys() == {"weight"}
    np.testing.assert_allclose(average.tensors["weight"].numpy(), expected, rtol=1e-5)


def test_the_raw_weights_are_back_afterwards() -> None:
    """Also if what is done with the average ends in an error."""
    average = WeightAverage(Averaging(DECAY, 0.0), STEPS)
    layer, seen = walk(average)
    mean = average.tensors["weight"].clone()
    with pytest.raises(KeyError), average.in_place(layer):
        assert torch.equal(layer.weight, mean)
        raise KeyError
    np.testing.assert_array_equal(layer.weight.detach().numpy(), seen[-1])
    assert torch.equal(average.tensors["weight"], mean)


def test_nothing_is_averaged_unasked_or_too_early() -> None:
    """The model in its place is the raw one."""
    for averaging in (None, Averaging(DECAY, 0.99)):
        average = WeightAverage(averaging, 1000)
        layer, seen = walk(average)
        with average.in_place(layer):
            np.testing.assert_array_equal(layer.weight.detach().numpy(), seen[-1])


def test_what_batch_normalisation_counts_is_averaged_with_the_weights() -> None:
    """Of what is trained; how many batches it is of stays a number, and frozen statistics stay as they are."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.BatchNorm1d(2).requires_grad_(False).eval())
    average, seen = WeightAverage(Averaging(DECAY, 0.5), STEPS), []
    for step in range(STEPS):
        model(torch.randn(5, 3) + step)
        average.update(model, step)
        seen.append({name: tensor.double().numpy().copy() for name, tensor in model.state_dict().items()})
    weights = DECAY ** np.arange(STEPS // 2)[::-1]
    with average.in_place(model):
        found = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    for name in ("1.running_mean", "1.running_var"):
        expected = np.average([each[name] for each in seen[STEPS // 2 :]], axis=0, weights=weights)
        assert (found[name] != seen[-1][name]).any()
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)
        np.testing.assert_array_equal(model.state_dict()[name].numpy(), seen[-1][name].astype(np.float32))
    assert found["1.num_batches_tracked"] == STEPS
    assert not [name for name in average.tensors if name.startswith("2.")]
