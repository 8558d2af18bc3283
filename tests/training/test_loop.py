"""The training loop on a tiny model and a task that it can learn."""

from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graftwork.errors import Paused, TrainingError
from graftwork.models.catalog import DepthGroup, depth_groups, family_of
from graftwork.models.serving.classifier import Classifier
from graftwork.models.serving.config import ServingConfig
from graftwork.models.serving.inference import infer
from graftwork.models.serving.text import TextEncoder
from graftwork.models.text import load_pretrained
from graftwork.training.bundle import EpochMetrics
from graftwork.training.loop import (
    Examples,
    StageContext,
    StageData,
    StageLoop,
    StageProgress,
    is_better,
    train_stage,
)
from graftwork.training.stages import Averaging, Stage

GOOD, BAD = "good great wonderful moving warm clever".split(), "bad awful dull boring weak cold".split()
CONFIG = ServingConfig(("no", "yes"), ("text",), "mean", 16, dropout=0.1)


class NoKeeper:
    """Saves nothing."""

    def is_due(self) -> bool:
        return False

    def save(self, loop: StageLoop) -> None:
        """It is asked to only when the stage is stopped."""

    def restore(self, loop: StageLoop) -> None:
        """There is nothing to go on from."""


def make_stage(**changes: Any) -> Stage:
    facts: dict[str, Any] = {
        "name": "all",
        "rates": {"head": 1e-2, "block.2": 1e-3, "block.1": 1e-3},
        "trainable": 0,
        "epochs": 3,
        "schedule": "linear",
        "warmup": 0.1,
        "weight_decay": 0.01,
        "label_smoothing": 0.0,
        "clip_norm": 1.0,
        "patience": None,
        "class_weights": "none",
        "cut": 0,
        "key": "stage/0",
    }
    return Stage(**(facts | changes))


@pytest.fixture
def model(tiny_checkpoint: Path) -> Classifier:
    """A fresh classifier; the same each time."""
    return load_pretrained(tiny_checkpoint, CONFIG, seed=3)


@pytest.fixture(scope="module")
def examples(tiny_checkpoint: Path) -> Examples:
    """Eighty texts whose words tell their class."""
    generator = np.random.default_rng(5)
    texts = [
        " ".join(["the film is", *generator.choice([BAD, GOOD][index % 2], size=1 + index % 4)]) for index in range(80)
    ]
    encoder = TextEncoder(tiny_checkpoint, 16)
    rows = encoder.encode(texts)
    return Examples(rows, np.arange(80) % 2, encoder, [len(row) for row in rows])


def groups_of(model: Classifier) -> tuple[DepthGroup, ...]:
    shapes = {name.removeprefix("body."): tuple(p.shape) for name, p in model.named_parameters() if name[:4] == "body"}
    return depth_groups(family_of("bert"), shapes, 66)


def run(
    model: Classifier,
    examples: Examples,
    stage: Stage,
    events: list[dict[str, Any]] | None = None,
    train: Examples | None = None,
    **changes: Any,
) -> StageProgress:
    """Train the stage on `examples`, or on `train` and validate on them."""
    events = [] if events is None else events
    facts: dict[str, Any] = {
        "index": 0,
        "seed": 7,
        "batch_tokens": 64,
        "precision": "float32",
        "device": torch.device("cpu"),
        "report": events.append,
        "should_stop": lambda: False,
        "keeper": NoKeeper(),
    }
    data = StageData(train or examples, examples, model.forward)
    return train_stage(model, stage, groups_of(model), data, StageContext(**(facts | changes)))


def test_it_learns(model: Classifier, examples: Examples) -> None:
    """A separable task is learnt, and the curve is told step by step."""
    events: list[dict[str, Any]] = []
    rates = {"head": 1e-2, "block.2": 3e-3, "block.1": 3e-3}
    progress = run(model, examples, make_stage(epochs=10, rates=rates), events)
    assert progress.epochs[-1].validation_accuracy > 0.95
    assert progress.epochs[-1].validation_loss < progress.epochs[0].validation_loss
    assert [point.step for point in progress.steps] == sorted({point.step for point in progress.steps})
    assert progress.steps[-1].step == progress.step == events[-1]["step"]


