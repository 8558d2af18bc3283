"""WaveNet: what its states may depend on, what it learns without labels, and what it says."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graftwork.models.autoregressive import AutoregressiveModel, attach_sample_head
from graftwork.models.catalog import Family, depth_groups, sample_head_parameters
from graftwork.models.generation import Steps, generate, pick_level, write_wav
from graftwork.models.masked import mean_loss, measure_hidden
from graftwork.models.serving.classifier import Classifier
from graftwork.models.serving.config import ServingConfig
from graftwork.models.serving.own import BodyConfig
from graftwork.models.serving.wavenet import Body, mu_law, receptive_field, undo_mu_law

RATE, FRAME = 800, 16
SIZES: dict[str, Any] = {
    "model_type": "wavenet",
    "hidden_size": 12,
    "residual_size": 8,
    "skip_size": 16,
    "num_layers": 5,
    "dilation_cycle": 3,
    "kernel_size": 2,
    "quantization": 256,
    "frame_size": FRAME,
}


@pytest.fixture(params=[2, 3], ids=["kernel 2", "kernel 3"])
def body(request: pytest.FixtureRequest) -> Body:
    """A small body with random weights, for each kernel size."""
    return make_body(kernel_size=request.param)


def make_body(**sizes: Any) -> Body:
    torch.manual_seed(0)
    return Body(BodyConfig(**SIZES | sizes)).eval()


def make_classifier() -> Classifier:
    """A small classifier that is to learn without labels."""
    config = ServingConfig(("no", "yes"), ("audio",), "mean", max_tokens=100)
    model = Classifier(make_body(), config).eval()
    attach_sample_head(model, seed=1)
    return model


def sound(rows: int, samples: int, seed: int = 0) -> Tensor:
    """Noise, loud and quiet."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, samples, generator=generator) / 3).clamp(-1, 1)


