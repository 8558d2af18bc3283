"""How a checkpoint wants its pictures: what its preprocessor_config.json says, in our terms.

As transformers' image processors of the families here read it. Not followed is the filter that a picture is resized
with, which is always the bicubic one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftwork.checkpoints.safety import read_object
from graftwork.errors import CheckpointError, Problem, shorten
from graftwork.models.catalog import Family
from graftwork.models.configs import CONFIG, PREPROCESSOR, read_model_config
from graftwork.models.layers import check_layers
from graftwork.models.serving.config import Edge, PixelConfig

SIDE, MOST_SIDE = 224, 4096
# Of ImageNet's training pictures (Deng et al. 2009), as torchvision has them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WHITE = 255
LARGEST = 1e6  # number that means anything here
# Processors by what their names begin with: to whom a size that is a number is that of the shorter edge, ...
OF_SHORTER_EDGE = ("ConvNext", "Bit", "CLIP")
# ... and of ConvNeXT: the share that is cut out of a picture, and the side from which on all of it is squeezed.
CONVNEXT, CROP_SHARE, SQUEEZED_FROM = "ConvNext", 224 / 256, 384
EFFICIENTNET = "EfficientNet"


def read_pixels(folder: Path, side: int | None = None) -> PixelConfig:
    """What pictures become for the checkpoint in a verified folder. side: another one than it was made with.

    Raises CheckpointError if the file says something that can't be followed, or the body can't read such pictures.
    """
    path = folder / PREPROCESSOR
    said = read_object(path) if path.is_file() else {}
    if not _flag(said, "do_rescale", usual=True):
        raise CheckpointError(Problem("do_rescale is false, so that it reads colours in another unit", PREPROCESSOR))
    config = read_model_config(folder, "image")
    made_for, edge = _fit(said, config)
    wanted = side or made_for
    check_layers(config, wanted)
    mean, std = _colours(said)
    return PixelConfig(wanted, _scaled(edge, wanted, made_for), mean, std)


def find_side_problem(pixels: PixelConfig, family: Family, folder: Path) -> Problem | None:
    """Why the checkpoint in the folder has no positions for such pictures; None if it has, or needs none."""
    if not family.side:
        return None
    made_for = _side_of_config(read_model_config(folder, "image"), family.side) or SIDE
    if pixels.side == made_for:
        return None
    problem = f"{family.known_as}: this checkpoint reads squares of {made_for} pixels alone, not of {pixels.side}"
    return Problem(problem, "input.side", f"set it to {made_for}")


def _fit(said: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[int, Edge]:
    """The side of the square that the checkpoint reads, and the edge, as PixelConfig has it."""
    kind = _kind(said)
    is_convnext = kind.startswith(CONVNEXT) or said.get("crop_pct") is not None
    size = _size(said, "size", is_square=not (is_convnext or kind.startswith(OF_SHORTER_EDGE)))
    side = _crop_side(said)
    if size is None:
        size = side or _side_of_config(config, "image_size") or SIDE
    if is_convnext and isinstance(size, int):
        side, size = side or size, _edge_of_convnext(said, size)
    edges: tuple[int, ...] = (size,) if isinstance(size, int) else size
    if side is None and len(set(edges)) > 1:
        raise CheckpointError(Problem(f"size {edges[0]} x {edges[1]} is no square", PREPROCESSOR))
    side = side or edges[0]
    if min(edges) < side:
        raise CheckpointError(Problem(f"crop_size {side} is more than size, {min(edges)}", PREPROCESSOR))
    return side, None if edges == (side, side) else size


def _edge_of_convnext(said: Mapping[str, Any], size: int) -> int | tuple[int, int]:
    """What a picture is brought to before the middle is cut out, by what is said of its shorter edge."""
    if size >= SQUEEZED_FROM:
        return size, size
    edge = int(size / _number(said, "crop_pct", CROP_SHARE, most=1))
    if edge > MOST_SIDE:
        raise _odd(said, "crop_pct", f"a share with which size comes to {MOST_SIDE} pixels at most")
    return edge


def _scaled(edge: Edge, wanted: int, made_for: int) -> Edge:
    """The edge for another side: the same share of a picture is seen."""
    if edge is None:
        return None
    if isinstance(edge, int):
        return round(edge * wanted / made_for)
    width, height = edge
    return round(width * wanted / made_for), round(height * wanted / made_for)


def _colours(said: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of values between 0 and 1, whatever unit they are told in."""
    deviation = _three(said, "image_std", STD, above=0)
    mean: tuple[float, ...] = (0.0,) * 3
    std: tuple[float, ...] = (1.0,) * 3
    if _flag(said, "do_normalize", usual=True):
        mean, std = _three(said, "image_mean", MEAN), deviation
    if _flag(said, "include_top", usual=_kind(said).startswith(EFFICIENTNET)):  # it divides once more
        std = tuple(first * second for first, second in zip(std, deviation, strict=True))
    unit = WHITE * _number(said, "rescale_factor", 1 / WHITE)
    offset = 1.0 if _flag(said, "rescale_offset", usual=False) else 0.0
    return tuple((each + offset) / unit for each in mean), tuple(each / unit for each in std)


