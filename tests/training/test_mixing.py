"""Mixed pictures: what a row becomes and what it is called, by hand, by its place alone, and what becomes of a run."""

import io
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import beta, kstest
from tiny import facts, forget_trained, resolve_run, train_until, write_family_project, write_image_labels_project
from torch import nn

from graftwork.errors import Paused, RecipeError
from graftwork.models.serving.config import PixelConfig
from graftwork.models.serving.images import ImageEncoder
from graftwork.training.loop import Examples
from graftwork.training.mixing import Mix, Mixture, mixed_loss
from graftwork.training.pictures import PictureChange
from graftwork.training.plan import ResolvedRun
from graftwork.workspace import Workspace

SIDE, ROWS = 10, 7
EPOCH = st.tuples(st.integers(0, 2**40), st.integers(0, 9), st.integers(1, 99))
ALPHA = st.floats(0.01, 10)
CPU = torch.device("cpu")
ALL = "{crop: 0.3, flip: 0.5, rand: {operations: 2, magnitude: 9}, mixup: 0.2, cutmix: 1.0}"


@pytest.fixture(scope="module")
def examples() -> Examples:
    """Pictures of three classes that are changed in all ways."""
    pixels = np.random.default_rng(1).integers(0, 256, (ROWS, SIDE, SIDE, 3), dtype=np.uint8)
    files = [io.BytesIO() for _ in pixels]
    for file, each in zip(files, pixels, strict=True):
        Image.fromarray(each).save(file, "PNG")
    encoder = ImageEncoder(PixelConfig(SIDE, SIDE, (0.5,) * 3, (0.5,) * 3))
    rows, labels = encoder.encode([file.getvalue() for file in files]), np.arange(ROWS) % 3
    change = PictureChange(SIDE, SIDE, crop=0.5, flip=0.5, colour=0.2, rand_operations=2, rand_magnitude=9)
    mixture = Mixture(labels, 3, SIDE, mixup=0.5, cutmix=1.0)
    return Examples(rows, labels, encoder, [1] * ROWS, (change,), mixture=mixture)


@settings(deadline=None)
@given(epoch=EPOCH, order=st.permutations(range(ROWS)), size=st.integers(1, ROWS))
def test_a_mixed_row_depends_on_nothing_beside_it(
    examples: Examples, epoch: tuple[int, int, int], order: list[int], size: int
) -> None:
    """In any order, in any batch, drawn again: pixels and shares of classes are the same as alone."""
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        for index, pixels, label in zip(batch, *examples.batch(batch, epoch, CPU)[::2], strict=True):
            alone, _, (own,) = examples.batch([index], epoch, CPU)
            assert torch.equal(alone[0], pixels) and torch.equal(own, label)


def test_pixels_are_mixed_by_the_share() -> None:
    """By hand: a blend is rounded, a piece is that of the other."""
    mine, other = np.full((4, 4, 3), 10, np.uint8), np.full((4, 4, 3), 201, np.uint8)
    assert (Mix(0, 0.75).blend(mine, other) == 58).all()  # 57.75
    pasted = Mix(0, 14 / 16, (slice(1, 3), slice(3, 4))).blend(mine, other)
    assert pasted[1:3, 3].tolist() == [[201] * 3] * 2
    assert (pasted == 201).sum() == 6 and (pasted == 10).sum() == 42 and (mine == 10).all()


@given(epoch=EPOCH, index=st.integers(0, 19), alpha=ALPHA, is_cut=st.booleans())
def test_labels_are_shared_as_pixels_are(epoch: tuple[int, int, int], index: int, alpha: float, is_cut: bool) -> None:
    """A pasted piece counts its exact area, a blend what a pixel is of both; shares are of one whole."""
    how = {"cutmix" if is_cut else "mixup": alpha}
    mixture = Mixture(np.arange(20), 20, SIDE, **how)
    mix, label = mixture.draw(index, epoch), mixture.label(index, epoch)
    pixels = mix.blend(np.full((SIDE, SIDE, 3), 200, np.uint8), np.zeros((SIDE, SIDE, 3), np.uint8))
    expected = np.zeros(20)
    expected[index] += pixels.mean() / 200
    expected[mix.partner] += 1 - pixels.mean() / 200
    np.testing.assert_allclose(label, expected, atol=1e-6 if is_cut else 0.5 / 200 + 1e-6)
    assert label.dtype == np.float32 and label.sum() == pytest.approx(1, abs=1e-6) and label.min() >= 0
    assert (mix.box is not None) == is_cut


