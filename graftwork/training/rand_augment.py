"""RandAugment: a few operations on a picture, drawn from a fixed list, all of one magnitude.

Method: Cubuk et al. (2020). Operations, ranges, and black where a picture has nothing to show, are as in torchvision.
"""

from collections.abc import Callable, Mapping
from math import ceil

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

MOST = 30  # of a magnitude
Operation = Callable[[Image.Image, float], Image.Image]  # strength: from -1 to 1


def _moved(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """matrix: the first two rows of where, in the picture, a place of the result is read from."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _translated(image: Image.Image, across: float, down: float) -> Image.Image:
    most = 150 / 331  # of a side: the paper's largest, of its own pictures
    return _moved(image, (1, 0, int(most * image.width * across), 0, 1, int(most * image.height * down)))


# What is drawn is a place in this list: its order must stay.
OPERATIONS: Mapping[str, Operation] = {
    "nothing": lambda image, _: image,
    "shear x": lambda image, strength: _moved(image, (1, 0.3 * strength, 0, 0, 1, 0)),
    "shear y": lambda image, strength: _moved(image, (1, 0, 0, 0.3 * strength, 1, 0)),
    "translate x": lambda image, strength: _translated(image, strength, 0),
    "translate y": lambda image, strength: _translated(image, 0, strength),
    "rotate": lambda image, strength: image.rotate(30 * strength, Image.Resampling.BILINEAR),
    "brightness": lambda image, strength: ImageEnhance.Brightness(image).enhance(1 + 0.9 * strength),
    "colour": lambda image, strength: ImageEnhance.Color(image).enhance(1 + 0.9 * strength),
    "contrast": lambda image, strength: ImageEnhance.Contrast(image).enhance(1 + 0.9 * strength),
    "sharpness": lambda image, strength: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * strength),
    "posterize": lambda image, strength: ImageOps.posterize(image, 8 - round(4 * abs(strength))),
    "solarize": lambda image, strength: ImageOps.solarize(image, ceil(255 * (1 - abs(strength)))),
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
}


def change_at_random(image: Image.Image, count: int, magnitude: float, generator: np.random.Generator) -> Image.Image:
    """The RGB picture after so many operations, one after the other; each may be drawn again."""
    operations = tuple(OPERATIONS.values())
    chosen, signs = generator.integers(len(operations), size=count), generator.choice((-1, 1), size=count)
    for place, sign in zip(chosen, signs, strict=True):
        image = operations[place](image, float(sign) * magnitude / MOST)
    return image
