"""The training loop. There is one; what differs between stages is data."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graftwork.data.batches import epoch_batches
from graftwork.errors import Paused, Problem, TrainingError
from graftwork.faults import fault
from graftwork.fingerprint import digest
from graftwork.models.catalog import DepthGroup
from graftwork.models.serving import TextClassifier, TextEncoder, infer
from graftwork.training.bundle import EpochMetrics, StepMetrics
from graftwork.training.optimizer import build_optimizer, freeze, rate_scale, set_modes, set_rates
from graftwork.training.stages import Stage

CURVE_POINTS = 100
REPORT_EVERY_S = 0.5
Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Examples:
    """Tokenised rows with their labels, (rows,) int64, and the encoder that pads them."""

    rows: list[list[int]]
    labels: np.ndarray
    encoder: TextEncoder

    def batch(self, indices: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Ids and mask, both (batch, longest row), and labels."""
        rows = [self.rows[index] for index in indices]
        ids, mask = self.encoder.pad(rows, max(map(len, rows)))
        return ids.to(device), mask.to(device), torch.from_numpy(self.labels[list(indices)]).to(device)


@dataclass(frozen=True)
class StageContext:
    """What a stage is given beside itself: its place in the plan, the run's seed and arithmetic, and two callbacks."""

    index: int
    seed: int
    batch_tokens: int
    precision: str
    device: torch.device
    report: Report
    should_stop: Callable[[], bool]

    def autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.precision))


@dataclass
class StageProgress:
    """Where a stage stands, and what it measured so far."""

    step: int = 0
    epochs: list[EpochMetrics] = field(default_factory=list)
    steps: list[StepMetrics] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)


def train_stage(
    model: TextClassifier,
    stage: Stage,
    groups: Sequence[DepthGroup],
    train: Examples,
    validation: Examples,
    context: StageContext,
) -> StageProgress:
    """Train the stage's depth groups; the model ends with the weights of the epoch of least validation loss.

    Raises Paused if asked to stop, TrainingError if the loss is no number.
    """
    freeze(model, groups, stage.rates)
    loop = StageLoop(
        model=model,
        stage=stage,
        optimizer=build_optimizer(model, groups, stage.rates, stage.weight_decay),
        criterion=nn.CrossEntropyLoss(
            weight=_class_weights(stage.class_weights, train.labels, context.device),
            label_smoothing=stage.label_smoothing,
        ),
        train=train,
        validation=validation,
        context=context,
        batches=_plan_batches(stage, train, context),
    )
    for epoch in range(1, stage.epochs + 1):
        loop.run_epoch(epoch)
        fault("training.epoch_end")
        if stage.patience is not None and epoch - loop.progress.best_epoch >= stage.patience:
            break
    model.load_state_dict(loop.progress.best_weights)
    return loop.progress


@dataclass
class StageLoop:
    """One stage in progress: the model, its optimiser, the batches of every epoch, and where it stands."""

    model: TextClassifier
    stage: Stage
    optimizer: torch.optim.Optimizer
    criterion: nn.Module
    train: Examples
    validation: Examples
    context: StageContext
    batches: list[list[list[int]]]
    progress: StageProgress = field(default_factory=StageProgress)

    def __post_init__(self) -> None:
        self.total = sum(map(len, self.batches))
        self.curve_every = max(1, self.total // CURVE_POINTS)
        self.reported = 0.0

    def run_epoch(self, epoch: int) -> None:
        """All steps of an epoch, counted from 1, then the validation rows; keeps the weights if they are the best."""
        started = time.monotonic()
        torch.manual_seed(int(digest([self.context.seed, self.context.index, epoch])[:15], 16))
        set_modes(self.model)
        losses: list[float] = []
        for batch in self.batches[epoch - 1]:
            losses.append(self.run_step(batch))
            if self.progress.step % self.curve_every == 0 or self.progress.step == self.total:
                recent = float(np.mean(losses[-self.curve_every :]))
                self.progress.steps.append(StepMetrics(self.progress.step, recent, self.rate_scale))
            self.report_step(losses[-1])
        loss, accuracy = self.validate()
        if not np.isfinite(loss):  # the last step broke the weights
            raise TrainingError(_diverged(self.stage, self.progress.step, loss))
        seconds = time.monotonic() - started
        metrics = EpochMetrics(epoch, self.progress.step, float(np.mean(losses)), loss, accuracy, seconds)
        self.progress.epochs.append(metrics)
        self.keep_best(metrics)
        self.context.report({"event": "epoch", "stage": self.stage.name, **asdict(metrics)})

    @property
    def rate_scale(self) -> float:
        return rate_scale(self.progress.step, self.total, self.stage.warmup, self.stage.schedule)

    def run_step(self, batch: Sequence[int]) -> float:
        """One optimiser step; its loss. Raises Paused before it begins if the process was asked to stop."""
        step = self.progress.step
        if self.context.should_stop():
            raise Paused(f"stopped in stage {self.stage.name!r} at step {step} of {self.total}: run again to go on")
        ids, mask, labels = self.train.batch(batch, self.context.device)
        with self.context.autocast():
            loss = self.criterion(self.model(ids, mask).float(), labels)
        value = loss.item()
        if not np.isfinite(value):
            raise TrainingError(_diverged(self.stage, step, value))
        loss.backward()
        if self.stage.clip_norm:
            nn.utils.clip_grad_norm_((p for p in self.model.parameters() if p.requires_grad), self.stage.clip_norm)
        set_rates(self.optimizer, self.rate_scale)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        return value

    def validate(self) -> tuple[float, float]:
        """Mean log-loss and accuracy on the validation rows."""
        with self.context.autocast():
            logits = infer(self.model, self.model.forward, self.validation.encoder, self.validation.rows).double()
        labels = torch.from_numpy(self.validation.labels)
        loss = nn.functional.cross_entropy(logits, labels).item()
        return loss, (logits.argmax(1) == labels).double().mean().item()

    def keep_best(self, metrics: EpochMetrics) -> None:
        best = self.progress.best_epoch
        if best == 0 or metrics.validation_loss < self.progress.epochs[best - 1].validation_loss:
            self.progress.best_epoch = metrics.epoch
            self.progress.best_weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def report_step(self, loss: float) -> None:
        now = time.monotonic()
        if now - self.reported < REPORT_EVERY_S and self.progress.step < self.total:
            return
        self.reported = now
        event = {"event": "step", "stage": self.stage.name, "step": self.progress.step, "steps": self.total}
        self.context.report(event | {"loss": loss})


def _plan_batches(stage: Stage, train: Examples, context: StageContext) -> list[list[list[int]]]:
    lengths = [len(row) for row in train.rows]
    return [
        epoch_batches(lengths, context.batch_tokens, (context.seed, context.index, epoch))
        for epoch in range(1, stage.epochs + 1)
    ]


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
