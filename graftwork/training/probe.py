"""What the stages of a run take: a little of each is done by the code that trains, and measured.

States, activations and the lease are real, but those of a scratch workspace inside the staging folder, which is removed
at the end. A stage after the first is measured on the weights that there are, not on those it will start from: it costs
the same.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from graftwork.checkpoints.retrieve import open_checkpoint
from graftwork.database import Database
from graftwork.errors import Paused
from graftwork.faults import fault
from graftwork.models.prefix_cache import KIND, FrozenPart, PrefixCache, arithmetic_of, prefix_digest, row_name
from graftwork.models.serving.inference import BATCH_TOKENS, inference_batches, pick_device
from graftwork.models.serving.model import Encoder
from graftwork.models.text import attention_of
from graftwork.storage import Store
from graftwork.training.bundle import EpochMetrics, StageResult
from graftwork.training.contract import contract_of
from graftwork.training.engine import Training, attach, encoder_of, finished_stages, load_model
from graftwork.training.estimate import StageEstimate, Trial
from graftwork.training.lease import Lease, hold
from graftwork.training.loop import Batch, Report, StageLoop, open_stage, validate
from graftwork.training.memory import free_bytes, peak_bytes, reset_peak
from graftwork.training.optimizer import set_modes
from graftwork.training.plan import ResolvedRun
from graftwork.training.rows import RunRows, open_rows
from graftwork.training.solver import solve_stage
from graftwork.training.stages import Stage
from graftwork.training.state import FIRST_COST_S, StateKeeper
from graftwork.workspace import Workspace

QUANTILES = 3  # of the batches by their cost; a round of measured steps has a batch of each
ROUNDS = 12
ROUNDS_S = 3.0  # after which no further round of a stage begins
GOLDEN = 0.618  # of a quantile from round to round, so that batches of all costs are met
ABOUT = 1.05  # allocators keep some of what they had: peaks so close are the same
LEASE_S = 60.0  # of a scratch lease that nobody else knows of
FIRST_EPOCH = EpochMetrics(1, 0, 0.0, 0.0, 0.0, 0.0)

T = TypeVar("T")


def probe_run(
    run: ResolvedRun, workspace: Workspace, report: Report, should_stop: Callable[[], bool], trial: Trial
) -> None:
    """Report `free`, the bytes that training can have, then `probed` for each stage that is not in the store yet.

    Raises Paused if asked to stop, and whatever the system raises when memory is at an end.
    """
    report({"event": "free", "bytes": free_bytes(pick_device())})
    store, plan = workspace.store, trial.apply(run.plan)
    checkpoint = open_checkpoint(store, run.lock)
    finished = finished_stages(plan, store, _ignore)
    rows = open_rows(run, store, encoder_of(run.plan, checkpoint))
    with store.staging() as folder:
        database = Database.open(f"sqlite:///{folder / 'scratch.db'}")
        with hold(database, run.run_id, LEASE_S, _ignore) as lease:
            tried = replace(run, plan=plan)
            prober = Prober(tried, workspace, checkpoint, finished, rows, Store(folder), lease, should_stop)
            for index in range(len(finished), len(plan.stages)):
                report({"event": "probing", "done": index - len(finished), "of": len(plan.stages) - len(finished)})
                report({"event": "probed", **asdict(prober.probe(index))})


@dataclass(frozen=True)
class Prober:
    """Measures the stages of a run in their order. scratch, lease: of a state that nobody goes on from.

    promised: names of the rows whose activations are there by then, for each prefix that an earlier stage asked for.
    """

    run: ResolvedRun
    workspace: Workspace
    checkpoint: Path
    finished: list[StageResult]
    rows: RunRows
    scratch: Store
    lease: Lease
    should_stop: Callable[[], bool]
    promised: dict[str, set[bytes]] = field(default_factory=dict)

    def probe(self, index: int) -> StageEstimate:
        """What the stage of that place will take."""
        plan, store, settings = self.run.plan, self.workspace.store, self.workspace.settings
        stage = plan.stages[index]
        model = load_model(plan, self.checkpoint, store, self.finished)
        contract = contract_of(plan, pick_device(), attention_of(model), processes=1)
        keeper = StateKeeper(self.scratch, self.lease, contract, _ignore, share=settings.save_share)
        scratch = PrefixCache(self.scratch, settings.cache_bytes, arithmetic_of(model, plan.precision))
        cache = SampledCache(store, scratch, self.promised, self._changed_by(index))
        attach(self.run, index, model, store)
        training = Training(self.run, self.rows, model, cache)
        context = training.stage_context(index, keeper, _ignore, self.should_stop)
        meter = Meter(context.device)
        data = meter(partial(training.stage_data, context))
        groups = stage.groups_of(plan.groups)
        if stage.solver == "lbfgs":
            meter(partial(solve_stage, model, stage, groups, data, context))
            took = Cost(meter.seconds)
        else:
            loop = meter(partial(open_stage, model, stage, groups, data, context))
            opening = meter.seconds
            took = _measure(loop, meter)
            took = replace(took, seconds=opening + took.seconds)
        seconds = cache.seconds + took.seconds
        mapped_bytes = 0 if meter.device.type == "cuda" else cache.mapped_bytes
        return StageEstimate(
            stage=stage.name,
            key=stage.key,
            steps=took.steps,
            rows=cache.computed,
            seconds=seconds + took.save_seconds * _saves(seconds, took.save_seconds, settings.save_share),
            prefix_seconds=cache.seconds,
            step_seconds=took.step_seconds,
            peak_bytes=meter.peak + mapped_bytes,
            mapped_bytes=mapped_bytes,
            largest_batch=took.largest_batch,
            token_bytes=took.token_bytes,
        )

    def _changed_by(self, index: int) -> str:
        """The key of the last stage that is yet to train some of what this one has frozen; "" if there is none."""
        earlier, cut = self.run.plan.stages[len(self.finished) : index], self.run.plan.stages[index].cut
        return next((stage.key for stage in reversed(earlier) if self._lowest_trained(stage) <= cut), "")

    def _lowest_trained(self, stage: Stage) -> int:
        return min(g.depth for g in stage.groups_of(self.run.plan.groups) if g.name in stage.rates)


class Meter:
    """Measures pieces of work on a device. seconds, bytes: of the last piece. peak: bytes of all of them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds, self.bytes, self.peak = 0.0, 0, 0

    def __call__(self, work: Callable[[], T]) -> T:
        reset_peak(self.device)
        started = time.monotonic()
        result = work()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds, self.bytes = time.monotonic() - started, peak_bytes(self.device)
        self.peak = max(self.peak, self.bytes)
        return result


