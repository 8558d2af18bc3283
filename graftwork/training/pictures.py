"""Augmentation of pictures: other crops, mirrored, in other colours, changed at random, anew in each epoch."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from graftwork.models.serving.config import Edge
from graftwork.models.serving.images import ImageRow
from graftwork.models.serving.pictures import decode_image, fit_image
from graftwork.training.rand_augment import change_at_random

MOST_STRETCHED = 4 / 3  # of a crop's width over its height, or the reverse


@dataclass(frozen=True)
class PictureChange:
    """A picture cropped at random, mirrored, and in other colours, as large as the model reads it.

    crop: the largest share of its area that is left out. flip: the probability that it is mirrored. colour: the most
    that brightness, contrast and saturation change, as a share. side, edge: as of PixelConfig; a crop is squeezed into
    the square. rand_operations, rand_magnitude: of `change_at_random`, between the mirror and the colours. Method:
    random crops of area and proportions (Szegedy et al. 2015), colour as in Howard (2013).
    """

    side: int
    edge: Edge
    crop: float = 0.0
    flip: float = 0.0
    colour: float = 0.0
    rand_operations: float = 0.0  # a whole number; a plan keeps strengths as floats
    rand_magnitude: float = 0.0

    def __call__(self, index: int, row: ImageRow, generator: np.random.Generator) -> np.ndarray:  # noqa: ARG002
        """(side, side, 3) uint8."""
        # All is drawn whatever is asked for, so that one option does not change what another one does.
        area, stretch, across, down = generator.random(4)
        is_flipped = generator.random() < self.flip
        shades = 1 + self.colour * (2 * generator.random(3) - 1)
        image = decode_image(bytes(row.data))
        if self.crop:
            image = self._cropped(image, area, stretch, across, down)
        pixels = np.asarray(fit_image(image, self.side, None if self.crop else self.edge))
        if is_flipped:
            pixels = pixels[:, ::-1]
        if self.rand_operations:
            square = Image.fromarray(np.ascontiguousarray(pixels))
            pixels = np.asarray(change_at_random(square, int(self.rand_operations), self.rand_magnitude, generator))
        return recolour(pixels, *shades) if self.colour else np.ascontiguousarray(pixels)

    def _cropped(self, image: Image.Image, area: float, stretch: float, across: float, down: float) -> Image.Image:
        share = 1 - self.crop * area
        proportion = MOST_STRETCHED ** (2 * stretch - 1)
        width = min(image.width, max(1, round(image.width * (share * proportion) ** 0.5)))
        height = min(image.height, max(1, round(image.height * (share / proportion) ** 0.5)))
        left, top = round(across * (image.width - width)), round(down * (image.height - height))
        return image.crop((left, top, left + width, top + height))


def recolour(pixels: np.ndarray, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """(side, side, 3) uint8, each of the factors 1 where nothing changes."""
    changed = pixels.astype(np.float32) * brightness
    changed = changed.mean() + contrast * (changed - changed.mean())
    grey = changed.mean(axis=2, keepdims=True)
    changed = grey + saturation * (changed - grey)
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)