def test_shares_are_of_the_beta_distribution() -> None:
    """Partners are any row, as often; of both ways each row takes either, and the partner does not depend on it."""
    labels = np.arange(50)
    both = Mixture(labels, 50, 1000, mixup=0.4, cutmix=2.0)
    drawn = [both.draw(row, (7, 0, epoch)) for epoch in range(40) for row in range(50)]
    alone = [Mixture(labels, 50, 1000, mixup=0.4).draw(row, (7, 0, epoch)) for epoch in range(40) for row in range(50)]
    assert [mix.partner for mix in drawn] == [mix.partner for mix in alone]
    assert 910 < sum(mix.box is None for mix in drawn) < 1090
    assert kstest([mix.share for mix in alone], beta(0.4, 0.4).cdf).pvalue > 0.01
    assert kstest([mix.share for mix in drawn if mix.box is None], beta(0.4, 0.4).cdf).pvalue > 0.01
    # A piece in the middle is whole.
    whole = [mix.share for mix in drawn if mix.box and all(axis.start > 0 and axis.stop < 1000 for axis in mix.box)]
    edges = [mix.share for mix in drawn if mix.box]
    assert len(whole) > 100 and np.mean(edges) > beta(2, 2).mean()
    counts = np.bincount([mix.partner for mix in drawn], minlength=50)
    assert counts.min() > 12 and counts.max() < 68
    assert len({mix.share for mix in drawn}) > 1900


def test_several_labels_are_shared_one_by_one() -> None:
    """Of rows that have any number of classes: what both have is whole, what one has is its share."""
    labels = np.array([[1, 1, 0], [1, 0, 1]], dtype=np.float32)
    mixture = Mixture(labels, 3, SIDE, mixup=1.0)
    epoch = next(each for each in ((7, 0, number) for number in count(1)) if mixture.draw(0, each).partner == 1)
    share = mixture.draw(0, epoch).share
    np.testing.assert_allclose(mixture.label(0, epoch), [1, share, 1 - share], rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0])])
def test_the_loss_is_that_of_both_labels(weights: torch.Tensor | None, smoothing: float) -> None:
    """The share times the one's and the rest times the other's; whole labels cost what torch says they do."""
    chance = torch.Generator().manual_seed(3)
    logits, share = torch.randn(6, 3, generator=chance), torch.rand(6, generator=chance)
    one, other = torch.tensor([0, 1, 2, 2, 1, 0]), torch.tensor([1, 1, 0, 2, 0, 2])
    first, second = (nn.functional.one_hot(each, 3).float() for each in (one, other))
    shares = share[:, None] * first + (1 - share)[:, None] * second
    how = {"label_smoothing": smoothing}
    parts = [nn.functional.cross_entropy(logits, each, weights, reduction="none", **how) for each in (one, other)]
    counts = [torch.ones(6) if weights is None else weights[each] for each in (one, other)]
    expected, total = (share @ each[0] + (1 - share) @ each[1] for each in (parts, counts))
    torch.testing.assert_close(mixed_loss(logits, shares, weights, smoothing), expected / total)
    torch.testing.assert_close(
        mixed_loss(logits, first, weights, smoothing), nn.CrossEntropyLoss(weights, **how)(logits, one)
    )


