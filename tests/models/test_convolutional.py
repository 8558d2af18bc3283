"""VGG and AlexNet: what they compute and how large they are, against torch's functions and torchvision's figures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CONFIGS
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - as everybody calls it

from graftwork.convert import ARCHITECTURES
from graftwork.errors import CheckpointError, RecipeError
from graftwork.models.catalog import FAMILIES, depth_groups
from graftwork.models.layers import check_layers
from graftwork.models.serving.own import make_own_body
from graftwork.models.text import load_body
from graftwork.sections.stages import LoraSection
from graftwork.training.stages import plan_adapters

# https://docs.pytorch.org/vision/stable/models.html, of models for the 1,000 classes of ImageNet
PUBLISHED = {
    "alexnet": 61_100_840,
    "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg13": 133_047_848,
    "vgg13_bn": 133_053_736,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "vgg19": 143_667_240,
    "vgg19_bn": 143_678_248,
}
CLASSES = 1000


def whole(name: str) -> torch.nn.Module:
    """A model in its full size, without memory for its weights."""
    with torch.device("meta"):
        body, _ = make_own_body(Path(), ARCHITECTURES[name], has_weights=False)
    return body


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_has_as_many_parameters_as_torchvision_says(name: str) -> None:
    """With the layer that tells ImageNet's classes, which is not ours."""
    last = ARCHITECTURES[name]["hidden_size"] * CLASSES + CLASSES
    assert sum(parameter.numel() for parameter in whole(name).parameters()) + last == PUBLISHED[name]


def test_no_other_architecture_is_offered() -> None:
    assert ARCHITECTURES.keys() == PUBLISHED.keys()


def pool(states: Tensor, side: int) -> Tensor:
    return F.adaptive_avg_pool2d(states, side).flatten(1)


