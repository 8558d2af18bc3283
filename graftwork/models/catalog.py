"""Every supported architecture, one line each, and how its parameters fall into depth groups.

Depth 0 holds the embeddings, then come the blocks in order, last the head. Everything here works on tensor names, so a
plan can be made from a checkpoint's header without loading a weight.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from graftwork.errors import CheckpointError


@dataclass(frozen=True)
class TextFamily:
    """Where an encoder keeps its parts: prefixes of tensor names inside the bare model.

    attention: prefix of its layers inside a block. has_offset: its first token's position is the one after the
    padding token's id, not 0.
    """

    blocks: str
    embeddings: tuple[str, ...] = ("embeddings.",)
    attention: str = "attention."
    base_prefix: str = ""
    has_offset: bool = False
    unused: tuple[str, ...] = ("pooler.",)


FAMILIES: Mapping[str, TextFamily] = {
    "bert": TextFamily("encoder.layer.", base_prefix="bert.", unused=("pooler.", "cls.", "classifier.")),
    "roberta": TextFamily(
        "encoder.layer.", base_prefix="roberta.", has_offset=True, unused=("pooler.", "lm_head.", "classifier.")
    ),
    "ernie": TextFamily("encoder.layer.", base_prefix="ernie.", unused=("pooler.", "cls.", "classifier.")),
    "electra": TextFamily(
        "encoder.layer.",
        embeddings=("embeddings.", "embeddings_project."),
        base_prefix="electra.",
        unused=("discriminator_predictions.", "generator_predictions.", "generator_lm_head.", "classifier."),
    ),
    "distilbert": TextFamily(
        "transformer.layer.",
        base_prefix="distilbert.",
        unused=("vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "pre_classifier.", "classifier."),
    ),
}


@dataclass(frozen=True)
class DepthGroup:
    """Parameters that are trained or frozen together: a name, a depth, and the tensor-name prefixes that belong."""

    SCHEMA: ClassVar[int] = 1
    name: str
    depth: int
    parameters: int
    prefixes: tuple[str, ...]


def family_of(architecture: str) -> TextFamily:
    """The family of a `model_type`; CheckpointError names the known ones."""
    if architecture not in FAMILIES:
        raise CheckpointError(f"architecture {architecture!r} is not supported: known are {', '.join(FAMILIES)}")
    return FAMILIES[architecture]


def depth_groups(
    family: TextFamily, shapes: Mapping[str, tuple[int, ...]], head_parameters: int
) -> tuple[DepthGroup, ...]:
    """The depth groups of a classifier on this body: `embeddings`, `block.0` … `block.n-1`, `head`.

    shapes: tensor name -> shape, as in the checkpoint's header (with or without the base model's prefix). The head's
    group is all that is new: what pools the tokens, too, where that is learnt.
    Raises CheckpointError if embeddings or blocks are not where the family keeps them, or a tensor is in neither.
    """
    sizes: dict[str, int] = {}
    strangers = []
    for full_name, shape in shapes.items():
        name = full_name.removeprefix(family.base_prefix)
        group = _group_name(family, name)
        if group is not None:
            sizes[group] = sizes.get(group, 0) + prod(shape)
        elif not name.startswith(family.unused):
            strangers.append(full_name)
    blocks = sorted((name for name in sizes if name != "embeddings"), key=_block_index)
    if "embeddings" not in sizes or [_block_index(name) for name in blocks] != list(range(len(blocks))) or not blocks:
        raise CheckpointError(f"no {family.embeddings[0]}* or no unbroken {family.blocks}0… among the tensors")
    if strangers:
        raise CheckpointError(*(f"tensor {name} belongs to no part of this architecture" for name in strangers))
    prefixes = {"embeddings": tuple(f"body.{prefix}" for prefix in family.embeddings)}
    prefixes |= {name: (f"body.{family.blocks}{_block_index(name)}.",) for name in blocks}
    body = [DepthGroup(name, depth, sizes[name], prefixes[name]) for depth, name in enumerate(["embeddings", *blocks])]
    return (*body, DepthGroup("head", len(body), head_parameters, ("pool.", "head.")))


def block_layers(family: TextFamily, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, tuple[int, int]]]:
    """The linear layers of each block: depth group -> name inside the block -> (outputs, inputs)."""
    layers: dict[str, dict[str, tuple[int, int]]] = {}
    for full_name in sorted(shapes):
        name, shape = full_name.removeprefix(family.base_prefix), shapes[full_name]
        block = re.fullmatch(re.escape(family.blocks) + r"(\d+)\.(.+)\.weight", name)
        if block and len(shape) == 2:
            layers.setdefault(f"block.{block[1]}", {})[block[2]] = (shape[0], shape[1])
    return layers


def _group_name(family: TextFamily, name: str) -> str | None:
    if name.startswith(family.embeddings):
        return "embeddings"
    block = re.match(re.escape(family.blocks) + r"(\d+)\.", name)
    return f"block.{block[1]}" if block else None


def _block_index(name: str) -> int:
    return int(name.partition(".")[2])
