"""How a checkpoint wants its pictures: what its preprocessor_config.json says, in our terms."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftwork.errors import CheckpointError, Problem
from graftwork.models.layers import check_layers
from graftwork.models.serving.config import PixelConfig

PREPROCESSOR = "preprocessor_config.json"
SIDE = 224
# Of ImageNet's training pictures (Deng et al. 2009), as torchvision has them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read_pixels(folder: Path, side: int | None = None) -> PixelConfig:
    """What pictures become for the checkpoint in a verified folder. side: another one than it was made with.

    Raises CheckpointError if the file says something that can't be followed, or the body can't read such pictures.
    """
    path = folder / PREPROCESSOR
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    said = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    made_for = _side(said, config)
    edge = _edge(said, made_for)
    wanted = side or made_for
    check_layers(config, wanted)
    mean, std = (tuple(map(float, said.get(name, usual))) for name, usual in (("image_mean", MEAN), ("image_std", STD)))
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        problem = "image_mean and image_std are not three numbers each, the latter above 0"
        raise CheckpointError(Problem(problem, PREPROCESSOR))
    return PixelConfig(wanted, edge and round(edge * wanted / made_for), mean, std)


def _side(said: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """The edge of the square that the checkpoint reads."""
    for size in (
        said.get("crop_size") if said.get("do_center_crop") else None,
        said.get("size"),
        config.get("image_size"),
    ):
        side = size if isinstance(size, int) else (size or {}).get("height") or (size or {}).get("shortest_edge")
        if side:
            return int(side)
    return SIDE


def _edge(said: Mapping[str, Any], side: int) -> int | None:
    """What the shorter edge becomes before the middle is cut out; None where pictures are squeezed into the square."""
    size = said.get("size")
    if isinstance(size, Mapping) and "height" in size and not said.get("do_center_crop"):
        return None
    if said.get("crop_pct"):  # ConvNeXT: the share that is cut out
        return round(side / float(said["crop_pct"]))
    shortest = size.get("shortest_edge") if isinstance(size, Mapping) else None
    return max(side, int(shortest or side))