def vgg(weights: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """The tiny one of `tiny.CONFIGS`, written out by the names of its tensors."""
    states = pixels
    for convolution, norm, has_pool in ((0, 1, 1), (4, 5, 0), (7, 8, 1), (11, 12, 1), (15, 16, 1)):
        states = F.conv2d(
            states, weights[f"features.{convolution}.weight"], weights[f"features.{convolution}.bias"], padding=1
        )
        statistics = (weights[f"features.{norm}.running_mean"], weights[f"features.{norm}.running_var"])
        states = F.batch_norm(states, *statistics, weights[f"features.{norm}.weight"], weights[f"features.{norm}.bias"])
        states = F.relu(states)
        states = F.max_pool2d(states, 2, 2) if has_pool else states
    states = F.relu(F.linear(pool(states, 2), weights["classifier.0.weight"], weights["classifier.0.bias"]))
    return F.relu(F.linear(states, weights["classifier.3.weight"], weights["classifier.3.bias"]))


def alexnet(weights: dict[str, Tensor], pixels: Tensor) -> Tensor:
    def convolve(states: Tensor, layer: int, stride: int, padding: int) -> Tensor:
        weight, bias = weights[f"features.{layer}.weight"], weights[f"features.{layer}.bias"]
        return F.relu(F.conv2d(states, weight, bias, stride, padding))

    states = F.max_pool2d(convolve(pixels, 0, 4, 2), 3, 2)
    states = F.max_pool2d(convolve(states, 3, 1, 2), 3, 2)
    states = convolve(convolve(states, 6, 1, 1), 8, 1, 1)
    states = F.relu(F.linear(pool(states, 2), weights["classifier.1.weight"], weights["classifier.1.bias"]))
    return F.relu(F.linear(states, weights["classifier.4.weight"], weights["classifier.4.bias"]))


@pytest.mark.parametrize(("architecture", "by_hand"), [("vgg", vgg), ("alexnet", alexnet)])
@pytest.mark.parametrize("side", [32, 75])
def test_it_computes_what_torchvision_s_layers_do(
    architecture: str, by_hand: Callable[..., Tensor], side: int, make_checkpoint: Callable[..., Path]
) -> None:
    """To the bit, for pictures of the side it was made with and of another."""
    body = load_body(make_checkpoint(architecture)).eval()
    for name, tensor in body.state_dict().items():
        if tensor.is_floating_point():  # none of them may be what a new one has: biases are 0 there
            tensor.uniform_(*((0.5, 1.5) if name.endswith("running_var") else (-0.2, 0.3)))
    pixels = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found: Any = body(pixel_values=pixels)
        expected = by_hand(body.state_dict(), pixels)
    assert found.pooler_output.std() > 0
    assert torch.equal(found.pooler_output, expected)


def test_vgg_is_drawn_as_torchvision_draws_it() -> None:
    """Convolutions by the variance of He et al. for what comes out of them, wide layers 0.01 wide, biases 0."""
    torch.manual_seed(0)
    sizes = {"layers": [64, "M", 128], "batch_norm": False, "hidden_size": 256, "pooled_side": 2, "dropout": 0.5}
    body, _ = make_own_body(Path(), {"model_type": "vgg"} | sizes, has_weights=False)
    found = {name: float(tensor.std()) for name, tensor in body.state_dict().items() if name.endswith("weight")}
    expected = {"features.0.weight": (2 / (9 * 64)) ** 0.5, "features.3.weight": (2 / (9 * 128)) ** 0.5}
    assert found == pytest.approx(expected | {"classifier.0.weight": 0.01, "classifier.3.weight": 0.01}, rel=0.05)
    assert all(not tensor.any() for name, tensor in body.state_dict().items() if name.endswith("bias"))


@pytest.mark.parametrize(
    ("name", "convolutions"),
    [
        ("vgg11", [[0], [3], [6, 8], [11, 13], [16, 18]]),
        ("vgg16", [[0, 2], [5, 7], [10, 12, 14], [17, 19, 21], [24, 26, 28]]),
        ("vgg16_bn", [[0, 3], [7, 10], [14, 17, 20], [24, 27, 30], [34, 37, 40]]),
        ("alexnet", [[0], [3], [6], [8], [10]]),
    ],
)
def test_blocks_lie_between_pools(name: str, convolutions: list[list[int]]) -> None:
    """Those of torchvision's models, whose layers are numbered in one row; of AlexNet each convolution is one."""
    body = whole(name)
    shapes = {name: tuple(tensor.shape) for name, tensor in body.state_dict().items()}
    groups = depth_groups(FAMILIES[ARCHITECTURES[name]["model_type"]], shapes, head_parameters=1)
    assert [group.name for group in groups] == ["embeddings", *(f"block.{n}" for n in range(4)), "neck", "head"]
    found = [
        [
            layer
            for layer, module in enumerate(body.get_submodule("features"))
            if isinstance(module, torch.nn.Conv2d) and f"body.features.{layer}." in group.prefixes
        ]
        for group in groups[:5]
    ]
    assert found == convolutions
    assert sum(group.parameters for group in groups) - 1 == sum(each.numel() for each in body.parameters())


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "vgg"} | CONFIGS["vgg"],
        {"model_type": "alexnet"} | CONFIGS["alexnet"],
        ARCHITECTURES["vgg11"],
        ARCHITECTURES["alexnet"],
    ],
)
def test_a_side_is_refused_exactly_where_torch_refuses_it(config: dict[str, Any]) -> None:
    with torch.device("meta"):
        body, _ = make_own_body(Path(), config, has_weights=False)
    features = body.eval().get_submodule("features")
    refused = []
    for side in range(1, 70):
        try:
            features(torch.zeros(1, 3, side, side, device="meta"))
        except RuntimeError:
            with pytest.raises(
                CheckpointError, match=f"input.side: its pools leave nothing of pictures of side {side} "
            ):
                check_layers(config, side)
            refused.append(side)
        else:
            check_layers(config, side)
    assert refused


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"layers": [8, "M", "P"]}, "config.json: layers: expected a list of widths"),
        ({"layers": ["M", 8]}, "layers: expected"),
        ({"layers": []}, "layers: expected"),
        ({"layers": None}, "layers: expected .* found None"),
        ({"layers": [8, True]}, "layers: expected"),
        ({"layers": [8, -1]}, "layers: expected"),
        ({"hidden_size": 0}, "hidden_size: expected a whole number above 0, found 0"),
        ({"pooled_side": "7"}, "pooled_side: expected"),
        ({"dropout": 1}, "dropout: expected"),
        ({"batch_norm": None}, "batch_norm: expected true or false"),
    ],
)
def test_a_config_that_describes_no_body_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(CheckpointError, match=problem):
        check_layers({"model_type": "vgg"} | CONFIGS["vgg"] | changes, 32)


@pytest.mark.parametrize("architecture", ["vgg", "alexnet"])
def test_there_are_no_adapters_beside_convolutions(architecture: str, make_checkpoint: Callable[..., Path]) -> None:
    """Which is said, whatever the targets."""
    shapes = {name: tuple(each.shape) for name, each in load_body(make_checkpoint(architecture)).state_dict().items()}
    family = FAMILIES[architecture]
    with pytest.raises(RecipeError, match=r"stages\.1\.lora: .* it has no blocks with linear layers"):
        plan_adapters(LoraSection(), family, shapes, depth_groups(family, shapes, 1), "stages.1.lora")
