"""What files hold of a checkpoint of two towers, CLIP's or SigLIP's. Nothing is loaded."""

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

from graftwork.checkpoints.safety import read_object, read_tensor_shapes
from graftwork.checkpoints.tokenizer import check_tokenizer
from graftwork.errors import CheckpointError, Problem
from graftwork.models.catalog import FAMILIES, Family, depth_groups, width_of
from graftwork.models.configs import CONFIG, read_model_config
from graftwork.models.serving.config import TOWERS

MODALITIES = ("image", "text")
SCALE, BIAS = "logit_scale", "logit_bias"  # what files call them, the first by its logarithm


def find_text_family(folder: Path) -> Family | None:
    """The family of the tower of texts of a checkpoint of two; None where its config.json is of something else."""
    kind = str(read_object(folder / CONFIG).get("model_type"))
    return FAMILIES[TOWERS[kind, "text"][1]] if {(kind, each) for each in MODALITIES} <= TOWERS.keys() else None


def find_tower_problems(folder: Path, where: str) -> Iterator[Problem]:
    """Why no text can be compared with a picture by the checkpoint in a verified folder."""
    family, shapes = find_text_family(folder), {name: shape for name, (shape, _) in read_tensor_shapes(folder).items()}
    hint = "prompts are for checkpoints of two towers, CLIP's or SigLIP's"
    if family is None:
        yield Problem("it has no tower that reads texts", where, hint)
        return
    try:
        read_model_config(folder, "text")
        depth_groups(family, shapes, head_parameters=0)
        seen, read = (_width(folder, modality, shapes) for modality in MODALITIES)
    except CheckpointError as error:
        yield Problem(f"it has no whole tower that reads texts: {error.problems[0].message}", where, hint)
        return
    if seen != read:
        yield Problem(f"its towers share no space: pictures have {seen} numbers there, texts {read}", where, hint)
    if SCALE not in shapes:
        yield Problem(f"it has no {SCALE}, which tells how near is near", where, hint)
    for name in (SCALE, BIAS):
        if prod(shapes.get(name, ())) != 1:
            yield Problem(f"{name} is of shape {shapes[name]}, expected one number", where, hint)
    yield from check_tokenizer(folder, where, family)


def _width(folder: Path, modality: str, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Of the states of the tower that reads this."""
    kind = str(read_object(folder / CONFIG).get("model_type"))
    return width_of(FAMILIES[TOWERS[kind, modality][1]], {}, shapes)