def masked(samples: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
    """The rows cut to these lengths, silent beyond them, and their mask."""
    mask = (torch.arange(samples.shape[1]) < torch.tensor(lengths).unsqueeze(1)).long()
    return samples * mask, mask


# --- levels ---


def test_levels_are_those_of_the_closed_formula() -> None:
    """Each 16-bit sample has, in the body as in the function, the level that the formula gives it."""
    samples = np.arange(-(1 << 15), 1 << 15) / (1 << 15)
    bent = np.sign(samples) * np.log(1 + 255 * abs(samples)) / np.log(256)
    expected = np.floor((bent + 1) / 2 * 255 + 0.5)
    assert (mu_law(samples, 256) == expected).all()
    assert (make_body().embeddings.levels(torch.tensor(samples, dtype=torch.float32)).numpy() == expected).all()
    assert mu_law(np.array([-1, 0, 1]), 256).tolist() == [0, 128, 255]


@pytest.mark.parametrize("quantization", [16, 256])
def test_samples_come_back_within_half_a_step(quantization: int) -> None:
    """A step is a level's, on the logarithmic scale; each level comes back as itself."""

    def bend(values: np.ndarray) -> np.ndarray:
        mu = quantization - 1
        return np.sign(values) * np.log(1 + mu * abs(values)) / np.log(1 + mu)

    samples = np.linspace(-1, 1, 10_001)
    again = undo_mu_law(mu_law(samples, quantization), quantization).astype("float64")
    assert abs(bend(again) - bend(samples)).max() <= 1 / (quantization - 1) + 1e-6
    levels = np.arange(quantization)
    assert (mu_law(undo_mu_law(levels, quantization), quantization) == levels).all()


def test_samples_out_of_range_are_the_loudest() -> None:
    """A sample beyond -1 or 1, which resampling may give, has the last level on its side."""
    assert make_body().embeddings.levels(torch.tensor([-1.5, 1.0, 7.0])).tolist() == [0, 255, 255]


# --- what states depend on ---


def test_no_state_depends_on_a_later_sample(body: Body) -> None:
    """Whatever comes after a sample, its state is the same, bit for bit; that of the changed sample differs."""
    samples = sound(2, 200)
    changed = samples.clone()
    changed[:, 120:] = sound(2, 80, seed=1)
    before, after = body.sample_states(samples), body.sample_states(changed)
    assert torch.equal(before[:, :120], after[:, :120])
    assert not torch.equal(before[:, 120], after[:, 120])


@pytest.mark.parametrize("sizes", [{}, {"kernel_size": 3}, {"num_layers": 2, "dilation_cycle": 2}])
def test_a_state_depends_on_its_receptive_field_alone(sizes: dict[str, Any]) -> None:
    """On its first sample, and on none before it."""
    body = make_body(**sizes)
    field = receptive_field(body.config)
    first = 10
    samples, at = sound(1, field + first), field + first - 1
    within, before = samples.clone(), samples.clone()
    within[0, first] = -samples[0, first]
    before[0, :first] = -samples[0, :first]
    state = body.sample_states(samples)[0, at]
    assert not torch.equal(body.sample_states(within)[0, at], state)
    assert torch.equal(body.sample_states(before)[0, at], state)


def test_receptive_fields_are_those_of_the_paper() -> None:
    """Dilations 1 to 512 give 1024 samples, and each further cycle 1023 more."""
    facts = {"kernel_size": 2, "dilation_cycle": 10}
    fields = [receptive_field(SimpleNamespace(num_layers=layers, **facts)) for layers in (10, 20, 30)]
    assert fields == [1024, 2047, 3070]


def test_frames_do_not_depend_on_padding(body: Body) -> None:
    """At one padded length a row's frames are the same, bit for bit, whatever lies beyond it or beside it."""
    samples = sound(4, 200)
    alone, mask = masked(samples[:1], [90])
    row = body(alone, mask).last_hidden_state
    noisy = torch.where(mask == 0, sound(1, 200, seed=3), alone)
    assert torch.equal(body(noisy, mask).last_hidden_state, row)
    together = body(*masked(samples, [90, 200, 17, 1])).last_hidden_state
    assert torch.equal(together[:1], row)


def test_frames_are_about_the_same_at_any_padded_length(body: Body) -> None:
    """They are the means of their samples' states, computed by hand here, of a short last frame, too."""
    samples = sound(1, 90)
    states = body.sample_states(samples)[0]
    expected = torch.stack([states[start : start + FRAME].mean(0) for start in range(0, 90, FRAME)])
    for length in (90, 96, 100, 257):
        padded = nn.functional.pad(samples, (0, length - 90))
        mask = (torch.arange(length) < 90).long().unsqueeze(0)
        frames = body(padded, mask).last_hidden_state
        is_real = body.frame_mask(mask)
        assert frames.shape[:2] == is_real.shape == (1, -(-length // FRAME))
        assert is_real[0].tolist() == [1] * 6 + [0] * (is_real.shape[1] - 6)
        torch.testing.assert_close(frames[0, :6], expected, rtol=0, atol=1e-6)
        assert not frames[0, 6:].any()
    assert torch.equal(body(samples).last_hidden_state, body(samples, torch.ones(1, 90)).last_hidden_state)


def test_its_parts_are_where_the_catalog_looks_for_them() -> None:
    """Every tensor belongs to a depth group; and every one of them learns, to classify or to tell samples."""
    model = make_classifier()
    family = Family("WaveNet", "blocks.", neck=("neck.",), table="", positions="", has_mask=False, unused=())
    shapes = {name: tuple(tensor.shape) for name, tensor in model.body.state_dict().items()}
    groups = depth_groups(family, shapes, head_parameters=0)
    assert [group.name for group in groups] == ["embeddings", *(f"block.{n}" for n in range(5)), "neck", "head"]
    assert sum(group.parameters for group in groups) == sum(map(torch.numel, model.body.parameters()))
    AutoregressiveModel(model).forward(*masked(sound(2, 60), [60, 40]))[:, 0].mean().backward()
    assert all(parameter.grad is not None for parameter in model.body.parameters())


# --- telling the next sample ---


def test_the_loss_is_the_cross_entropy_of_the_next_levels() -> None:
    """Each row counts once, by its real samples alone, whatever its length."""
    model, lengths = make_classifier(), [120, 33, 2]
    samples, mask = masked(sound(3, 120), lengths)
    head = model.get_submodule("objective")
    losses, shares = [], []
    for row, length in zip(samples, lengths, strict=True):
        told = torch.from_numpy(mu_law((row[:length].numpy() * 32768).round() / 32768, 256))[1:]
        scores = head(model.body.sample_states(row[None, :length])[0, :-1])
        losses.append(nn.functional.cross_entropy(scores, told))
        shares.append((scores.argmax(1) == told).float().mean())
    found = AutoregressiveModel(model).forward(samples, mask)
    torch.testing.assert_close(found[:, 0], torch.stack(losses), rtol=0, atol=1e-6)
    torch.testing.assert_close(found[:, 1], torch.stack(shares), rtol=0, atol=1e-6)
    torch.testing.assert_close(mean_loss(found, torch.zeros(3)), torch.stack(losses).mean(), rtol=0, atol=1e-6)
    assert measure_hidden(found, torch.zeros(3)) == pytest.approx(
        (found[:, 0].mean().item(), found[:, 1].mean().item())
    )


def test_a_row_of_one_sample_has_no_loss() -> None:
    """There is nothing to tell in it; it breaks no batch, and no gradient."""
    model = make_classifier()
    found = AutoregressiveModel(model).forward(*masked(sound(2, 40), [1, 40]))
    assert found[0].tolist() == [0, 0]
    found[:, 0].mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.body.parameters())


def test_the_objective_is_drawn_from_its_seed() -> None:
    """The same seed gives the same head, and it has as many parameters as are counted."""
    model = make_classifier()
    first = model.get_submodule("objective").state_dict()
    torch.rand(3)
    attach_sample_head(model, seed=1)
    assert all(torch.equal(first[name], tensor) for name, tensor in model.objective.state_dict().items())
    assert sum(map(torch.numel, model.objective.parameters())) == sample_head_parameters(12, 256)


def test_it_learns_a_tone() -> None:
    """A few dozen steps on one wave make it tell the next sample far better than it did."""
    model = make_classifier()
    wave = torch.sin(torch.arange(200) / 5).unsqueeze(0) / 2
    objective, mask = AutoregressiveModel(model), torch.ones(1, 200)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = objective.forward(wave, mask)[:, 0].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] > 5 and losses[-1] < 2


# --- making sound ---


def naively(body: Body, head: nn.Module, levels: list[int]) -> Tensor:
    """Scores of what follows the levels, by a whole forward."""
    states = body.sample_states(torch.from_numpy(undo_mu_law(np.array([levels]), 256)))
    return head(states)[0, -1]


def test_it_makes_sample_by_sample_what_whole_forwards_make(body: Body) -> None:
    """Far beyond the receptive field the states are the same up to rounding, and the samples are the same."""
    head = nn.Linear(12, 256)
    with torch.inference_mode():
        steps = Steps(body)
        levels, draws = [128], np.random.Generator(np.random.Philox(4)).random(100)
        worst = 0.0
        for draw in draws:
            expected = naively(body, head, levels)
            worst = max(worst, float((head(steps.next_state(levels[-1]))[0] - expected).abs().max()))
            levels.append(pick_level(expected, 0.8, draw))
    assert worst <= 1e-6
    made = generate(body, head, seconds=0.125, rate=RATE, seed=4, temperature=0.8)
    assert made.dtype == np.float32
    assert made.tolist() == undo_mu_law(np.array(levels[1:]), 256).tolist()


def test_it_goes_on_from_what_it_is_given(body: Body) -> None:
    """What follows a prime is what would follow these samples, had they been made."""
    head = nn.Linear(12, 256)
    whole = generate(body, head, seconds=0.2, rate=RATE, seed=0, temperature=0)
    prime = np.concatenate([[0], whole[:100]]).astype("float32")
    rest = generate(body, head, seconds=0.075, rate=RATE, seed=9, temperature=0, prime=prime)
    assert rest.tolist() == whole[100:].tolist()


def test_a_seed_decides_what_it_makes(body: Body) -> None:
    """The same seed gives the same bits, another gives others."""
    head = nn.Linear(12, 256)
    first, again, other = (generate(body, head, 0.1, RATE, seed).tobytes() for seed in (1, 1, 2))
    assert first == again != other


def test_levels_are_drawn_as_often_as_the_model_expects_them() -> None:
    """Evenly spread draws find each level in its share, sharpened by a temperature below 1."""
    scores = torch.tensor([0.5, 0.25, 0.25]).log()
    draws = (np.arange(1000) + 0.5) / 1000
    assert np.bincount([pick_level(scores, 1.0, draw) for draw in draws]).tolist() == [500, 250, 250]
    sharp = np.bincount([pick_level(scores, 0.5, draw) for draw in draws])
    assert sharp.tolist() == pytest.approx([1000 * 4 / 6, 1000 / 6, 1000 / 6], abs=1)
    assert pick_level(scores, 0, 0.99) == 0


def test_sound_is_written_as_16_bit_wav(tmp_path: Path) -> None:
    """What is read again is what was made, to a 16-bit step; nothing else is left in the folder."""
    soundfile = pytest.importorskip("soundfile")
    samples = sound(1, 400)[0].numpy()
    write_wav(tmp_path / "made.wav", samples, RATE)
    read, rate = soundfile.read(tmp_path / "made.wav", dtype="float32")
    facts = soundfile.info(tmp_path / "made.wav")
    assert (rate, facts.subtype, facts.channels) == (RATE, "PCM_16", 1)
    assert abs(read - samples).max() <= 1 / 32768
    assert [path.name for path in tmp_path.iterdir()] == ["made.wav"]


# --- in another runtime ---


class Whole(nn.Module):
    """A body, the mean of its frames, and a linear head."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(12, 3)

    def forward(self, samples: Tensor, mask: Tensor) -> Tensor:
        """Logits of a batch."""
        is_real = self.body.frame_mask(mask).unsqueeze(-1).float()
        states = self.body(samples, mask).last_hidden_state
        return self.head((states * is_real).sum(1) / is_real.sum(1))


@pytest.mark.e2e
def test_the_graph_gives_what_the_model_gives(tmp_path: Path) -> None:
    """For any rows of any length, and for samples at the border of two levels."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = Whole(make_body()).eval()
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("samples")}
    given = sound(2, 90), torch.ones(2, 90, dtype=torch.long)
    torch.onnx.export(
        model,
        given,
        tmp_path / "model.onnx",
        input_names=["input_values", "attention_mask"],
        dynamic_shapes=(axes, axes),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    edges = torch.from_numpy(undo_mu_law(np.arange(0.5, 255), 256)).unsqueeze(0)
    batches = [masked(sound(3, n), [n, n // 2, 1]) for n in (1, 2, FRAME, 257, 1000)] + [masked(edges, [255])]
    for samples, mask in batches:
        (found,) = session.run(None, {"input_values": samples.numpy(), "attention_mask": mask.numpy()})
        expected = model(samples, mask).detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
