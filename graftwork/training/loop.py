"""The training loop. There is one; what differs between stages is data."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from graftwork.data.batches import epoch_batches
from graftwork.errors import Paused, Problem, TrainingError
from graftwork.faults import fault
from graftwork.fingerprint import seed_of
from graftwork.models.catalog import DepthGroup
from graftwork.models.serving.classifier import Classifier
from graftwork.models.serving.config import PixelConfig
from graftwork.models.serving.inference import autocast, infer
from graftwork.targets.catalog import CLASSIFICATION
from graftwork.targets.learning import Fit
from graftwork.training.adversary import Attack, add_plain_gradient
from graftwork.training.augmentation import Augmentation, row_generator
from graftwork.training.averaging import WeightAverage
from graftwork.training.bundle import EpochMetrics, StepMetrics
from graftwork.training.consolidation import sum_fisher
from graftwork.training.distillation import TaughtCriterion, TaughtLabels
from graftwork.training.head import start_head
from graftwork.training.memory import peak_bytes
from graftwork.training.mixing import Mixture, mixed_loss
from graftwork.training.normalisation import least_rows, running_statistics
from graftwork.training.optimizer import (
    Pull,
    add_pull,
    build_optimizer,
    clip_gradients,
    freeze,
    rate_scale,
    set_modes,
    set_rates,
)
from graftwork.training.replicas import ALONE, Replicas
from graftwork.training.stages import Stage

CURVE_POINTS = 100
REPORT_EVERY_S = 0.5
Report = Callable[[dict[str, Any]], None]
Batch = list[int]  # indices of rows that go through the model together
Labels = Any  # (batch,) classes, or (batch, outputs), or TaughtLabels


class Padder(Protocol):
    """Makes a batch of rows; `max_tokens` is how long one may be."""

    @property
    def max_tokens(self) -> int: ...
    def pad(self, rows: Sequence[Any], length: int) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Examples:
    """Rows with their labels and what pads them: token ids, or what a frozen part makes of them.

    labels: (rows,) int64 class indices, (rows, outputs) float32, or (rows, tokens) tags. lengths: tokens of each row,
    which decide what it is batched with, whatever stands for it. augmentations: done to each row of a batch, one after
    the other. mixture: how rows are then mixed. taught: what a teacher makes of each row as it is, (rows, classes that
    it knows) logits.
    """

    rows: Sequence[Any]
    labels: np.ndarray
    encoder: Padder
    lengths: Sequence[int]
    augmentations: tuple[Augmentation, ...] = ()
    taught: Tensor | None = None
    mixture: Mixture | None = None

    def batch(
        self, indices: Sequence[int], epoch: tuple[int, int, int], device: torch.device
    ) -> tuple[Tensor, Tensor, Labels]:
        """Ids, (batch, longest row), or what stands for them, (batch, …, width), their mask, and labels.

        epoch: seed, stage and epoch, which decide what augmentation makes of a row.
        """
        rows = [self.version(index, epoch) for index in indices]
        ids, mask = self.encoder.pad(rows, max(map(len, rows)))
        labels: Labels = torch.from_numpy(self.labels_of(indices, epoch)).to(device)
        if self.taught is not None:
            labels = TaughtLabels(labels, self.taught[list(indices)].to(device))
        return ids.to(device), mask.to(device), labels

    def labels_of(self, indices: Sequence[int], epoch: tuple[int, int, int]) -> np.ndarray:
        """What rows are labelled in this epoch: as they are, or, where they are mixed, (batch, outputs) shares."""
        if self.mixture is None:
            return self.labels[list(indices)]
        return np.stack([self.mixture.label(index, epoch) for index in indices])

    def version(self, index: int, epoch: tuple[int, int, int]) -> Any:
        """The row as it is trained on in this epoch."""
        row = self._augmented(index, epoch)
        if self.mixture is None:
            return row
        mix = self.mixture.draw(index, epoch)
        return mix.blend(row, self._augmented(mix.partner, epoch))

    def _augmented(self, index: int, epoch: tuple[int, int, int]) -> Any:
        row: Any = self.rows[index]
        if self.augmentations:
            generator = row_generator(epoch, index)
            for augment in self.augmentations:
                row = augment(index, row, generator)
        return row


class Keeper(Protocol):
    """Keeps the state of a stage in progress; see `graftwork.training.state`."""

    def is_due(self) -> bool: ...
    def save(self, loop: "StageLoop") -> None: ...
    def restore(self, loop: "StageLoop") -> None: ...


@dataclass(frozen=True)
class StageData:
    """What a stage computes on, and by what: token ids by the whole model, or activations by a part.

    criterion: of what forward gives for a batch, and its labels, the mean loss; None for the stage's own of classes.
    measure: of what it gives for all validation rows, and their labels, the loss and the accuracy, or what of the
    target stands for it. fit: what a head is solved for. known: rows that the model knew before this run, where the
    stage asks what its weights are worth to them. draw: the rows that an epoch has, by its place in the run; None for
    each of them once. weights: (rows,) what each training row counts in a mean; None where classes say it, or all count
    the same.
    """

    train: Examples
    validation: Examples
    forward: Callable[[Tensor, Tensor], Tensor]
    criterion: Callable[[Tensor, Labels], Tensor] | None = None
    measure: Callable[[Tensor, Tensor], tuple[float, float]] = CLASSIFICATION.learning.measure
    fit: Fit = CLASSIFICATION.learning.fit
    known: Examples | None = None
    draw: Callable[[tuple[int, int, int]], np.ndarray] | None = None
    weights: np.ndarray | None = None


@dataclass(frozen=True)
class StageContext:
    """What a stage is given beside itself: its place in the plan, the run's seed and arithmetic, and whom to tell.

    pixels: how pictures become numbers, of a model that reads them. began: when this process began with it, by the
    monotonic clock.
    """

    index: int
    seed: int
    batch_tokens: int
    precision: str
    device: torch.device
    report: Report
    should_stop: Callable[[], bool]
    keeper: Keeper
    replicas: Replicas = ALONE
    pixels: PixelConfig | None = None
    began: float = field(default_factory=time.monotonic)

    def epoch(self, number: int) -> tuple[int, int, int]:
        """The numbers that name an epoch of the stage, counted from 1, in the run."""
        return self.seed, self.index, number

    def stop_if_asked(self, place: str) -> None:
        """Raises Paused once the process was asked to stop before the stage's first step."""
        if self.should_stop():
            raise Paused(f"stopped {place}: run again to go on")


