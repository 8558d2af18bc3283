"""What a checkpoint says of its pictures, against transformers' own image processors, and what can't be followed."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import ConvNextImageProcessorPil, EfficientNetImageProcessorPil, ViTImageProcessorPil

from graftwork.errors import CheckpointError
from graftwork.models.catalog import FAMILIES
from graftwork.models.pixels import MEAN, STD, find_side_problem, read_pixels
from graftwork.models.serving.config import PixelConfig
from graftwork.models.serving.images import ImageEncoder

BICUBIC = 3
# Width and height. Of the last ones an edge comes to a fraction of a pixel, which is rounded here and cut off there.
EVEN, ODD = [(96, 96), (128, 64), (64, 192), (40, 80)], [(101, 67), (57, 91)]
STEP = 1 / 255


def picture(width: int, height: int) -> bytes:
    """A smooth one, so that a pixel's place matters more than its neighbour's colour."""
    coarse = np.random.default_rng(width * height).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(stream, "PNG")
    return stream.getvalue()


def write(folder: Path, said: Any, config: Any = None) -> Path:
    (folder / "preprocessor_config.json").write_text(said if isinstance(said, str) else json.dumps(said))
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "resnet"}))
    return folder


def read_by_us(folder: Path, data: bytes) -> np.ndarray:
    encoder = ImageEncoder(read_pixels(folder))
    return encoder.pad(encoder.encode([data]), 1)[0][0].numpy()


@pytest.mark.parametrize("size", EVEN + ODD)
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (ViTImageProcessorPil, {"size": {"height": 32, "width": 32}}),
        (ViTImageProcessorPil, {"size": 32}),
        (ViTImageProcessorPil, {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 32}),
        (ViTImageProcessorPil, {"size": {"height": 40, "width": 48}, "do_center_crop": True, "crop_size": 32}),
        (ViTImageProcessorPil, {"size": 40, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}),
        (ViTImageProcessorPil, {"size": 32, "do_normalize": False}),
        (ViTImageProcessorPil, {"size": 32, "image_mean": 0.25, "image_std": [0.5, 0.25, 0.125]}),
        (ViTImageProcessorPil, {"size": 32, "rescale_factor": 1 / 127.5}),
        (ConvNextImageProcessorPil, {"size": {"shortest_edge": 32}}),
        (ConvNextImageProcessorPil, {"size": 32, "crop_pct": 0.6}),
        (ConvNextImageProcessorPil, {"size": {"shortest_edge": 383}, "crop_pct": 0.95}),
        (ConvNextImageProcessorPil, {"size": {"shortest_edge": 384}, "crop_pct": 0.5}),
        (EfficientNetImageProcessorPil, {"size": {"height": 32, "width": 32}}),
        (EfficientNetImageProcessorPil, {"size": {"height": 40, "width": 40}, "do_center_crop": True, "crop_size": 32}),
        (EfficientNetImageProcessorPil, {"size": 32, "include_top": False}),
        (EfficientNetImageProcessorPil, {"size": 32, "do_normalize": False}),
        (EfficientNetImageProcessorPil, {"size": 32, "rescale_factor": 1 / 127.5, "rescale_offset": True}),
    ],
)
def test_pictures_are_what_the_checkpoints_own_processor_makes_of_them(
    tmp_path: Path, kind: Any, said: dict[str, Any], size: tuple[int, int]
) -> None:
    """By the file that it saves itself, and its pixels.

    Tolerated is the rounding of arithmetic; and where the longer edge comes to a fraction of a pixel, what the picture
    moves by half a pixel. The filter is the bicubic one here, whatever the file says: the processor is told so, too.
    """
    processor = kind(**said, resample=BICUBIC)
    processor.save_pretrained(tmp_path)
    write(tmp_path, (tmp_path / "preprocessor_config.json").read_text())
    data = picture(*size)
    with Image.open(io.BytesIO(data)) as image:
        theirs = processor(image)["pixel_values"][0]
    ours = read_by_us(tmp_path, data)
    assert ours.shape == theirs.shape
    off = abs(ours - theirs) * np.asarray(read_pixels(tmp_path).std).reshape(3, 1, 1)  # as shares of white
    assert off.mean() <= (STEP / 4 if size in EVEN else 8 * STEP)
    assert off.max() <= (STEP * 1.01 if size in EVEN else 40 * STEP)


@pytest.mark.parametrize("name", ["image_processor_type", "feature_extractor_type"])
def test_an_older_file_is_read_as_it_was_meant(tmp_path: Path, name: str) -> None:
    """Of ConvNeXT and ResNet a size is that of the shorter edge before the cut, of ViT that of both edges."""
    convnext = write(tmp_path, {name: "ConvNextFeatureExtractor", "size": 224})
    assert read_pixels(convnext) == PixelConfig(224, 256, MEAN, STD)
    assert read_pixels(write(tmp_path, {"crop_pct": 0.875, "size": 224})) == PixelConfig(224, 256, MEAN, STD)
    vit = write(tmp_path, {name: "ViTFeatureExtractor", "size": 224})
    assert read_pixels(vit) == PixelConfig(224, None, MEAN, STD)


def test_another_side_sees_the_same_share_of_a_picture(tmp_path: Path) -> None:
    said = {"do_center_crop": True, "crop_size": 224, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    shorter = read_pixels(write(tmp_path, said | {"size": {"shortest_edge": 256}}), 112)
    assert shorter == PixelConfig(112, 128, (0.5,) * 3, (0.5,) * 3)
    both = read_pixels(write(tmp_path, said | {"size": {"height": 256, "width": 448}}), 112)
    assert both == PixelConfig(112, (224, 128), (0.5,) * 3, (0.5,) * 3)


def test_what_nothing_is_said_of_is_of_the_config(tmp_path: Path) -> None:
    assert read_pixels(write(tmp_path, {}, {"image_size": 48})) == PixelConfig(48, 48, MEAN, STD)
    (tmp_path / "preprocessor_config.json").unlink()
    assert read_pixels(tmp_path).side == 48
    write(tmp_path, {})
    assert read_pixels(tmp_path).side == 224


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("[]", "expected an object"),
        ('"size"', "expected an object"),
        ('{"size": 224', "not JSON"),
        *[({"size": odd}, "size is .*expected whole numbers") for odd in (0, -1, 1.5, "224", True, [224, 224], 10**9)],
        *[({"size": {"shortest_edge": odd}}, "size is .*whole numbers") for odd in (0, "224", [224], float("nan"))],
        *[({"size": odd}, "size is .*height and width, or shortest_edge") for odd in ({}, {"height": 3}, {"edge": 3})],
        ({"size": {"height": 224, "width": 112}}, "size 112 x 224 is no square"),
        ({"size": 224, "do_center_crop": True, "crop_size": 256}, "crop_size 256 is more than size, 224"),
        ({"size": 224, "do_center_crop": True, "crop_size": {"shortest_edge": 20}}, "crop_size .*a square"),
        ({"size": 224, "do_center_crop": True, "crop_size": {"height": 2, "width": 3}}, "crop_size .*a square"),
        *[({"size": 224, "crop_pct": odd}, "crop_pct is") for odd in (0, -1, 1.1, "0.9", [0.9], float("nan"), 1e-9)],
        *[({"do_normalize": odd}, "do_normalize is .*true or false") for odd in ("false", 0, [])],
        ({"do_center_crop": "yes"}, "do_center_crop is"),
        ({"do_rescale": False}, "do_rescale is false"),
        *[({"rescale_factor": odd}, "rescale_factor is") for odd in (0, "1/255", float("inf"), 10**400)],
        *[({"image_mean": odd}, "image_mean is") for odd in ("0.5", [0.5], [0.5, 0.5, "a"], {}, [float("nan")] * 3)],
        *[({"image_std": odd}, "image_std is") for odd in (0, [0.5, 0.5, 0], [-1, 1, 1], "a", [[1], [1], [1]], True)],
    ],
)
def test_what_can_not_be_followed_is_named(tmp_path: Path, said: Any, named: str) -> None:
    """The file and the key, whatever stands there."""
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json: {named}"):
        read_pixels(write(tmp_path, said))


@pytest.mark.parametrize("odd", ["224", 0, [224, 112], {"side": 3}])
def test_a_side_that_is_none_is_named(tmp_path: Path, odd: Any) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: image_size is"):
        read_pixels(write(tmp_path, {}, {"image_size": odd}))


def test_positions_are_those_of_one_side(tmp_path: Path) -> None:
    """Of a ViT, as its config.json says; a convolution has none."""
    folder = write(tmp_path, {}, {"image_size": 32})
    problem = find_side_problem(read_pixels(folder, 64), FAMILIES["vit"], folder)
    assert problem is not None and "32 pixels alone, not of 64" in problem.message
    assert (problem.where, problem.hint) == ("input.side", "set it to 32")
    assert find_side_problem(read_pixels(folder, 32), FAMILIES["vit"], folder) is None
    assert find_side_problem(read_pixels(folder, 64), FAMILIES["resnet"], folder) is None
