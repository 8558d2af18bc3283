"""Pictures are other ones in each epoch, by their place in training alone."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from graftwork.models.serving.config import PixelConfig
from graftwork.models.serving.images import ImageEncoder, ImageRow
from graftwork.training.augmentation import row_generator
from graftwork.training.pictures import PictureChange, recolour

SIDE = 12


def row(pixels: np.ndarray) -> ImageRow:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return ImageRow(stream.getvalue(), 1)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def change(pixels: np.ndarray, place: tuple[int, int, int] = (7, 0, 1), number: int = 0, **how: float) -> np.ndarray:
    return PictureChange(SIDE, SIDE, **how)(number, row(pixels), row_generator(place, number))


def test_without_options_it_is_the_picture_that_is_predicted_on(pixels: np.ndarray) -> None:
    encoder = ImageEncoder(PixelConfig(SIDE, SIDE, (0.5,) * 3, (0.5,) * 3))
    assert (change(pixels) == pixels).all()
    assert (encoder.fit(row(pixels)) == pixels).all()


def test_a_mirrored_picture_is_mirrored(pixels: np.ndarray) -> None:
    assert (change(pixels, flip=1.0) == pixels[:, ::-1]).all()


def test_crops_leave_out_as_much_as_they_may() -> None:
    """Of a picture whose colours tell the place, the span that is left; at most half of the area goes."""
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    across = np.stack([np.tile(ramp, (64, 1)), np.tile(ramp[:, None], (1, 64)), np.zeros((64, 64), np.uint8)], axis=2)
    shares = []
    for number in range(200):
        cropped = PictureChange(64, 64, crop=0.5)(number, row(across), row_generator((7, 0, 1), number)).astype(int)
        spans = [np.ptp(cropped[..., colour]) / 255 for colour in (0, 1)]
        shares.append(spans[0] * spans[1])
    assert 0.4 < min(shares) < 0.6
    assert max(shares) > 0.9
    assert 0.65 < np.mean(shares) < 0.8


def test_the_draw_is_of_the_place_alone(pixels: np.ndarray) -> None:
    """Another epoch, row, stage or seed draws another; the same one draws the same, whatever else is asked for."""
    how = {"crop": 0.5, "flip": 0.5, "colour": 0.4}
    same = change(pixels, **how)
    assert (same == change(pixels, **how)).all()
    for place, number in (((7, 0, 2), 0), ((7, 1, 1), 0), ((8, 0, 1), 0), ((7, 0, 1), 1)):
        assert (same != change(pixels, place, number, **how)).any()
    flipped = [bool((change(pixels, number=n, flip=0.5) != pixels).any()) for n in range(40)]
    also = [bool((change(pixels, number=n, flip=0.5, colour=1e-9) != pixels).any()) for n in range(40)]
    assert flipped == also
    assert 8 < sum(flipped) < 32


@given(st.tuples(*[st.floats(0.5, 1.5)] * 3))
def test_colours_stay_colours(factors: tuple[float, float, float]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    changed = recolour(pixels, *factors)
    assert changed.shape == pixels.shape and changed.dtype == np.uint8
    assert (recolour(pixels, 1, 1, 1) == pixels).all()
    grey = recolour(pixels, 1, 1, 0).astype(int)
    assert (np.ptp(grey, axis=2) <= 1).all()