@dataclass
class StageProgress:
    """Where a stage stands, and what it measured so far.

    losses, epoch_seconds: of the epoch in progress. seconds: of the stage, over all processes that worked on it, with
    those before its first step. peak_bytes: the most memory that any of them took.
    """

    SCHEMA: ClassVar[int] = 1
    step: int = 0
    losses: list[float] = field(default_factory=list)
    epochs: list[EpochMetrics] = field(default_factory=list)
    steps: list[StepMetrics] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    peak_bytes: int = 0


def train_stage(
    model: Classifier,
    stage: Stage,
    groups: Sequence[DepthGroup],
    data: StageData,
    context: StageContext,
) -> StageProgress:
    """Train the stage's depth groups, from the step that the keeper has; the weights of the best epoch stay.

    Best is the epoch of least validation loss. Raises Paused if asked to stop, and the state is saved then;
    TrainingError if the loss is no number.
    """
    loop = open_stage(model, stage, groups, data, context)
    context.keeper.restore(loop)
    loop.progress.seconds += loop.clock - context.began
    try:
        while not loop.is_over:
            loop.run_epoch()
    except Paused:
        loop.save()
        raise
    model.load_state_dict(loop.best_weights, strict=False)
    return loop.progress


def open_stage(
    model: Classifier,
    stage: Stage,
    groups: Sequence[DepthGroup],
    data: StageData,
    context: StageContext,
) -> "StageLoop":
    """The stage at its first step: its depth groups alone take gradients, in an optimiser of its own."""
    freeze(model, groups, stage.rates)
    start_head(model.head, stage.head_start, (context.seed, context.index))
    set_modes(model, stage.body_dropout)
    least = least_rows(model, context.replicas.size)
    weights = _class_weights(stage.class_weights, data.train.labels, context.device)
    return StageLoop(
        model=model,
        stage=stage,
        optimizer=build_optimizer(model, groups, stage.rates, stage.weight_decay),
        criterion=data.criterion or _criterion(stage, weights),
        class_weights=None if weights is None else weights.cpu().numpy(),
        data=data,
        context=context,
        batches=_plan_batches(stage, data, context, least),
        least=least,
        pulls=tuple(_pulls(model, stage, data, context)),
    )


