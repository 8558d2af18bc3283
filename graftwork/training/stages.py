"""Stages as they will be run: which depth groups are trained, and at which learning rates."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from graftwork.errors import Problem, RecipeError, raise_if
from graftwork.models.catalog import DepthGroup
from graftwork.recipe import StageSection
from graftwork.training.averaging import Averaging


@dataclass(frozen=True)
class Stage:
    """Part of the training with one freeze depth and an optimiser of its own.

    rates: peak learning rate of each trained depth group, shallowest first; groups not named are frozen.
    trainable: parameters in training. cut: how many of the lowest blocks are frozen and computed once for each row, by
    the prefix cache; 0 if each step computes them. key: where its result lies in the store. augment: strength of each
    augmentation of the training rows. accumulate: batches of an optimiser step. average: of the weights over steps.
    l2_sp: strength of the pull to the weights that the stage began with.
    """

    SCHEMA: ClassVar[int] = 1
    name: str
    rates: dict[str, float]
    trainable: int
    epochs: int
    schedule: str
    warmup: float
    weight_decay: float
    label_smoothing: float
    clip_norm: float
    patience: int | None
    class_weights: str
    cut: int
    key: str
    augment: dict[str, float] = field(default_factory=dict)
    accumulate: int = 1
    average: Averaging | None = None
    l2_sp: float = 0.0


def trained_groups(train: Sequence[str], groups: Sequence[DepthGroup], where: str) -> list[DepthGroup]:
    """The depth groups that a recipe's `train:` names, shallowest first.

    Grammar: `head`, `all`, `top:k` (the k deepest blocks), or a group's own name.
    Raises RecipeError naming every entry that fits nothing.
    """
    by_name = {group.name: group for group in groups}
    blocks = [group for group in groups if group.name.startswith("block.")]
    chosen: set[str] = set()
    problems = []
    for entry in train:
        if entry == "all":
            chosen |= set(by_name)
        elif entry in by_name:
            chosen.add(entry)
        elif entry.startswith("top:") and entry[4:].isdigit() and 1 <= int(entry[4:]) <= len(blocks):
            chosen |= {group.name for group in blocks[-int(entry[4:]) :]}
        else:
            known = f"head, all, top:1 … top:{len(blocks)}, {', '.join(by_name)}"
            problems.append(Problem(f"{entry!r} names nothing to train", where=where, hint=f"known are {known}"))
    raise_if(problems, RecipeError)
    return [group for group in groups if group.name in chosen]


def frozen_blocks(trained: Sequence[DepthGroup]) -> int:
    """How many blocks lie below everything that is trained."""
    return max(0, min(group.depth for group in trained) - 1)


def peak_rates(section: StageSection, trained: Sequence[DepthGroup], deepest: int) -> dict[str, float]:
    """The learning rate of each trained group: the head's multiplied, the body's decayed with distance from the head.

    Method: discriminative fine-tuning (ULMFiT, Howard and Ruder 2018); rate x layer_decay ** blocks above.
    """
    return {
        group.name: section.learning_rate
        * (section.head_multiplier if group.name == "head" else section.layer_decay ** (deepest - 1 - group.depth))
        for group in trained
    }
