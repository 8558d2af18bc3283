"""Depth groups, for every architecture of the catalog."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from graftwork.errors import CheckpointError
from graftwork.models.catalog import (
    FAMILIES,
    FamilyFacts,
    block_layers,
    depth_groups,
    family_of,
    list_families,
    width_of,
)
from graftwork.models.configs import read_model_config
from graftwork.models.serving.config import PixelConfig, ServingConfig, SoundConfig
from graftwork.models.text import load_pretrained
from graftwork.training.stage_plans import head_parameters

MEDIA = {
    "text": {},
    "image": {"pixels": PixelConfig(32, None, (0.5,) * 3, (0.5,) * 3)},
    "audio": {"sound": SoundConfig(rate=4000, max_samples=2000)},
}
CONFIG = ServingConfig(classes=("no", "yes"), columns=("text",), pooling="mean", max_tokens=16)


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(folder / "model.safetensors", "numpy") as tensors:
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118


@pytest.mark.parametrize(
    ("architecture", "pooling"),
    [
        (name, pooling)
        for name, family in FAMILIES.items()
        for pooling in sorted({family.pooling, "attention"} & {*family.poolings})
    ],
)
def test_every_parameter_is_in_exactly_one_depth_group(
    architecture: str, pooling: str, make_checkpoint: Callable[..., Path]
) -> None:
    """The groups made from the file's header partition the parameters of the model that is trained."""
    folder = make_checkpoint(architecture)
    family = family_of(architecture)
    width = width_of(family, read_model_config(folder, family.modality), shapes(folder))
    groups = depth_groups(family_of(architecture), shapes(folder), head_parameters(width, (), 2, pooling))
    model = load_pretrained(folder, replace(CONFIG, pooling=pooling, **MEDIA[family_of(architecture).modality]), seed=0)
    for name, _ in model.named_parameters():
        assert sum(name.startswith(group.prefixes) for group in groups) == 1, name
    assert sum(group.parameters for group in groups) == sum(p.numel() for p in model.parameters())
    neck = ["neck"] if family_of(architecture).neck else []
    blocks = ["block.0", "block.1", "block.2"] if family_of(architecture).blocks else []
    assert [group.name for group in groups] == ["embeddings", *blocks, *neck, "head"]


def test_a_tensor_of_no_part_is_named() -> None:
    """A checkpoint with something in it that the architecture lacks is refused, by that tensor's name."""
    found = {"embeddings.word": (4, 2), "encoder.layer.0.weight": (2, 2), "adapter.gate": (2,)}
    with pytest.raises(CheckpointError, match=r"adapter\.gate"):
        depth_groups(FAMILIES["bert"], found, 1)


def test_a_missing_block_is_refused() -> None:
    """Blocks 0 and 2 without 1 are not an encoder."""
    found = {"embeddings.word": (4, 2), "encoder.layer.0.w": (2, 2), "encoder.layer.2.w": (2, 2)}
    with pytest.raises(CheckpointError, match="unbroken"):
        depth_groups(FAMILIES["bert"], found, 1)


def test_an_unknown_architecture_names_the_known_ones() -> None:
    """The message says what could be used instead."""
    with pytest.raises(CheckpointError, match=r"gpt9.*bert"):
        family_of("gpt9")


def test_the_page_lists_every_family() -> None:
    """The table of docs/families.md is what `graftwork families` prints."""
    page = (Path(__file__).parents[2] / "docs/families.md").read_text(encoding="utf-8")
    lines = [
        f"| `{each.architecture}` | {each.known_as} | {', '.join(each.depth_groups)} | {each.pooling} |"
        f" {', '.join(each.objectives) or '–'} |"
        for each in list_families()
    ]
    assert [line for line in page.splitlines() if line.startswith("| `")][1:] == lines


def test_what_only_old_files_hold_is_left_out() -> None:
    """A buffer of attention that GPT-2's first files carry is neither a parameter nor a stranger."""
    found = {"wte.weight": (4, 2), "h.0.attn.c_attn.weight": (2, 6), "h.0.attn.bias": (1, 1, 8, 8)}
    _, block, _ = depth_groups(FAMILIES["gpt2"], found, 1)
    assert block.parameters == 12


@pytest.mark.parametrize("facts", list_families(), ids=lambda facts: facts.architecture)
def test_attention_is_told_where_it_is(facts: FamilyFacts, make_checkpoint: Callable[..., Path]) -> None:
    """By a prefix that layers of a block have; where there are no such layers, by a dash."""
    family = family_of(facts.architecture)
    layers = block_layers(family, shapes(make_checkpoint(facts.architecture))).get("block.0", {})
    has_attention = any("att" in name.lower() for name in layers)
    assert (facts.attention_layers != "-") is has_attention
    assert any(name.startswith(family.attention) for name in layers) or not has_attention