def validate(
    model: Classifier, data: StageData, context: StageContext, on_progress: Callable[[int], None] | None = None
) -> tuple[float, float]:
    """The loss and the accuracy on the validation rows; on_progress is told how many rows are done."""
    known, replicas = data.validation, context.replicas
    mine = replicas.share(range(len(known.rows)), known.lengths)
    rows = [known.rows[row] for row in mine or [0]]
    with autocast(context.device, context.precision):
        logits = infer(model, data.forward, known.encoder, rows, on_progress=on_progress)
    logits = replicas.gather(logits, mine, len(known.rows)).double()
    return data.measure(logits, torch.from_numpy(known.labels))


def is_better(epoch: EpochMetrics, best: EpochMetrics, keep_epoch: str) -> bool:
    """Whether a later epoch takes the place of the best so far; equal accuracies are told apart by their losses."""
    if keep_epoch == "accuracy" and epoch.validation_accuracy != best.validation_accuracy:
        return epoch.validation_accuracy > best.validation_accuracy
    return keep_epoch == "last" or epoch.validation_loss < best.validation_loss


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors, as in its state dict, without frozen parameters."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


@dataclass
class StageLoop:
    """One stage in progress: the model, its optimiser, the batches of each step of each epoch, and where it stands.

    class_weights: what a training row counts in a mean, by its class; None where all count the same. least: rows that a
    batch has to have. pulls: to the weights that the stage begins with, also in a process that resumes it (the store
    has them), so they are no part of its state.
    """

    model: Classifier
    stage: Stage
    optimizer: torch.optim.Optimizer
    criterion: Callable[[Tensor, Labels], Tensor]
    class_weights: np.ndarray | None
    data: StageData
    context: StageContext
    batches: list[list[list[Batch]]]
    least: int
    pulls: tuple[Pull, ...]
    progress: StageProgress = field(default_factory=StageProgress)
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.total = sum(map(len, self.batches))
        self.curve_every = max(1, self.total // CURVE_POINTS)
        self.average = WeightAverage(self.stage.average, self.total)
        adversary = self.stage.adversary
        pixels = self.context.pixels
        self.backward = Attack(self.model.body, pixels, adversary) if adversary else add_plain_gradient
        self.reported = 0.0
        self.clock = time.monotonic()

    @property
    def is_over(self) -> bool:
        """True after the last epoch, or after `patience` epochs without a better one."""
        done, patience = len(self.progress.epochs), self.stage.patience
        is_stale = done > 0 and patience is not None and done - self.progress.best_epoch >= patience
        return done == self.stage.epochs or is_stale

    @property
    def epoch(self) -> tuple[int, int, int]:
        """The numbers that name the epoch in progress."""
        return self.context.epoch(len(self.progress.epochs) + 1)

    @property
    def rate_scale(self) -> float:
        return rate_scale(self.progress.step, self.total, self.stage.warmup, self.stage.schedule)

    def run_epoch(self) -> None:
        """What is left of the epoch's steps, then the validation rows; keeps the weights if they are the best.

        Where weights are averaged, it is the average that is validated and kept.
        """
        progress, epoch = self.progress, len(self.progress.epochs)
        set_modes(self.model, self.stage.body_dropout)
        for batches in self.batches[epoch][len(progress.losses) :]:
            self.stop_if_asked()
            progress.losses.append(self.run_step(batches))
            if progress.step % self.curve_every == 0 or progress.step == self.total:
                recent = float(np.mean(progress.losses[-self.curve_every :]))
                progress.steps.append(StepMetrics(progress.step, recent, self.rate_scale))
            self.report_step(progress.losses[-1])
            fault("training.step")
            if self.context.keeper.is_due():
                self.save()
        with self.average.in_place(self.model):
            # Each process counted those of its own rows; the leader's are the model's.
            self.context.replicas.copy_leader(tensor for _, tensor in running_statistics(self.model))
            loss, accuracy = validate(self.model, self.data, self.context, lambda _: self.stop_if_asked())
            if not np.isfinite(loss):  # the last step broke the weights
                raise TrainingError(_diverged(self.stage, progress.step, loss))
            self.count_cost()
            train_loss = float(np.mean(progress.losses))
            metrics = EpochMetrics(epoch + 1, progress.step, train_loss, loss, accuracy, progress.epoch_seconds)
            progress.epochs.append(metrics)
            progress.losses, progress.epoch_seconds = [], 0.0
            self.keep_best(metrics)
        self.context.report({"event": "epoch", "stage": self.stage.name, **asdict(metrics)})
        fault("training.epoch_end")

    def run_step(self, batches: Sequence[Batch]) -> float:
        """One optimiser step on all rows of these batches; their mean loss. Each process computes its share of it."""
        replicas = self.context.replicas
        # Randomness is a function of the place, so that a state needs no generator's state.
        torch.manual_seed(seed_of(self.context.seed, self.context.index, self.progress.step, *replicas.noise))
        total = sum(map(self.weight_of, batches)) or 1.0  # of a step of which nothing is told
        value = sum(self.add_gradient(batch, total) for batch in batches)
        value = replicas.add_up(value, self.model.parameters())
        if not np.isfinite(value):
            raise TrainingError(_diverged(self.stage, self.progress.step, value))
        for pull in self.pulls:
            add_pull(self.model, pull)
        if self.stage.clip_norm:
            clip_gradients(self.optimizer, self.stage.clip_norm)
        set_rates(self.optimizer, self.rate_scale)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.model, self.progress.step)
        self.progress.step += 1
        return value

    def add_gradient(self, batch: Batch, total: float) -> float:
        """Add the gradient of what this process's rows of the batch are of the step's mean loss; that part of the loss.

        total: what all rows of the step weigh.
        """
        train = self.data.train
        rows = self.context.replicas.share(batch, [train.lengths[row] for row in batch])
        share = self.weight_of(rows) / total
        # A process without rows takes one at no weight: what has a gradient in one must have it in all.
        inputs, mask, labels = train.batch(rows or batch[:1], self.epoch, self.context.device)

        def loss() -> Tensor:
            with autocast(self.context.device, self.context.precision):
                return share * self.criterion(self.data.forward(inputs, mask).float(), labels)

        return self.backward(loss)

    def weight_of(self, rows: Batch) -> float:
        """What these rows count in this epoch's means."""
        if self.data.weights is not None:
            return float(self.data.weights[rows].sum())
        if self.class_weights is None or not rows:
            return float(len(rows))
        labels = self.data.train.labels_of(rows, self.epoch)
        weights = self.class_weights[labels] if labels.ndim == 1 else labels @ self.class_weights
        return float(weights.sum())

    def keep_best(self, metrics: EpochMetrics) -> None:
        best = self.progress.best_epoch
        if best == 0 or is_better(metrics, self.progress.epochs[best - 1], self.stage.keep_epoch):
            self.progress.best_epoch = metrics.epoch
            self.best_weights = {name: tensor.clone() for name, tensor in trained_tensors(self.model).items()}

    def stop_if_asked(self) -> None:
        """Raises Paused once the process was asked to stop."""
        if self.context.should_stop():
            place = f"stage {self.stage.name!r} at step {self.progress.step} of {self.total}"
            raise Paused(f"stopped and saved in {place}: run again to go on")

    def save(self) -> None:
        """Hand the state to the keeper."""
        self.count_cost()
        self.context.keeper.save(self)

    def count_cost(self) -> None:
        """Add what has passed since the last call to the time of stage and epoch, and note the memory taken so far."""
        self.progress.peak_bytes = max(self.progress.peak_bytes, peak_bytes(self.context.device))
        now = time.monotonic()
        self.progress.seconds += now - self.clock
        self.progress.epoch_seconds += now - self.clock
        self.clock = now

    def report_step(self, loss: float) -> None:
        now = time.monotonic()
        if now - self.reported < REPORT_EVERY_S and self.progress.step < self.total:
            return
        self.reported = now
        event = {"event": "step", "stage": self.stage.name, "step": self.progress.step, "steps": self.total}
        self.context.report(event | {"loss": loss, "memory": peak_bytes(self.context.device)})


