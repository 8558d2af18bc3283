"""Training on moved pictures: the move by hand, and in a run that is stopped, killed and gone on from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import facts, forget_trained, resolve_run, train_with_stops, write_family_project
from torch import Tensor, nn
from torture import torture

from graftwork.errors import RecipeError
from graftwork.models.moves import moved
from graftwork.models.serving.config import PixelConfig
from graftwork.settings import Settings
from graftwork.training.adversary import Attack
from graftwork.training.engine import run_stages
from graftwork.training.stages import Adversary
from graftwork.workspace import Workspace

SIDE = 4
PIXELS = PixelConfig(SIDE, None, (0.2, 0.5, 0.7), (0.1, 0.25, 0.5))
MEAN, STD = (np.array(each).reshape(3, 1, 1) for each in (PIXELS.mean, PIXELS.std))
AGAINST = "stages.1.adversary={epsilon: 0.1, steps: 2}"


class Weighed(nn.Module):
    """A linear body, which keeps what it has read: the weighed sum of a picture's numbers."""

    def __init__(self, weight: np.ndarray) -> None:
        super().__init__()
        self.weight, self.read = nn.Parameter(torch.from_numpy(weight).float()), list[np.ndarray]()

    def forward(self, pixel_values: Tensor) -> Tensor:
        self.read.append(shares(pixel_values))
        return (pixel_values * self.weight).flatten(1).sum(1)


def shares(pixels: Tensor) -> np.ndarray:
    """What the numbers that a body reads were before they were normalised."""
    return pixels.detach().double().numpy() * STD + MEAN


def normalised(shown: np.ndarray) -> Tensor:
    return torch.from_numpy((shown - MEAN) / STD).float()


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of black, white and what is between, (5, 3, side, side), and weights, some of them 0."""
    generator = np.random.default_rng(seed)
    shown = np.clip(generator.normal(0.5, 0.4, (5, 3, SIDE, SIDE)), 0, 1)
    return shown, generator.normal(0, 1, (3, SIDE, SIDE)) * (generator.random((3, SIDE, SIDE)) < 0.8)


@pytest.mark.parametrize("steps", [1, 3])
@given(st.floats(0.001, 0.9), st.integers(0, 99))
def test_a_linear_loss_moves_each_pixel_by_the_sign_of_its_weight(steps: int, epsilon: float, seed: int) -> None:
    """By epsilon of its range, or to black or white; however many steps, as there is nothing to turn round for.

    The gradient is the mean of what is read as it is and after each step.
    """
    shown, weight = drawn(seed)
    body = Weighed(weight)
    value = Attack(body, PIXELS, Adversary(epsilon, steps))(lambda: body(pixel_values=normalised(shown)).mean())
    assert len(body.read) == 1 + steps
    np.testing.assert_allclose(body.read[0], shown, atol=1e-6)
    np.testing.assert_allclose(body.read[-1], np.clip(shown + epsilon * np.sign(weight), 0, 1), atol=1e-6)
    mean = (np.mean(body.read, axis=(0, 1)) - MEAN) / STD
    np.testing.assert_allclose(body.weight.grad, mean, atol=1e-4)
    assert value == pytest.approx(((shown - MEAN) / STD * weight).sum((1, 2, 3)).mean(), abs=1e-4)
    assert not body._forward_pre_hooks


@given(st.lists(st.integers(0, 99), min_size=1, max_size=5), st.floats(0.0, 0.9), st.floats(0.0, 3.0))
def test_a_moved_picture_is_a_picture(gradients: list[int], most: float, far: float) -> None:
    """Whichever way it is moved: between black and white, and no pixel further than it may."""
    shown, weight = drawn(0)
    body = Weighed(weight)
    with moved(body, PIXELS) as move:
        body(pixel_values=normalised(shown))
        for seed in gradients:
            move.up(torch.randn(shown.shape, generator=torch.Generator().manual_seed(seed)), far, most)
            body(pixel_values=normalised(shown))
    assert all(read.min() >= -1e-6 and read.max() <= 1 + 1e-6 for read in body.read)
    assert max(np.abs(read - shown).max() for read in body.read) <= most + 1e-6


def test_what_is_frozen_is_computed_in_each_step_below_moved_pixels(tmp_path: Path, workspace: Workspace) -> None:
    """A cache would have the pictures as they are; other weights come of it."""
    write_family_project(tmp_path, "vit")
    plain, against = (
        resolve_run(tmp_path, workspace, *changes) for changes in ((), (AGAINST.replace("stages.1", "stages.0"),))
    )
    assert plain.plan.stages[0].is_cut
    assert not against.plan.stages[0].is_cut
    first, second = (run_stages(run, workspace, lambda event: None, lambda: False) for run in (plain, against))
    assert first.stages[0].weights_digest != second.stages[0].weights_digest


def test_stopped_and_gone_on_from_it_ends_with_the_same_bits(tmp_path: Path, workspace: Workspace) -> None:
    """Batch normalisation counts moved pictures, too, and rows are augmented before they are moved."""
    write_family_project(tmp_path, "resnet")
    changes = ("train.batch_tokens=20", "stages.1.train=all", AGAINST, "stages.1.augment={flip: 0.5}")
    run = resolve_run(tmp_path, workspace, *changes)
    unbroken = run_stages(run, workspace, lambda event: None, lambda: False)
    forget_trained(run, workspace)
    assert facts(train_with_stops(run, workspace, 7, 23)) == facts(unbroken)


@pytest.mark.e2e
def test_killed_and_resumed_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Wherever it dies."""
    write_family_project(tmp_path, "vgg")
    run = resolve_run(tmp_path, Workspace.open(Settings(home=tmp_path / "home")), AGAINST)
    tally = torture({"pixels": run}, tmp_path / "home", kills=4, seed=1)
    assert tally.killed["pixels"] == 4
    assert (tally.different, tally.torn) == ([], 0)


@pytest.mark.parametrize(
    ("family", "adversary", "message"),
    [
        ("vit", "{}", "adversary.epsilon is what each pixel .* expected one below 1, such as 0.03, not 1"),
        ("vit", "{epsilon: 8}", "expected one below 1, such as 0.03, not 8"),
        ("wav2vec2", "{epsilon: 0.1}", "stage 'top': adversary is for texts and pictures"),
    ],
)
def test_what_can_t_be_meant_is_refused(
    tmp_path: Path, workspace: Workspace, family: str, adversary: str, message: str
) -> None:
    """An epsilon that leaves nothing of a picture, as the default of texts would; and sounds."""
    write_family_project(tmp_path, family)
    with pytest.raises(RecipeError, match=message):
        resolve_run(tmp_path, workspace, f"stages.1.adversary={adversary}")
