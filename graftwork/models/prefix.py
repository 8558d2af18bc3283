"""A classifier cut in two at a depth: the part below, which gives a row's activations, and the part that goes on."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from graftwork.models.catalog import ADDS_NOTHING, HANDS_ON, IS_GONE, family_of
from graftwork.models.serving.classifier import Classifier

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class CutModel:
    """Both parts share their modules with the classifier that was cut.

    lower: token ids and mask, both (batch, tokens), to activations, (batch, tokens, width), as `last_hidden_state`.
    upper: activations and mask to logits, (batch, classes).
    """

    lower: nn.Module
    upper: Classifier


class FromActivations(nn.Module):
    """A body that is given activations in the place of token ids.

    copied: a module of it that is a copy, and the original, which is put into training or eval mode in its place.
    """

    def __init__(self, body: nn.Module, copied: tuple[nn.Module, nn.Module] | None) -> None:
        super().__init__()
        self.body = body
        self._copied = copied  # in a tuple, which modules are not looked for in

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        if self._copied is not None:
            copy, original = self._copied
            copy.training = original.training
        return self.body(inputs_embeds=input_ids, attention_mask=attention_mask)


class NeckAlone(nn.Module):
    """A body of which no block is left."""

    def __init__(self, body: nn.Module, neck: Sequence[str]) -> None:
        super().__init__()
        self.neck = nn.Sequential(*(body.get_submodule(prefix.rstrip(".")) for prefix in neck))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:  # noqa: ARG002
        return SimpleNamespace(last_hidden_state=self.neck(input_ids))


class HandsOn(nn.Module):
    """Stands where something was done to activations already: what comes in goes out."""

    def forward(self, *given: Any, **named: Any) -> Tensor:
        every = (*given, *named.values())
        return next(each for each in every if isinstance(each, Tensor) and each.is_floating_point())


class AddsNothing(nn.Module):
    """Stands where positions were added that are in the activations already."""

    def forward(self, *_given: Any) -> Tensor:
        return torch.zeros(())


class HeadAlone(nn.Module):
    """What is above the whole body: pooled vectors, (batch, width), to logits, (batch, classes)."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, vectors: Tensor, _mask: Tensor) -> Tensor:
        return self.head(vectors)


REPLACED: Mapping[str, type[nn.Module] | None] = {HANDS_ON: HandsOn, ADDS_NOTHING: AddsNothing, IS_GONE: None}


def cut_at(model: Classifier, depth: int) -> CutModel:
    """The classifier cut above its embeddings and its `depth` lowest blocks; its neck, if it has one, is above."""
    config: Any = model.body.config
    family = family_of(config.model_type)
    path = family.blocks.rstrip(".").split(".")
    upper, body = _shallow_copy(model), _with_blocks(model.body, path, slice(depth, None))
    for name, does in family.above.items():
        _replace(body, name.split("."), REPLACED[does])
    copied = _lend(model.body, body, path, depth, family.lender) if family.lender else None
    has_blocks = any(body.get_submodule(".".join(path)).children())
    upper.body = FromActivations(body, copied) if has_blocks else NeckAlone(body, family.neck)
    lower = _with_blocks(model.body, path, slice(None, depth))
    for prefix in family.neck:
        _replace(lower, [prefix.rstrip(".")], HandsOn)
    return CutModel(lower, upper)


def _lend(
    whole: nn.Module, body: nn.Module, path: list[str], depth: int, lender: str
) -> tuple[nn.Module, nn.Module] | None:
    """Give the lowest block that is left the bias of positions that the lowest block of the whole computes for all.

    The module that has it now, which is a copy, and the one that it is a copy of; None where no block is left.
    """
    blocks, every = (each.get_submodule(".".join(path)) for each in (body, whole))
    if not any(blocks.children()):
        return None
    owner: Any = every.get_submodule(f"0.{lender}")
    borrower: Any = blocks
    for place in ("0", *lender.split(".")):
        borrower._modules[place] = _shallow_copy(borrower.get_submodule(place))
        borrower = borrower._modules[place]
    borrower.has_relative_attention_bias = True
    borrower.relative_attention_bias = owner.relative_attention_bias
    return borrower, every.get_submodule(f"{depth}.{lender}")


def _replace(body: nn.Module, path: list[str], kind: type[nn.Module] | None) -> None:
    """Put another module at the end of the path, if there is one: the body is its own copy, what lies in it is not."""
    first, *rest = path
    if body._modules.get(first) is None:
        return
    if rest:
        body._modules[first] = _shallow_copy(body.get_submodule(first))
        _replace(body.get_submodule(first), rest, kind)
    else:
        body._modules[first] = None if kind is None else kind()


def _with_blocks(body: nn.Module, path: list[str], kept: slice) -> nn.Module:
    """The body with some of its blocks only."""
    copied = _shallow_copy(body)
    first, *rest = path
    inner = getattr(body, first)
    copied._modules[first] = _with_blocks(inner, rest, kept) if rest else nn.ModuleList(list(inner)[kept])
    return copied


def _shallow_copy(module: M) -> M:
    """A module of its own that holds the same children and parameters."""
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    return copied