def _criterion(stage: Stage, weights: Tensor | None) -> Callable[[Tensor, Labels], Tensor]:
    """The mean loss of classes, by the labels alone, or shares of them, or by what a teacher says, too."""
    if stage.mixing:
        return partial(mixed_loss, class_weights=weights, label_smoothing=stage.label_smoothing)
    if stage.distil is None:
        return nn.CrossEntropyLoss(weights, label_smoothing=stage.label_smoothing)
    return TaughtCriterion(stage.distil, weights, stage.label_smoothing)


def _pulls(model: Classifier, stage: Stage, data: StageData, context: StageContext) -> Iterator[Pull]:
    """What holds the parameters in training where they are now. L2-SP leaves the head alone: it starts anywhere."""
    start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    if stage.l2_sp:
        yield Pull(stage.l2_sp, {name: tensor for name, tensor in start.items() if name.startswith("body.")})
    if stage.ewc:
        assert data.known is not None
        yield Pull(stage.ewc, start, _worth(model, data.forward, data.known, context))


def _worth(
    model: Classifier, forward: Callable[[Tensor, Tensor], Tensor], known: Examples, context: StageContext
) -> dict[str, Tensor]:
    """The mean Fisher information of each parameter in training over the known rows; each process computes a share."""
    replicas = context.replicas

    def rows() -> Iterator[tuple[Tensor, Tensor]]:
        for row in range(replicas.rank, len(known.rows), replicas.size):
            context.stop_if_asked("while it was told what the weights are worth to known rows")
            inputs, mask, _ = known.batch([row], context.epoch(0), context.device)
            yield inputs, mask

    total = sum_fisher(model, forward, rows(), context.precision)
    replicas.sum_up(total.values())
    return {name: tensor / max(1, len(known.rows)) for name, tensor in total.items()}


