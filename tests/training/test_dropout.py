import pytest
import torch
from torch import nn

from graftwork.training.dropout import QuickDropout, quicken_dropout


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_it_drops_so_many_and_keeps_the_mean(probability: float) -> None:
    """Of a million elements so many are zero as was asked for, and the others are scaled up for it."""
    torch.manual_seed(0)
    dropped = QuickDropout(probability)(torch.ones(1000, 1000))
    assert (dropped == 0).double().mean().item() == pytest.approx(probability, abs=0.003)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / (1 - probability)], rel=1e-4)


def test_a_gradient_passes_where_an_element_did() -> None:
    """The gradient of the sum is the mask with its scale."""
    states = torch.randn(7, 5, requires_grad=True)
    dropped = QuickDropout(0.3)(states)
    dropped.sum().backward()
    assert states.grad is not None
    assert torch.allclose(states.grad * states, dropped)


def test_torch_seeds_it_and_masks_differ() -> None:
    """The same seed gives the same masks in the same order; one mask is not the next."""

    def masks() -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(3)
        return QuickDropout(0.5)(torch.ones(9, 9)), QuickDropout(0.5)(torch.ones(9, 9))

    (first, second), again = masks(), masks()
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])
    assert not torch.equal(first, second)


def test_eval_mode_and_lower_precision_are_as_with_torch() -> None:
    """Nothing is dropped in eval mode; bfloat16 stays bfloat16."""
    states = torch.randn(4, 4, dtype=torch.bfloat16)
    assert torch.equal(QuickDropout(0.5).eval()(states), states)
    assert QuickDropout(0.5)(states).dtype == torch.bfloat16


def test_it_takes_the_place_of_every_dropout_on_a_cpu() -> None:
    """Nested ones too, each at its own probability; elsewhere torch's stay."""

    def make() -> nn.Module:
        return nn.Sequential(nn.Dropout(0.1), nn.ModuleDict({"inner": nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2))}))

    model = make()
    quicken_dropout(model, torch.device("cpu"))
    assert [m.p for m in model.modules() if isinstance(m, QuickDropout)] == [0.1, 0.2]
    assert not any(type(module) is nn.Dropout for module in model.modules())
    other = make()
    quicken_dropout(other, torch.device("cuda"))
    assert sum(type(module) is nn.Dropout for module in other.modules()) == 2
