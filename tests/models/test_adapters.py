"""Adapters: counted before they are there, drawn from their seed, and the same whether beside the body or in it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tiny import BLOCK_FAMILIES

from graftwork.models.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Adapters, AttachedAdapters
from graftwork.models.catalog import FAMILIES, depth_groups
from graftwork.models.prefix import cut_at
from graftwork.models.serving.classifier import Classifier
from graftwork.models.serving.config import ServingConfig
from graftwork.models.serving.text import TextEncoder
from graftwork.models.text import load_body, load_pretrained
from graftwork.sections.stages import LoraSection
from graftwork.training.stages import plan_adapters

CONFIG = ServingConfig(classes=("no", "yes"), columns=("text",), pooling="mean", max_tokens=16)
TEXTS = ["the film", "the film is not very good and not very long", "a clever movie", "dull"]
# Of outputs of about 1, float32: what a sum taken in another order may differ by.
TOLERANCE = 2e-6


@dataclass(frozen=True)
class Adapted:
    """A classifier with adapters that were planned from its checkpoint's header."""

    folder: Path
    adapters: Adapters
    model: Classifier
    attached: AttachedAdapters

    def learn(self) -> None:
        """Give the adapters weights as training might: none is at its first value."""
        torch.manual_seed(11)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name.startswith(self.adapters.group.prefixes):
                    parameter += 0.1 * torch.randn_like(parameter)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        encoder = TextEncoder(self.folder, 16)
        return encoder.pad(encoder.encode(TEXTS), 16)

    def features(self) -> torch.Tensor:
        with torch.inference_mode():
            return self.model.eval().features(*self.batch())


def adapt(folder: Path, architecture: str, seed: int = 5, **section: Any) -> Adapted:
    with safe_open(folder / "model.safetensors", "numpy") as tensors:
        shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    family = FAMILIES[architecture]
    groups = depth_groups(family, shapes, head_parameters=66)
    adapters = plan_adapters(LoraSection.model_validate(section), family, shapes, groups, "lora")
    model = load_pretrained(folder, CONFIG, seed=3)
    attached = AttachedAdapters(model.body, adapters, seed, base="checkpoint/0", is_transposed=family.is_transposed)
    return Adapted(folder, adapters, model, attached)


@pytest.fixture(params=BLOCK_FAMILIES)
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[False, True], ids=["lora", "dora"])
def adapted(request: pytest.FixtureRequest, architecture: str, make_checkpoint: Callable[..., Path]) -> Adapted:
    """Adapters in the two upper of three blocks."""
    return adapt(make_checkpoint(architecture), architecture, rank=4, blocks=["top:2"], dora=request.param)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize(
    "section", [{}, {"targets": "attention", "rank": 3}, {"targets": "all-linear", "blocks": "block.1"}]
)
def test_the_plan_counts_what_is_attached(
    architecture: str, make_checkpoint: Callable[..., Path], section: dict[str, Any], dora: bool
) -> None:
    """From the header alone, for every family: the parameters of the group are those that take gradients."""
    adapted = adapt(make_checkpoint(architecture), architecture, **section, dora=dora)
    group = adapted.adapters.group
    trained = {name: p.numel() for name, p in adapted.model.body.named_parameters(prefix="body") if p.requires_grad}
    assert trained and all(name.startswith(group.prefixes) for name in trained)
    assert sum(trained.values()) == group.parameters
    frozen = [name for name, p in adapted.model.body.named_parameters(prefix="body") if not p.requires_grad]
    assert not any(name.startswith(group.prefixes) for name in frozen)


def test_targets_are_what_they_say(architecture: str, make_checkpoint: Callable[..., Path]) -> None:
    """In each block so many layers of attention, most often four, and so many in all; none outside the blocks."""
    folder = make_checkpoint(architecture)
    layers = {
        targets: adapt(folder, architecture, targets=targets).adapters.layers for targets in ("attention", "all-linear")
    }
    attention, all_linear = {"modernbert": (2, 4), "gpt2": (2, 4), "llama": (4, 7)}.get(architecture, (4, 6))
    assert len(layers["attention"]) == 3 * attention
    assert len(layers["all-linear"]) == 3 * all_linear
    assert set(layers["attention"]) < set(layers["all-linear"])
    assert all("embeddings" not in name and "pooler" not in name for name in layers["all-linear"])


def test_they_change_no_output_at_first(adapted: Adapted) -> None:
    """Training begins where the body is."""
    plain = load_pretrained(adapted.folder, CONFIG, seed=3).eval()
    with torch.inference_mode():
        assert torch.equal(adapted.features(), plain.features(*adapted.batch()))


def test_merged_is_unmerged(adapted: Adapted) -> None:
    """But for rounding; what is left is an ordinary body, by every name."""
    plain = load_pretrained(adapted.folder, CONFIG, seed=3)
    adapted.learn()
    unmerged = adapted.features()
    adapted.attached.merge()
    torch.testing.assert_close(adapted.features(), unmerged, atol=TOLERANCE, rtol=0)
    with torch.inference_mode():
        assert not torch.allclose(unmerged, plain.eval().features(*adapted.batch()), atol=1e-2)
    before, after = plain.state_dict(), adapted.model.state_dict()
    assert before.keys() == after.keys()
    changed = {name.removesuffix(".weight") for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(adapted.adapters.layers)


def test_peft_loads_what_is_kept(adapted: Adapted, tmp_path: Path) -> None:
    """Onto the body that it belongs to, with the same outputs to the bit; no pickle, no path of this machine."""
    from peft import PeftModel

    adapted.learn()
    adapted.attached.keep(tmp_path / "kept")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {ADAPTER_WEIGHTS, ADAPTER_CONFIG}
    text = (tmp_path / "kept" / ADAPTER_CONFIG).read_text()
    assert "graftwork://checkpoint/0" in text and str(adapted.folder) not in text
    model = load_pretrained(adapted.folder, CONFIG, seed=3)
    model.body = PeftModel.from_pretrained(load_body(adapted.folder), tmp_path / "kept").base_model
    with torch.inference_mode():
        assert torch.equal(model.eval().features(*adapted.batch()), adapted.features())


def test_they_are_drawn_from_their_seed(tiny_checkpoint: Path) -> None:
    """Whatever was drawn before; another seed draws others."""
    drawn = []
    for before, seed in ((1, 5), (2, 5), (1, 6)):
        torch.manual_seed(before)
        adapted = adapt(tiny_checkpoint, "bert", seed=seed)
        names = adapted.adapters.group.prefixes
        drawn.append(torch.cat([p.flatten() for n, p in adapted.model.named_parameters() if n.startswith(names)]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_body_is_cut_below_them(adapted: Adapted) -> None:
    """The part below has none of them, and both parts together are the whole, bit for bit."""
    adapted.learn()
    ids, mask = adapted.batch()
    cut = cut_at(adapted.model.eval(), adapted.adapters.depth - 1)
    assert not any("lora_" in name for name, _ in cut.lower.named_parameters())
    with torch.inference_mode():
        states = cut.lower(input_ids=ids, attention_mask=mask).last_hidden_state
        assert torch.equal(cut.upper(states * mask.unsqueeze(-1), mask), adapted.model(ids, mask))