def _plan_batches(stage: Stage, data: StageData, context: StageContext, least: int) -> list[list[list[Batch]]]:
    """The batches of each step of each epoch. least: rows that one has to have."""
    train = data.train
    if len(train.rows) < least:
        problem = f"batch normalisation needs {least} rows in {context.replicas.size} processes, not {len(train.rows)}"
        hint = "body_dropout: false keeps the statistics that the checkpoint has"
        raise TrainingError(Problem(problem, f"stage {stage.name!r}", hint))
    epochs = (
        epoch_batches(train.lengths, context.batch_tokens, epoch, least, data.draw and data.draw(epoch))
        for epoch in map(context.epoch, range(1, stage.epochs + 1))
    )
    size = stage.accumulate
    return [[batches[start : start + size] for start in range(0, len(batches), size)] for batches in epochs]


def _class_weights(kind: str, labels: np.ndarray, device: torch.device) -> Tensor | None:
    """Inverse class frequency for `balanced`: rows of all classes weigh the same in all, one on average."""
    if kind == "none":
        return None
    counts = np.bincount(labels)
    return torch.tensor(len(labels) / (len(counts) * counts), dtype=torch.float32, device=device)


def _diverged(stage: Stage, step: int, loss: float) -> Problem:
    return Problem(
        f"the loss is {loss} at step {step}",
        where=f"stage {stage.name!r}",
        hint="lower its learning_rate, lengthen its warmup, or set train.precision to float32",
    )
