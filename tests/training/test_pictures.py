"""Pictures are other ones in each epoch, by their place in training alone."""

import io
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import facts, forget_trained, resolve_run, train_with_stops, write_family_project

from graftwork.checkpoints.retrieve import open_checkpoint
from graftwork.errors import TrainingError
from graftwork.models.prefix_cache import PrefixCache, arithmetic_of
from graftwork.models.serving.config import PixelConfig
from graftwork.models.serving.images import ImageEncoder, ImageRow
from graftwork.models.serving.model import make_encoder
from graftwork.training.augmentation import row_generator
from graftwork.training.engine import Training, load_model, open_rows, run_stages, serving_config
from graftwork.training.loop import open_stage
from graftwork.training.pictures import PictureChange, recolour
from graftwork.training.replicas import Replicas
from graftwork.training.state import FollowingKeeper
from graftwork.workspace import Workspace

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
    how = {"crop": 0.5, "flip": 0.5, "colour": 0.4, "rand_operations": 3, "rand_magnitude": 20.0}
    same = change(pixels, **how)
    assert (same == change(pixels, **how)).all()
    for place, number in (((7, 0, 2), 0), ((7, 1, 1), 0), ((8, 0, 1), 0), ((7, 0, 1), 1)):
        assert (same != change(pixels, place, number, **how)).any()
    flipped = [bool((change(pixels, number=n, flip=0.5) != pixels).any()) for n in range(40)]
    slight = {"colour": 1e-9, "rand_operations": 1, "rand_magnitude": 9.0}
    also = [
        bool((change(pixels, number=n, flip=0.5, **slight) == change(pixels, number=n, **slight)).all())
        for n in range(40)
    ]
    assert flipped == [not same for same in also]
    assert 8 < sum(flipped) < 32


@given(st.tuples(*[st.floats(0.5, 1.5)] * 3))
def test_colours_stay_colours(factors: tuple[float, float, float]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    changed = recolour(pixels, *factors)
    assert changed.shape == pixels.shape and changed.dtype == np.uint8
    assert (recolour(pixels, 1, 1, 1) == pixels).all()
    grey = recolour(pixels, 1, 1, 0).astype(int)
    assert (np.ptp(grey, axis=2) <= 1).all()


def test_a_picture_that_is_left_over_joins_a_batch(tmp_path: Path, workspace: Workspace) -> None:
    """By itself it can't be normalised. Stopped and gone on from, the run ends with the bits of an unbroken one."""
    write_family_project(tmp_path, "resnet")
    size = next(size for size in count(5) if resolve_run(tmp_path, workspace).plan.rows["train"] % size == 1)
    # Of so small a picture one place is left in the end, and counts one token.
    changes = ("input.side=16", f"train.batch_tokens={size}", "stages.1.train=all", "stages.1.average={ema: 0.5}")
    run = resolve_run(tmp_path, workspace, *changes)
    unbroken = run_stages(run, workspace, lambda event: None, lambda: False)
    forget_trained(run, workspace)
    assert facts(train_with_stops(run, workspace, 7, 23)) == facts(unbroken)


def test_too_few_pictures_to_normalise_are_told(tmp_path: Path, workspace: Workspace) -> None:
    write_family_project(tmp_path, "resnet")
    run = resolve_run(tmp_path, workspace, "stages.0.train=all")
    plan, checkpoint = run.plan, open_checkpoint(workspace.store, run.lock)
    model = load_model(plan, checkpoint, workspace.store, [])
    cache = PrefixCache(workspace.store, 0, arithmetic_of(model, plan.precision))
    rows = open_rows(run, workspace.store, make_encoder(checkpoint, serving_config(plan)))
    training = Training(run, rows, model, cache, Replicas(0, 200))
    context = training.stage_context(0, FollowingKeeper(), lambda event: None, lambda: False)
    told = f"stage 'head': batch normalisation needs 400 rows in 200 processes, not {plan.rows['train']}"
    with pytest.raises(TrainingError, match=told):
        open_stage(model, plan.stages[0], plan.groups, training.stage_data(context), context)
