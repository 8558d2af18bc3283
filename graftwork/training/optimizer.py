"""The optimiser of one stage: built from its depth groups and nothing else, its rate a pure function of the step."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graftwork.models.catalog import DepthGroup
from graftwork.models.serving.decoder import Decoder
from graftwork.models.towers import TextTower

FIRST_SHARE, LAST_SHARE = 1 / 25, 1 / 25e4  # of the peak rate, in one cycle


def freeze(model: nn.Module, groups: Sequence[DepthGroup], trained: Mapping[str, float]) -> None:
    """Let only the named depth groups take gradients.

    A frozen parameter holds no gradient: AdamW would still move one whose gradient is zero. A group may be a part of
    earlier ones, as adapters are of the blocks they lie in: the last word on a parameter counts.
    """
    for group in groups:
        for _, parameter in group_parameters(model, group):
            parameter.requires_grad_(group.name in trained)
            parameter.grad = None


def set_modes(model: nn.Module, has_body_dropout: bool = True) -> None:
    """Training mode where something is trained, eval mode (no dropout) in parts that are wholly frozen.

    has_body_dropout: if not, the whole `body` is in eval mode, and so is what was pretrained with it, a decoder or the
    tower of texts; that takes no gradient from what is trained in them.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
    for dropout in _dropouts_on_embeddings(model):
        dropout.eval()
    if not has_body_dropout:
        model.get_submodule("body").eval()
        for beside in [module for module in model.modules() if isinstance(module, Decoder | TextTower)]:
            beside.eval()


def _dropouts_on_embeddings(model: nn.Module) -> list[nn.Module]:
    """Those that act on frozen embeddings and have no parameters that would tell: GPT-2's and T5's bodies have one."""
    body: Any = getattr(model, "body", None)
    if body is None or model.modality != "text" or next(body.get_input_embeddings().parameters()).requires_grad:
        return []
    return [module for module in body.children() if isinstance(module, nn.Dropout)]


def build_optimizer(
    model: nn.Module, groups: Sequence[DepthGroup], rates: Mapping[str, float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW over the trained depth groups, each at its own peak rate; biases and normalisations are not decayed.

    Each parameter group keeps its peak rate in `peak`. Method: decoupled weight decay (Loshchilov and Hutter 2019).
    """
    parameter_groups = []
    for group in groups:
        if group.name not in rates:
            continue
        named = list(group_parameters(model, group))
        for decay, members in (
            (weight_decay, [parameter for _, parameter in named if parameter.ndim > 1]),
            (0.0, [parameter for _, parameter in named if parameter.ndim <= 1]),
        ):
            if members:
                parameter_groups.append({"params": members, "peak": rates[group.name], "weight_decay": decay})
    return torch.optim.AdamW(parameter_groups, lr=0.0, fused=True)


@dataclass(frozen=True)
class Pull:
    """Back to where parameters started, by name. worth: what each entry counts; None: all the same."""

    strength: float
    start: Mapping[str, torch.Tensor]
    worth: Mapping[str, torch.Tensor] | None = None


def add_pull(model: nn.Module, pull: Pull) -> None:
    """Add the gradient of strength / 2 x the squared distance of the parameters from their start, each by its worth.

    Methods: L2-SP (Li, Grandvalet and Davoine 2018); by worth, elastic weight consolidation (Kirkpatrick et al. 2017).
    """
    for name, parameter in model.named_parameters():
        if name not in pull.start or parameter.grad is None:
            continue
        distance = parameter.detach() - pull.start[name]
        if pull.worth is not None:
            distance *= pull.worth[name]
        parameter.grad.add_(distance, alpha=pull.strength)


def set_rates(optimizer: torch.optim.Optimizer, scale: float) -> None:
    """Each parameter group's rate becomes its peak times `scale`."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * scale


def clip_gradients(optimizer: torch.optim.Optimizer, norm: float) -> None:
    """Have the optimiser's next step divide the gradients so that their norm over all parameters is `norm` at most.

    The division is the fused kernel's own, which mixed precision uses: scaled by themselves, the gradients would be
    read and written once more. Method: Pascanu et al. 2013.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    total = nn.utils.get_total_norm(gradients)
    scaled: Any = optimizer
    scaled.grad_scale = torch.clamp(total / norm, min=1.0)


def rate_scale(step: int, steps: int, warmup: float, schedule: str) -> float:
    """The share of the peak rate at a step (0 … steps - 1): up over the `warmup` share, then along the schedule."""
    if schedule == "one-cycle":
        return _one_cycle(step, steps, warmup)
    rising = max(1, round(warmup * steps)) if warmup else 0
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    if schedule == "constant":
        return 1.0
    return _half_cosine(1.0, 0.0, done) if schedule == "cosine" else 1.0 - done


def _one_cycle(step: int, steps: int, warmup: float) -> float:
    """Along half a cosine from 1/25 to 1, along another to almost nothing at the last step.

    Only the rate: AdamW's betas stay. Method: one cycle (Smith 2018), with torch's cosines and ends.
    """
    peak = max(0.0, warmup * steps - 1)
    if step < peak:
        return _half_cosine(FIRST_SHARE, 1.0, step / peak)
    return _half_cosine(1.0, LAST_SHARE, (step - peak) / (steps - 1 - peak)) if step > peak else 1.0


def _half_cosine(first: float, last: float, done: float) -> float:
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * done))


def group_parameters(model: nn.Module, group: DepthGroup) -> Iterator[tuple[str, nn.Parameter]]:
    """The named parameters that belong to a depth group."""
    return ((name, parameter) for name, parameter in model.named_parameters() if name.startswith(group.prefixes))
