"""RandAugment: each operation by hand, in the ranges of the paper, drawn by a row's place alone."""

import math
from itertools import product

import numpy as np
import pytest
from PIL import Image

from graftwork.training.augmentation import row_generator
from graftwork.training.rand_augment import MOST, OPERATIONS, change_at_random

SIDE = 64


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(1).integers(40, 200, (SIDE, SIDE, 3), dtype=np.uint8)


def change(pixels: np.ndarray, name: str, strength: float) -> np.ndarray:
    return np.asarray(OPERATIONS[name](Image.fromarray(pixels), strength))


def test_what_moves_shows_black_where_there_is_nothing(pixels: np.ndarray) -> None:
    """To whole places: 150 of 331 of a side; at a shear of two, row y by 2 (y + ½); at a right angle, turned."""
    moved = np.zeros_like(pixels)
    moved[:, : SIDE - 29] = pixels[:, 29:]
    assert (change(pixels, "translate x", 1.0) == moved).all()
    assert (change(pixels.swapaxes(0, 1).copy(), "translate y", 1.0) == moved.swapaxes(0, 1)).all()
    back = np.zeros_like(pixels)
    back[:, 29:] = pixels[:, : SIDE - 29]
    assert (change(pixels, "translate x", -1.0) == back).all()
    sheared = np.zeros_like(pixels)
    for y in range(SIDE // 2):
        sheared[y, : SIDE - 2 * y - 1] = pixels[y, 2 * y + 1 :]
    assert (change(pixels, "shear x", 2 / 0.3) == sheared).all()
    assert (change(pixels.swapaxes(0, 1).copy(), "shear y", 2 / 0.3) == sheared.swapaxes(0, 1)).all()
    assert (change(pixels, "rotate", 3.0) == np.rot90(pixels)).all()


def test_what_recolours_does_so_by_its_formula(pixels: np.ndarray) -> None:
    """Between a picture and its plain one, which is black, grey, or of its mean grey, and beyond."""
    grey = np.rint(pixels @ [0.299, 0.587, 0.114])[..., None]
    plain = {"brightness": np.zeros_like(grey), "colour": grey, "contrast": np.full_like(grey, np.rint(grey.mean()))}
    for (name, start), strength in product(plain.items(), (-1.0, -0.3, 0.3, 1.0)):
        expected = np.clip(start + (1 + 0.9 * strength) * (pixels - start), 0, 255)
        np.testing.assert_allclose(change(pixels, name, strength), expected, atol=2)
    even = np.full((SIDE, SIDE, 3), 90, np.uint8)
    spread = [change(pixels, "sharpness", strength).std() for strength in (-1.0, 0.0, 1.0)]
    assert spread[0] < spread[1] < spread[2] and (change(even, "sharpness", 1.0) == even).all()


def test_what_takes_levels_takes_them_by_its_formula(pixels: np.ndarray) -> None:
    assert (change(pixels, "posterize", 1.0) == pixels & 0xF0).all()
    assert (change(pixels, "solarize", 0.6) == np.where(pixels >= 102, 255 - pixels, pixels)).all()
    low, high = pixels.min((0, 1)).astype(float), pixels.max((0, 1))
    np.testing.assert_allclose(change(pixels, "autocontrast", 0.5), (pixels - low) * 255 / (high - low), atol=1)
    for before, after in zip(pixels.reshape(-1, 3).T, change(pixels, "equalize", 0.5).reshape(-1, 3).T, strict=True):
        assert (np.diff(after[np.argsort(before)].astype(int)) >= 0).all()
        ranks, step = np.searchsorted(np.sort(before), before), (before < before.max()).sum() // 255
        assert (after == np.minimum((ranks + step // 2) // step, 255)).all()


def test_ranges_are_those_of_torchvision(pixels: np.ndarray) -> None:
    """Of its RandAugment at magnitude 9 of 30: figures from its table, applied with Pillow alone."""
    image, strength = Image.fromarray(pixels), 9 / MOST
    expected = {
        "posterize": pixels & 0xFE,  # 8 - round(9 / 7.5) bits
        "solarize": np.where(pixels >= 178.5, 255 - pixels, pixels),
        "rotate": image.rotate(9.0, Image.Resampling.BILINEAR),
        "shear x": image.transform(
            image.size, Image.Transform.AFFINE, (1, 0.09, 0, 0, 1, 0), Image.Resampling.BILINEAR
        ),
        "translate y": np.concatenate([pixels[8:], np.zeros_like(pixels[:8])]),  # int(0.3 * 150 / 331 * 64)
    }
    for name, picture in expected.items():
        assert (change(pixels, name, strength) == np.asarray(picture)).all(), name


def test_each_operation_is_drawn_as_often_and_either_way(pixels: np.ndarray) -> None:
    """Each result is that of one operation, of either sign; within four standard errors all come alike."""
    image, draws = Image.fromarray(pixels), 2000
    known = {
        OPERATIONS[name](image, sign * 9 / MOST).tobytes(): (name, sign) for name in OPERATIONS for sign in (-1, 1)
    }
    found = [known[change_at_random(image, 1, 9.0, row_generator((7, 0, 1), row)).tobytes()] for row in range(draws)]
    two_way = {name for name in OPERATIONS if (name, -1) in known.values() and (name, 1) in known.values()}
    assert two_way == set(OPERATIONS) - {"nothing", "posterize", "solarize", "autocontrast", "equalize"}
    for name in OPERATIONS:
        for signs in ((-1, 1), (-1,), (1,)) if name in two_way else ((-1, 1),):
            chance = len(signs) / 2 / len(OPERATIONS)
            times = sum(each == name and sign in signs for each, sign in found)
            assert abs(times - draws * chance) < 4 * math.sqrt(draws * chance * (1 - chance)), (name, signs)


def test_operations_follow_one_another(pixels: np.ndarray) -> None:
    """Two at once are two, one after the other: among all pairs of them, and of no other number."""
    image = Image.fromarray(pixels)
    ways = [(name, sign * 0.3) for name in OPERATIONS for sign in (-1, 1)]
    pairs = {
        OPERATIONS[after](OPERATIONS[first](image, one), two).tobytes()
        for (first, one), (after, two) in product(ways, ways)
    }
    singles = {OPERATIONS[name](image, strength).tobytes() for name, strength in ways}
    drawn = [change_at_random(image, 2, 9.0, row_generator((7, 0, 1), row)).tobytes() for row in range(100)]
    assert set(drawn) <= pairs and len(set(drawn) - singles) > 40
    assert change_at_random(image, 0, 9.0, row_generator((7, 0, 1), 0)) is image
