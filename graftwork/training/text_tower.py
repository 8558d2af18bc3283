"""The tower of texts that a stage of pairs has beside the body: its depth groups, and which of them are trained."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from graftwork.checkpoints.safety import read_tensor_shapes
from graftwork.errors import CheckpointError, raise_if
from graftwork.models.catalog import DepthGroup, depth_groups
from graftwork.models.tower_files import BIAS, SCALE, find_text_family, find_tower_problems
from graftwork.sections.stages import StageSection

TEXTS = "texts"  # the whole tower, in `train:`
OBJECTIVE = "objective"


@dataclass(frozen=True)
class Pairs:
    """What a stage is that learns from pictures and their captions.

    groups: of the tower of texts, and what tells how near is near. validation: share of the pairs that it is validated
    on, drawn by the seed of the split.
    """

    SCHEMA: ClassVar[int] = 1
    groups: tuple[DepthGroup, ...]
    validation: float
    seed: int


def tower_groups(checkpoint: Path, source: str) -> tuple[DepthGroup, ...]:
    """The depth groups of the tower of texts in a verified folder, and last those of the scale, and the bias.

    Raises CheckpointError if it has none.
    """
    raise_if(find_tower_problems(checkpoint, source), CheckpointError)
    family, shapes = find_text_family(checkpoint), read_tensor_shapes(checkpoint)
    assert family is not None
    *groups, head = depth_groups(family, {name: shape for name, (shape, _) in shapes.items()}, head_parameters=0)
    scale = DepthGroup(
        OBJECTIVE, head.depth, len({SCALE, BIAS} & shapes.keys()), (f"{OBJECTIVE}.scale", f"{OBJECTIVE}.bias")
    )
    return (*map(_beside, groups), scale)


def _beside(group: DepthGroup) -> DepthGroup:
    prefixes = tuple(f"{OBJECTIVE}.{TEXTS}.{prefix}" for prefix in group.prefixes)
    return replace(group, name=f"{TEXTS}.{group.name}", prefixes=prefixes)


def split_targets(section: StageSection) -> tuple[list[str], list[str]]:
    """What its `train` names of the tower of pictures, and of that of texts, which may be locked.

    `all` and `top:k` are of both, `texts` is all of the latter; names are of one.
    """
    of_texts = [entry for entry in section.train if entry.partition(".")[0] == TEXTS]
    of_pictures = [entry for entry in section.train if entry not in of_texts]
    shared = [entry for entry in of_pictures if entry == "all" or entry.startswith("top:")]
    return of_pictures, [] if section.locked else [*shared, *of_texts]
