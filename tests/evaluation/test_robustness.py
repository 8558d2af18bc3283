"""Attacks on embeddings and pixels, against the worst case of a linear model; swapped letters."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from graftwork.evaluation.robustness import attack_probabilities, swap_letters
from graftwork.models.serving.classifier import Classifier
from graftwork.models.serving.config import PixelConfig, ServingConfig
from graftwork.models.serving.images import ImageEncoder
from graftwork.models.serving.model import ServingModel
from graftwork.models.serving.text import TextEncoder
from graftwork.models.text import load_pretrained

CONFIG = ServingConfig(("no", "yes"), ("text",), "mean", 16)
TEXTS = ["a good film", "bad", "the plot was not very good", "boring and weak"]
LABELS = np.array([1, 0, 0, 1])


class Table(nn.Module):
    """A body that is its embeddings and nothing else, so that the classifier is linear in them."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.table = table

    def get_input_embeddings(self) -> nn.Embedding:
        return self.table

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> "Table":
        self.last_hidden_state = self.table(input_ids)
        return self


@pytest.fixture
def served(tiny_checkpoint: Path) -> ServingModel:
    """The tiny model, its head large enough to be sure of something."""
    model = load_pretrained(tiny_checkpoint, CONFIG, seed=3).eval()
    with torch.no_grad():
        model.head[-1].weight *= 20
    return ServingModel(model, TextEncoder(tiny_checkpoint, 16), CONFIG, torch.device("cpu"))


@pytest.fixture
def linear(served: ServingModel) -> ServingModel:
    """The same without all that is between embeddings and head."""
    served.model.body = Table(served.model.body.get_input_embeddings())
    return served


def margins(probabilities: np.ndarray) -> np.ndarray:
    """(rows,) the logit of the true class less that of the other."""
    logits = np.log(probabilities)
    return logits[np.arange(len(LABELS)), LABELS] - logits[np.arange(len(LABELS)), 1 - LABELS]


@pytest.mark.parametrize(("epsilon", "steps"), [(0.5, 1), (0.5, 4), (2.0, 7)])
def test_a_linear_model_is_moved_to_its_worst_case(linear: ServingModel, epsilon: float, steps: int) -> None:
    """The margin of a mean of n tokens falls by epsilon |w| / sqrt(n), w being the difference of the two classes."""
    plain = linear.probabilities(TEXTS)
    found = attack_probabilities(linear, TEXTS, LABELS, epsilon, steps)
    weight = (linear.model.head[-1].weight[1] - linear.model.head[-1].weight[0]).norm().item()
    tokens = np.array([len(row) for row in linear.encoder.encode(TEXTS)])
    np.testing.assert_allclose(margins(plain) - margins(found), epsilon * weight / np.sqrt(tokens), rtol=1e-3)


def test_an_attack_only_ever_harms_and_leaves_nothing_behind(served: ServingModel) -> None:
    """What counts is the highest loss that was met, so that more steps than one can't help the model."""
    plain = served.probabilities(TEXTS)
    for steps in (1, 5):
        found = attack_probabilities(served, TEXTS, LABELS, epsilon=0.3, steps=steps)
        assert (margins(found) <= margins(plain) + 1e-4).all()
        assert (margins(found) < margins(plain) - 1e-3).any()
    assert not served.model.body.get_input_embeddings()._forward_hooks
    assert np.array_equal(served.probabilities(TEXTS), plain)
    assert all(parameter.grad is None for parameter in served.model.parameters())


def test_no_attack_is_no_change(served: ServingModel) -> None:
    """At a distance of nothing."""
    found = attack_probabilities(served, TEXTS, LABELS, epsilon=0.0, steps=2)
    np.testing.assert_allclose(found, served.probabilities(TEXTS), atol=1e-5)


class Flat(nn.Module):
    """A body whose state is a picture's numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(hidden_size=width)

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=pixel_values.flatten(1)[:, None])


@pytest.mark.parametrize(("epsilon", "steps"), [(0.02, 1), (0.1, 4), (0.6, 7)])
def test_pictures_are_moved_to_the_worst_that_a_linear_model_can_be_shown(epsilon: float, steps: int) -> None:
    """Each pixel by epsilon of its range against the true class, and not beyond black and white."""
    side, generator = 5, np.random.default_rng(3)
    pixels = PixelConfig(side, None, (0.2, 0.5, 0.7), (0.1, 0.25, 0.5))
    config = ServingConfig(("no", "yes"), ("file",), "mean", 1, pixels=pixels)
    torch.manual_seed(0)
    model = Classifier(Flat(3 * side * side), config).eval()
    served = ServingModel(model, ImageEncoder(pixels), config, torch.device("cpu"))
    shown = np.clip(generator.normal(128, 80, (4, side, side, 3)), 0, 255).astype(np.uint8)
    found = attack_probabilities(served, [png(each) for each in shown], LABELS, epsilon, steps)
    truth = np.where(LABELS == 1, 1, -1)
    weight, bias = (each.detach().double().numpy() for each in (model.head[-1].weight, model.head[-1].bias))
    across = (weight[1] - weight[0]).reshape(3, side, side).transpose(1, 2, 0) * truth[:, None, None, None]
    worst = np.clip(shown / 255 - epsilon * np.sign(across), 0, 1)
    expected = ((worst - pixels.mean) / pixels.std * across).sum((1, 2, 3)) + (bias[1] - bias[0]) * truth
    np.testing.assert_allclose(margins(found), expected, atol=1e-4)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@given(st.text(max_size=60), st.integers(0, 9))
def test_swapped_letters_are_the_same_letters(text: str, seed: int) -> None:
    """Every word keeps its letters, its first and its last; the same seed swaps the same."""
    found = swap_letters(text, 1.0, seed)
    assert sorted(found) == sorted(text)
    assert swap_letters(text, 1.0, seed) == found
    assert swap_letters(text, 0.0, seed) == text


def test_words_of_four_letters_and_more_are_swapped() -> None:
    """Each at a probability of 1, others never."""
    assert swap_letters("Very bad, 1234", 1.0, 0) == "Vrey bad, 1234"