def test_a_run_of_mixed_pictures_goes_on_to_the_same_bits(tmp_path: Path, workspace: Workspace) -> None:
    """Stopped twice, with all that pictures take, classes weighed and several batches a step: as an unbroken one."""
    write_family_project(tmp_path, "vit")
    changes = (f"stages.1.augment={ALL}", "stages.1.class_weights=balanced", "stages.1.accumulate=2")
    run = resolve_run(tmp_path, workspace, *changes, "stages.1.label_smoothing=0.1")
    assert run.plan.stages[1].cut == 0 and run.plan.stages[1].mixing == {"mixup": 0.2, "cutmix": 1.0}
    unbroken = train_until(run, workspace)
    forget_trained(run, workspace)
    for limit in (8, 2):
        with pytest.raises(Paused, match="'top' at step"):
            train_until(run, workspace, limit)
    assert facts(train_until(run, workspace)) == facts(unbroken)


def test_pictures_of_several_labels_are_mixed_in_training(tmp_path: Path, workspace: Workspace) -> None:
    """Its losses are others than without, and so are its weights."""
    write_family_project(tmp_path, "vit")
    write_image_labels_project(tmp_path, tmp_path / "checkpoint")
    plain, mixed = ("stages.1.augment={flip: 0.5}", "stages.1.augment={flip: 0.5, mixup: 1.0}")
    losses = []
    for change in (plain, mixed):
        bundle = train_until(resolve_run(tmp_path, workspace, change), workspace)
        losses.append([epoch.train_loss for epoch in bundle.stages[1].epochs])
    assert np.isfinite(losses).all() and losses[0] != losses[1]


def test_what_is_not_asked_for_changes_no_key(tmp_path: Path, workspace: Workspace) -> None:
    """A key that is as by default is as good as none; RandAugment's are part of the plan as they are, said or not."""
    write_family_project(tmp_path, "vit")
    plain, zero, said, unsaid = (
        resolve_run(tmp_path, workspace, *change).plan
        for change in (
            [],
            ["stages.1.augment={mixup: 0, cutmix: 0.0}"],
            ["stages.1.augment={rand: {operations: 2, magnitude: 9}}"],
            ["stages.1.augment={rand: {}}"],
        )
    )
    assert zero == plain and said.stages == unsaid.stages
    assert said.stages[1].augment == {"rand_operations": 2.0, "rand_magnitude": 9.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["stages.1.augment={mixup: 0.2}"], "stage 'top': mixup is for pictures"),
        (["stages.1.augment={rand: {}}"], "stage 'top': rand is for pictures"),
        (["stages.1.augment={cutmix: -1}"], "augment.cutmix"),
        (["stages.1.augment={rand: {magnitude: 31}}"], "augment.rand.magnitude"),
        (["stages.1.augment={rand: {operations: 0}}"], "augment.rand.operations"),
        (
            ["stages.1.augment={cutmix: 1.0}", "stages.1.distil={from: m@best}"],
            "cutmix makes pictures that the teacher",
        ),
    ],
)
def test_what_can_t_be_mixed_is_refused(resolve: Callable[..., ResolvedRun], changes: list[str], message: str) -> None:
    """Before anything is spent."""
    with pytest.raises(RecipeError, match=message):
        resolve(*changes)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("wav2vec2", ["stages.1.augment={cutmix: 0.2}"], "cutmix is for pictures"),
        (
            "vit",
            [
                "problem_type=image-regression",
                "data.label={from: score}",
                "stages.1.augment={mixup: 0.2}",
            ],
            "mixup of top is not for regression",
        ),
        (
            "vit",
            [
                "auxiliary=[{name: again, sources: [{name: again, path: pictures}],"
                " label: {from: folder, classes: ['no', 'yes']}}]",
                "stages.1.auxiliary=again",
                "stages.1.augment={mixup: 0.2}",
            ],
            "mixup is for a stage of one task",
        ),
    ],
)
def test_what_is_no_picture_of_classes_is_refused(
    tmp_path: Path, workspace: Workspace, family: str, changes: list[str], message: str
) -> None:
    """Before anything is spent."""
    write_family_project(tmp_path, family)
    with pytest.raises(RecipeError, match=message):
        resolve_run(tmp_path, workspace, *changes)
