"""Replaced token detection: what is computed, and a stage that learns so before another."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import facts, resolve_run, train_until, train_with_stops, write_project
from torch import nn

from graftwork.errors import RecipeError
from graftwork.models.masked import MaskedRows, token_table
from graftwork.models.replaced import DETECTION, ReplacedTokenModel, attach_replacer
from graftwork.models.serving.classifier import Classifier
from graftwork.models.serving.config import WEIGHTS, ServingConfig
from graftwork.models.serving.text import TextEncoder
from graftwork.models.text import blank_token, load_pretrained, word_numbers
from graftwork.settings import Settings
from graftwork.training.augmentation import HiddenWords, row_generator
from graftwork.workspace import Workspace

TEXTS = ["a good film", "the plot was very very long and the acting was dull", "the film was good"]
CONFIG = ServingConfig(("no", "yes"), ("text",), "mean", 16)
STAGES = (
    "stages=[{name: adapt, objective: replaced-token-detection, train: all, epochs: 3, learning_rate: 3e-3},"
    " {name: top, train: [head, 'top:1'], epochs: 1, learning_rate: 1e-3}]"
)


@pytest.fixture
def electra(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint("electra")


@pytest.fixture
def model(electra: Path) -> Classifier:
    """A classifier that is to learn so."""
    made = load_pretrained(electra, CONFIG, seed=3)
    attach_replacer(made, seed=5)
    return made.eval()


def hidden_rows(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    encoder = TextEncoder(folder, 16)
    hide = HiddenWords(0.5, word_numbers(encoder, TEXTS), blank_token(encoder), 30)
    rows = [hide(index, ids, row_generator((0, 0, 0), index)) for index, ids in enumerate(encoder.encode(TEXTS))]
    return MaskedRows(encoder).pad(rows, 16)


def test_the_losses_are_those_of_transformers_own_models(electra: Path, model: Classifier) -> None:
    """ELECTRA's generator and discriminator, with the same weights, row by row."""
    from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

    objective = model.get_submodule("objective")
    generator = ElectraForMaskedLM(objective.generator.config).eval()
    generator.electra.load_state_dict(
        objective.generator.state_dict() | {"embeddings.word_embeddings.weight": token_table(model.body)}
    )
    detector = ElectraForPreTraining(ElectraConfig.from_pretrained(electra)).eval()
    detector.electra.load_state_dict(model.body.state_dict())
    detector.discriminator_predictions.dense.load_state_dict(objective.detector[0].state_dict())
    detector.discriminator_predictions.dense_prediction.load_state_dict(objective.detector[2].state_dict())
    padded, mask = hidden_rows(electra)
    with torch.inference_mode():
        found = ReplacedTokenModel(model).forward(padded, mask)
        for row, length, (loss, share) in zip(padded, mask.sum(1), found, strict=True):
            ids, told = row[:length].T
            states = generator.electra(input_ids=ids[None]).last_hidden_state
            scores = objective.writer(states, token_table(model.body))[0]
            written = nn.functional.cross_entropy(scores, told)
            own = torch.where(told < 0, ids, told)
            read = torch.where(told < 0, ids, scores.argmax(1))
            theirs = detector(input_ids=read[None], labels=(read != own)[None].long())
            torch.testing.assert_close(loss, written + DETECTION * theirs.loss, rtol=1e-4, atol=1e-4)
            assert share == ((theirs.logits[0] > 0) == (read != own)).float().mean()


def test_what_is_written_is_drawn_in_training_alone(electra: Path, model: Classifier) -> None:
    """By the generator that a step seeds; what is validated is the same each time."""
    padded, mask = hidden_rows(electra)
    learner = ReplacedTokenModel(model)
    with torch.inference_mode():
        assert torch.equal(learner.forward(padded, mask), learner.forward(padded, mask))
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        drawn = {tuple(learner.forward(padded, mask)[:, 0].tolist()) for _ in range(5)}
    assert len(drawn) > 1


def test_no_gradient_goes_through_what_is_written(electra: Path, model: Classifier) -> None:
    """The detector's loss teaches the body, the generator's its own layers, and both the table of tokens."""
    loss = ReplacedTokenModel(model).forward(*hidden_rows(electra))[:, 0].mean()
    loss.backward()
    objective = model.get_submodule("objective")
    parts = [objective.generator, objective.writer, objective.detector, model.body]
    assert all(p.grad is not None for part in parts for p in part.parameters())
    assert not [p for p in model.head.parameters() if p.grad is not None]


def test_a_stage_learns_so_and_is_resumed_exactly(tmp_path: Path, electra: Path) -> None:
    """Parameters are counted before they are there, and are gone with the stage."""
    write_project(tmp_path, electra)
    whole, broken = (Workspace.open(Settings(home=tmp_path / name)) for name in ("whole", "broken"))
    run = resolve_run(tmp_path, whole, STAGES)
    adapt, top = run.plan.stages
    model = load_pretrained(whole.store.root / run.lock.key, CONFIG, seed=0)
    attach_replacer(model, seed=0)
    assert adapt.own_parameters == sum(p.numel() for p in model.get_submodule("objective").parameters())
    assert (adapt.detects, top.detects) == (True, False)
    bundle = train_until(run, whole)
    first, *_, last = bundle.stages[0].epochs
    assert last.train_loss < 0.6 * first.train_loss  # of rows told from what was written better and better
    assert not [name for name in load_file(whole.store.root / adapt.key / WEIGHTS) if name.startswith("objective.")]
    again = resolve_run(tmp_path, broken, STAGES)
    assert facts(train_with_stops(again, broken, 7)) == facts(bundle)


def test_what_was_made_otherwise_is_refused(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    """With those that were made so."""
    write_project(tmp_path, make_checkpoint("bert"))
    with pytest.raises(RecipeError, match=r"not made to tell words that were replaced.*is for electra"):
        resolve_run(tmp_path, Workspace.open(Settings(home=tmp_path / "home")), STAGES)
