"""A classifier cut in two at a depth: the part below, which gives a row's activations, and the part that goes on."""

import copy
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from graftwork.models.catalog import family_of
from graftwork.models.serving import TextClassifier

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class CutModel:
    """Both parts share their modules with the classifier that was cut.

    lower: token ids and mask, both (batch, tokens), to activations, (batch, tokens, width), as `last_hidden_state`.
    upper: activations and mask to logits, (batch, classes).
    """

    lower: nn.Module
    upper: TextClassifier


class GivenActivations(nn.Module):
    """Stands where the embeddings were: what comes in as ids is what the part below has computed."""

    def forward(self, input_ids: Tensor, *_others: Any, **_named: Any) -> Tensor:
        return input_ids


class HeadAlone(nn.Module):
    """What is above the whole body: pooled vectors, (batch, width), to logits, (batch, classes)."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, vectors: Tensor, _mask: Tensor) -> Tensor:
        return self.head(vectors)


def cut_at(model: TextClassifier, depth: int) -> CutModel:
    """The classifier cut above its embeddings and its `depth` lowest blocks.

    Families whose bodies end with the last block can be cut so; those of the catalog do.
    """
    config: Any = model.body.config
    family = family_of(config.model_type)
    path = family.blocks.rstrip(".").split(".")
    embeddings = {prefix.rstrip("."): nn.Identity() for prefix in family.embeddings if hasattr(model.body, prefix[:-1])}
    upper = _shallow_copy(model)
    upper.body = _with_blocks(model.body, path, slice(depth, None))
    upper.body._modules.update(embeddings | {"embeddings": GivenActivations()})
    return CutModel(_with_blocks(model.body, path, slice(None, depth)), upper)


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