def test_only_the_stage_s_groups_move(model: Classifier, examples: Examples) -> None:
    """Frozen tensors are the same to the bit, trained ones are not."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run(model, examples, make_stage(epochs=1))
    for name, tensor in model.state_dict().items():
        is_trained = name.startswith(("head.", "body.encoder.layer.1.", "body.encoder.layer.2."))
        # A softmax ignores what is added to all its inputs: the key's bias has no gradient but rounding.
        if not name.endswith("key.bias"):
            assert torch.equal(before[name], tensor) != is_trained, name


def test_the_same_seed_gives_the_same_weights(tiny_checkpoint: Path, examples: Examples) -> None:
    """Twice the same is the same to the bit; another seed is not."""
    weights = []
    for seed in (7, 7, 8):
        model = load_pretrained(tiny_checkpoint, CONFIG, seed=3)
        run(model, examples, make_stage(), seed=seed)
        weights.append(model.head[1].weight.clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("body_dropout", [False, True])
def test_the_body_drops_out_only_if_it_may(tiny_checkpoint: Path, examples: Examples, body_dropout: bool) -> None:
    """Without dropout the probability that its modules have changes no bit of what is trained; with it, it does."""
    weights = []
    for probability in (0.0, 0.5):
        model = load_pretrained(tiny_checkpoint, CONFIG, seed=3)
        before = model.body.encoder.layer[2].output.dense.weight.clone()
        for module in model.body.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = probability
        run(model, examples, make_stage(epochs=1, body_dropout=body_dropout))
        weights.append(model.body.encoder.layer[2].output.dense.weight)
        assert not torch.equal(before, weights[-1])
    assert torch.equal(*weights) != body_dropout


def test_the_weights_of_the_best_epoch_stay(model: Classifier, examples: Examples) -> None:
    """A rate that ruins the model later leaves it as it was at its best, and patience ends the stage early."""
    stage = make_stage(epochs=30, schedule="constant", rates={"head": 3.0, "block.2": 0.5}, patience=3, clip_norm=0.0)
    progress = run(model, examples, stage)
    losses = [epoch.validation_loss for epoch in progress.epochs]
    assert progress.best_epoch == 1 + int(np.argmin(losses))
    assert len(losses) in (30, progress.best_epoch + 3)
    logits = infer(model, model.forward, examples.encoder, examples.rows).double()
    assert torch.nn.functional.cross_entropy(logits, torch.from_numpy(examples.labels)).item() == min(losses)


def test_the_last_epoch_stays_where_the_stage_says_so(tiny_checkpoint: Path, examples: Examples) -> None:
    """It ends after an epoch that made the loss worse, and the weights are that epoch's."""

    def trained(**changes: Any) -> tuple[Classifier, list[float]]:
        rates = {"head": 3.0, "block.2": 0.5}
        model = load_pretrained(tiny_checkpoint, CONFIG, seed=3)
        stage = make_stage(schedule="constant", warmup=0.0, rates=rates, clip_norm=0.0, **changes)
        return model, [epoch.validation_loss for epoch in run(model, examples, stage).epochs]

    _, losses = trained(epochs=30, patience=1)
    model, again = trained(epochs=len(losses), keep_epoch="last")
    assert again == losses
    assert losses[-1] > losses[-2]
    logits = infer(model, model.forward, examples.encoder, examples.rows).double()
    assert torch.nn.functional.cross_entropy(logits, torch.from_numpy(examples.labels)).item() == losses[-1]


@given(measured=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8))
def test_the_best_epoch_is_the_first_that_no_other_beats(measured: list[tuple[int, int]]) -> None:
    """By log-loss, by accuracy with log-loss between equals, or just the last."""
    epochs = [EpochMetrics(n, 0, 0.0, loss, accuracy, 0.0) for n, (loss, accuracy) in enumerate(measured)]

    def kept(keep_epoch: str) -> int:
        best = reduce(lambda best, epoch: epoch if is_better(epoch, best, keep_epoch) else best, epochs)
        return best.epoch

    assert kept("log-loss") == min(range(len(epochs)), key=lambda n: measured[n][0])
    assert kept("accuracy") == min(range(len(epochs)), key=lambda n: (-measured[n][1], measured[n][0]))
    assert kept("last") == len(epochs) - 1


def test_a_request_to_stop_is_heard_before_the_next_step(model: Classifier, examples: Examples) -> None:
    """Paused says where it stopped."""
    asked = iter([False] * 5 + [True])
    with pytest.raises(Paused, match="at step 5 of"):
        run(model, examples, make_stage(), should_stop=lambda: next(asked))


def test_a_loss_that_is_no_number_ends_the_stage(model: Classifier, examples: Examples) -> None:
    """It names the stage and the step and says what to change."""
    torch.nn.init.constant_(model.head[1].weight, float("nan"))
    with pytest.raises(TrainingError, match=r"stage 'all'.*nan at step 0.*learning_rate"):
        run(model, examples, make_stage())