def _kind(said: Mapping[str, Any]) -> str:
    """The name of the processor; files of earlier versions call it a feature extractor."""
    return str(said.get("image_processor_type") or said.get("feature_extractor_type") or "")


def _crop_side(said: Mapping[str, Any]) -> int | None:
    """The side of the square that is cut out of the middle; None if nothing is, or it has that of the size."""
    if not _flag(said, "do_center_crop", usual=False):
        return None
    crop = _size(said, "crop_size", is_square=True)
    if isinstance(crop, int) or (crop is not None and crop[0] != crop[1]):
        raise _odd(said, "crop_size", "a square")
    return crop and crop[0]


def _size(said: Mapping[str, Any], key: str, is_square: bool) -> tuple[int, int] | int | None:
    """Width and height, or what the shorter edge is to be; None where nothing is said.

    is_square: a number stands for both edges.
    """
    value = said.get(key)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        edge = _pixels(said, key, value)
        return (edge, edge) if is_square else edge
    edges = {name: _pixels(said, key, each) for name, each in value.items() if each is not None}
    if edges.keys() == {"height", "width"}:
        return edges["width"], edges["height"]
    if edges.keys() == {"shortest_edge"}:
        return edges["shortest_edge"]
    raise _odd(said, key, "height and width, or shortest_edge")


def _side_of_config(config: Mapping[str, Any], key: str) -> int | None:
    """The side that config.json tells, where it does."""
    value = config.get(key)
    edges = value if isinstance(value, list) and len(value) == 2 and value[0] == value[1] else [value]
    return None if value is None else _pixels(config, key, edges[0], CONFIG)


def _pixels(said: Mapping[str, Any], key: str, value: Any, where: str = PREPROCESSOR) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MOST_SIDE:
        raise _odd(said, key, f"whole numbers of pixels from 1 to {MOST_SIDE}", where)
    return value


def _flag(said: Mapping[str, Any], key: str, usual: bool) -> bool:
    value = said.get(key)
    if not isinstance(value, bool | None):
        raise _odd(said, key, "true or false")
    return usual if value is None else value


def _number(said: Mapping[str, Any], key: str, usual: float, most: float = float("inf")) -> float:
    """A number above 0."""
    value = said.get(key)
    if value is None:
        return usual
    if not _is_number(value) or not 0 < value <= most:
        raise _odd(said, key, "a number above 0" if most > 1 else f"a number above 0, at most {most:g}")
    return float(value)


def _three(
    said: Mapping[str, Any], key: str, usual: tuple[float, ...], above: float = float("-inf")
) -> tuple[float, ...]:
    """A number for each colour; one may stand for all."""
    value = said.get(key)
    if value is None:
        return usual
    numbers = value if isinstance(value, list) else [value] * 3
    if len(numbers) != 3 or not all(_is_number(each) and each > above for each in numbers):
        raise _odd(said, key, "three numbers" if above < 0 else f"three numbers above {above:g}")
    return tuple(map(float, numbers))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST  # NaN is not


def _odd(said: Mapping[str, Any], key: str, expected: str, where: str = PREPROCESSOR) -> CheckpointError:
    return CheckpointError(Problem(f"{key} is {shorten(said.get(key))}, expected {expected}", where))