class SampledCache(PrefixCache):
    """Counts the rows that the prefix cache would compute, and computes a few of them to know how long that takes.

    scratch: a cache that is not kept. promised: see `Prober`. changed_by: what tells the frozen part as it will be from
    the one that there is, or "" if they are the same. computed: the rows. seconds: for them. mapped_bytes: of the files
    that all rows will be read from. All three over all that the stage asks for.
    """

    def __init__(self, store: Store, scratch: PrefixCache, promised: dict[str, set[bytes]], changed_by: str) -> None:
        super().__init__(store, scratch.budget, scratch.arithmetic)
        self.scratch, self.promised, self.changed_by = scratch, promised, changed_by
        self.computed, self.seconds, self.mapped_bytes = 0, 0.0, 0

    def rows(
        self,
        part: FrozenPart,
        encoder: Encoder,
        rows: Sequence[Any],
        on_progress: Callable[[int, int], None],
    ) -> list[Tensor]:
        """Noise in the shape of what the part would give for each row."""
        started = time.monotonic()
        prefix = prefix_digest(part, encoder.facts, self.arithmetic)
        hashing = time.monotonic() - started
        named = {row_name(encoder.content(row)): row for row in rows}
        known = self.promised.setdefault(prefix + self.changed_by, set())
        if not self.changed_by:
            known.update(self.names(prefix))
        missing = [row for name, row in named.items() if name not in known]
        known.update(named)
        self.computed += len(missing)
        self.seconds += time.monotonic() - started
        if missing:
            self.seconds += self._computing(part, encoder, missing, on_progress, hashing)
        if part.pooling is not None:
            return list(torch.randn(len(rows), 1, part.width))
        noise = torch.randn(encoder.max_tokens, part.width).to(self.arithmetic.dtype)
        self.mapped_bytes += sum(noise[: len(row)].nbytes for row in named.values())
        return [noise[: len(row)] for row in rows]

    def _computing(
        self,
        part: FrozenPart,
        encoder: Encoder,
        rows: Sequence[Any],
        on_progress: Callable[[int, int], None],
        hashing: float,
    ) -> float:
        """Seconds to compute and store the rows, from a few batches of them."""
        sample = sample_of(rows, encoder.max_tokens)
        for indices in (sample.batches[0], sample.indices):  # the first of anything takes longer
            started = time.monotonic()
            self.scratch.rows(part, encoder, [rows[index] for index in indices], on_progress)
            seconds = time.monotonic() - started - hashing
            for key in self.scratch.store.keys(KIND):
                self.scratch.store.remove(key)
        return seconds / sample.share


@dataclass(frozen=True)
class Sample:
    """A few of the batches that inference on rows has. share: of the tokens of all."""

    batches: list[list[int]]
    share: float

    @property
    def indices(self) -> list[int]:
        return [index for batch in self.batches for index in batch]