def test_only_training_rows_are_augmented(model: Classifier, examples: Examples) -> None:
    """Each of them once in each epoch, with chances of its own; validation rows are the data's."""
    asked: set[tuple[int, bytes]] = set()

    def change(index: int, row: Any, generator: np.random.Generator) -> Any:
        asked.add((index, generator.bytes(8)))
        return examples.rows[0][:1] * len(row)

    train = replace(examples, augmentations=(change,))
    progress = run(model, examples, make_stage(epochs=3), train=train)
    assert len(asked) == 3 * len(examples.rows)
    assert len({drawn for _, drawn in asked}) == len(asked)
    logits = infer(model, model.forward, examples.encoder, examples.rows).double()
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(examples.labels)).item()
    assert loss == progress.epochs[progress.best_epoch - 1].validation_loss
    assert progress.epochs[-1].train_loss > 0.6  # what every row became tells no class


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_accumulated_batches_are_one_big_batch(tiny_checkpoint: Path, examples: Examples, class_weights: str) -> None:
    """Ten unequal batches a step, and all their rows in one: the same losses and weights, to rounding."""
    rare = replace(examples, labels=(np.arange(80) % 5 == 0).astype(np.int64))
    ends = []
    for accumulate, batch_tokens in ((100, 64), (1, 10**6)):
        model = load_pretrained(tiny_checkpoint, CONFIG, seed=3)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        stage = make_stage(accumulate=accumulate, class_weights=class_weights, label_smoothing=0.1)
        progress = run(model, rare, stage, batch_tokens=batch_tokens)
        assert progress.step == stage.epochs
        ends.append((progress, model.state_dict()))
    (several, weights), (one, expected) = ends
    for a, b in zip(several.epochs, one.epochs, strict=True):
        assert (a.train_loss, a.validation_loss) == pytest.approx((b.train_loss, b.validation_loss), abs=1e-5)
    for name, tensor in weights.items():
        if not name.endswith("key.bias"):
            torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=1e-4)


def test_every_batch_of_an_epoch_is_in_one_step(model: Classifier, examples: Examples) -> None:
    """The last step of an epoch has what is left."""
    batches = run(model, examples, make_stage(epochs=2)).step // 2
    assert batches % 3 > 0
    assert run(model, examples, make_stage(epochs=2, accumulate=3)).step == 2 * (batches // 3 + 1)


def test_an_average_is_validated_and_kept_while_training_goes_on_raw(tiny_checkpoint: Path, examples: Examples) -> None:
    """Steps are those of a training without it; losses, the best epoch and what stays are the average's."""
    ends = []
    for average in (None, Averaging(0.9, 0.0)):
        model = load_pretrained(tiny_checkpoint, CONFIG, seed=3)
        progress = run(model, examples, make_stage(average=average))
        logits = infer(model, model.forward, examples.encoder, examples.rows).double()
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(examples.labels)).item()
        assert loss == progress.epochs[progress.best_epoch - 1].validation_loss
        ends.append(progress)
    raw, averaged = ends
    assert averaged.steps == raw.steps
    assert all(a.validation_loss != b.validation_loss for a, b in zip(averaged.epochs, raw.epochs, strict=True))


def test_l2_sp_holds_the_body_where_it_began(tiny_checkpoint: Path, examples: Examples) -> None:
    """The stronger the pull, the smaller the distance; the head is not held."""
    start = load_pretrained(tiny_checkpoint, CONFIG, seed=3).state_dict()
    distances = []
    for l2_sp in (0.0, 1.0, 100.0):
        model = load_pretrained(tiny_checkpoint, CONFIG, seed=3)
        run(model, examples, make_stage(l2_sp=l2_sp, clip_norm=1e9))
        moved = {name: (tensor - start[name]).norm().item() for name, tensor in model.state_dict().items()}
        distances.append(sum(moved[name] for name in moved if name.startswith("body.")))
        assert moved["head.1.weight"] > 0.05
    assert distances[0] > 1.5 * distances[1] > 2 * distances[2]


@pytest.mark.parametrize("trained", ["head", "block.2"])
def test_what_pools_is_trained_with_the_head(tiny_checkpoint: Path, examples: Examples, trained: str) -> None:
    """And frozen with it."""
    model = load_pretrained(tiny_checkpoint, replace(CONFIG, pooling="attention"), seed=3)
    run(model, examples, make_stage(epochs=1, rates={trained: 1e-2}))
    assert model.pool.query.any().item() == (trained == "head")


def test_balanced_class_weights_equal_scikit_learn_s() -> None:
    """Against compute_class_weight."""
    from sklearn.utils.class_weight import compute_class_weight

    from graftwork.training.loop import _class_weights

    labels = np.array([0] * 7 + [1] * 3)
    weights = _class_weights("balanced", labels, torch.device("cpu"))
    assert weights is not None
    np.testing.assert_allclose(
        weights.numpy(), compute_class_weight("balanced", classes=np.array([0, 1]), y=labels), rtol=1e-6
    )