def sample_of(rows: Sequence[Any], max_tokens: int) -> Sample:
    """The first, which has the longest rows, and some of the others."""
    batches = list(inference_batches(rows, BATCH_TOKENS, max_tokens))
    places = {0, *(_quantile(number, 0.5, len(batches)) for number in range(QUANTILES))}
    tokens = [length * len(indices) for length, indices in batches]
    return Sample([batches[place][1] for place in sorted(places)], sum(tokens[p] for p in places) / sum(tokens))


@dataclass(frozen=True)
class Cost:
    """What a stage takes from its first step on; `seconds` without saves. See `StageEstimate`."""

    seconds: float
    steps: int = 0
    step_seconds: float = 0.0
    save_seconds: float = 0.0
    largest_batch: int = 0
    token_bytes: float = 0.0


def _measure(loop: StageLoop, meter: Meter) -> Cost:
    """Of a stage in steps: a save, a step of its largest batch, steps of all sizes and some validation are measured."""
    size = partial(_tokens, loop)
    steps = sorted((step for epoch in loop.batches for step in epoch), key=lambda step: sum(map(size, step)))
    largest = max((batch for step in steps for batch in step), key=lambda batch: (size(batch), -len(batch)))
    few = largest[-loop.least :]
    half = largest[-max(loop.least, -(-len(largest) // 2)) :]  # the longer rows
    set_modes(loop.model, loop.stage.body_dropout)
    loop.progress.step = loop.average.first  # from where on a step holds all that it ever does
    meter(partial(_take, loop, [few]))  # as few rows as can be, so that little is left to allocators to keep
    if loop.stage.epochs > 1:
        loop.keep_best(FIRST_EPOCH)
    meter(loop.save)
    save_seconds = meter.seconds
    meter(partial(_take, loop, [half]))
    half_bytes = meter.bytes
    meter(partial(_take, loop, [largest]))
    largest_bytes = meter.bytes
    step_seconds = _step_seconds(loop, steps, meter)
    validation_seconds = _validation_seconds(loop, meter)
    added = size(largest) - size(half)
    is_by_batch = added > 0 and largest_bytes * ABOUT >= meter.peak
    return Cost(
        seconds=loop.total * step_seconds + loop.stage.epochs * validation_seconds,
        steps=loop.total,
        step_seconds=step_seconds,
        save_seconds=save_seconds,
        largest_batch=size(largest),
        token_bytes=max(0, largest_bytes - half_bytes) / added if is_by_batch else 0.0,
    )


def _take(loop: StageLoop, *steps: Sequence[Batch]) -> None:
    """Optimiser steps on these batches; raises Paused if asked to stop."""
    for step in steps:
        if loop.context.should_stop():
            raise Paused("stopped while it was probed: nothing was kept")
        loop.run_step(step)
        fault("probe.step")


def _step_seconds(loop: StageLoop, steps: Sequence[Sequence[Batch]], meter: Meter) -> float:
    """Seconds of a step on average. steps: of the stage, sorted by what they cost."""
    rounds: list[float] = []
    while not rounds or (len(rounds) < ROUNDS and sum(rounds) * QUANTILES < ROUNDS_S):
        within = (0.5 + GOLDEN * len(rounds)) % 1
        chosen = [steps[_quantile(number, within, len(steps))] for number in range(QUANTILES)]
        meter(partial(_take, loop, *chosen))
        rounds.append(meter.seconds / QUANTILES)
    return statistics.median(rounds)


def _validation_seconds(loop: StageLoop, meter: Meter) -> float:
    """Seconds of a validation, from a few batches of it."""
    known = loop.data.validation
    sample = sample_of(known.rows, known.encoder.max_tokens)
    few = replace(
        known,
        rows=[known.rows[index] for index in sample.indices],
        labels=known.labels[sample.indices],
        lengths=[known.lengths[index] for index in sample.indices],
    )
    meter(partial(validate, loop.model, replace(loop.data, validation=few), loop.context))
    return meter.seconds / sample.share


def _saves(seconds: float, save_seconds: float, share: float) -> int:
    """How often so long a stage saves its state; see `StateKeeper.is_due`."""
    left = seconds * share - FIRST_COST_S
    return 0 if left < 0 or save_seconds == 0 else 1 + int(left / save_seconds)


def _tokens(loop: StageLoop, batch: Batch) -> int:
    """Tokens of a batch, padding included."""
    return len(batch) * max(loop.data.train.lengths[index] for index in batch)


def _quantile(number: int, within: float, size: int) -> int:
    """A place in a sorted list: so far within the quantile of that number."""
    return int((number + within) / QUANTILES * size)


def _ignore(*_told: object) -> None:
    """Nobody is told."""
