"""What a run will take, estimated from steps that were measured, and what would fit if it won't.

Not here: the measuring (probe.py), which happens in a process of its own (launch.py).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import ClassVar

from graftwork.fingerprint import from_json, to_json
from graftwork.models.catalog import LEAST_ROWS
from graftwork.storage import Store
from graftwork.training.plan import ResolvedRun, TrainingPlan
from graftwork.training.stages import OBJECTIVE, Stage

KIND = "estimate"
RECORD = "estimate.json"
SPARE = 0.95  # of the free memory is what a proposal may take
ROUND_TOKENS = 16  # a proposed batch is a multiple of so many tokens


@dataclass(frozen=True)
class StageEstimate:
    """What a stage will take. key: of its result in the store.

    steps: optimiser steps of all epochs. rows: those whose frozen part is to be computed. seconds: of the stage, with
    `prefix_seconds` for these rows. peak_bytes: the most memory it takes, of which `mapped_bytes` are pages of files
    that the kernel can drop. largest_batch: tokens of its largest batch, padding included. token_bytes: what a token
    more or less in it changes of the peak.
    """

    SCHEMA: ClassVar[int] = 1
    stage: str
    key: str
    steps: int
    rows: int
    seconds: float
    prefix_seconds: float
    step_seconds: float
    peak_bytes: int
    mapped_bytes: int
    largest_batch: int
    token_bytes: float

    @property
    def needed_bytes(self) -> int:
        """The memory without which it fails."""
        return self.peak_bytes - self.mapped_bytes

    def fitting_batch(self, free_bytes: int) -> int:
        """The tokens of the largest batch with which it would fit, not above its own; 0 if no batch is small enough."""
        excess = max(0.0, self.needed_bytes - SPARE * free_bytes)
        return max(0, int(self.largest_batch - excess / self.token_bytes)) if self.token_bytes else 0


@dataclass(frozen=True)
class Outcome:
    """What a trial gave: the stages that are not trained yet, as far as there was memory to measure them.

    free_bytes: the memory that the training process can have.
    """

    free_bytes: int
    stages: tuple[StageEstimate, ...]
    is_whole: bool

    @property
    def fits(self) -> bool:
        return self.is_whole and all(stage.needed_bytes <= self.free_bytes for stage in self.stages)


@dataclass(frozen=True)
class Trial:
    """What is tried in the place of a plan's own. groups: how many depth groups a stage trains at most, the deepest."""

    batch_tokens: int
    groups: int

    def apply(self, plan: TrainingPlan) -> TrainingPlan:
        """The plan so changed; its keys stay."""
        stages = (replace(stage, rates=self._rates(stage)) for stage in plan.stages)
        return replace(plan, batch_tokens=self.batch_tokens, stages=tuple(stages))

    def overrides(self, plan: TrainingPlan, keys: Collection[str]) -> tuple[str, ...]:
        """What the user has to say after --set to have it so in the stages of these keys."""
        changed = [
            f"stages.{index}.train=[{', '.join(name for name in self._rates(stage) if name != OBJECTIVE)}]"
            for index, stage in enumerate(plan.stages)
            if stage.key in keys and self._rates(stage).keys() != stage.rates.keys()
        ]
        batch = [f"train.batch_tokens={self.batch_tokens}"] if self.batch_tokens != plan.batch_tokens else []
        return (*batch, *changed)

    def _rates(self, stage: Stage) -> dict[str, float]:
        """Those of the groups that it trains then; a head that leaves with the stage comes on top."""
        lasting = [name for name in stage.rates if name != OBJECTIVE]
        least = 2 if stage.has_tasks else 1  # of which a head by itself would learn nothing
        kept = {*lasting[-max(self.groups, least) :], OBJECTIVE}
        return {name: rate for name, rate in stage.rates.items() if name in kept}


Measure = Callable[[Trial], Outcome]


@dataclass(frozen=True)
class Proposal:
    """A change of the recipe that was measured, and fits. overrides: as after --set."""

    SCHEMA: ClassVar[int] = 1
    overrides: tuple[str, ...]
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Estimate:
    """What the run will take. stages: those that were not trained yet, as far as there was memory to measure them.

    proposal: what fits if the recipe does not; None if nothing was found.
    """

    SCHEMA: ClassVar[int] = 1
    run_id: str
    free_bytes: int
    stages: tuple[StageEstimate, ...]
    fits: bool
    proposal: Proposal | None

    @property
    def key(self) -> str:
        return f"{KIND}/{self.run_id}"

    @property
    def seconds(self) -> float:
        """Of the stages one after the other."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def peak_bytes(self) -> int:
        return max((stage.peak_bytes for stage in self.stages), default=0)


def estimate_run(run: ResolvedRun, measure: Measure) -> Estimate:
    """What the run will take, and where it does not fit, a proposal."""
    trial = Trial(run.plan.batch_tokens, max(len(stage.rates) for stage in run.plan.stages))
    outcome = measure(trial)
    proposal = None if outcome.fits else _find_fitting(run.plan, trial, outcome, measure)
    return Estimate(run.run_id, outcome.free_bytes, outcome.stages, outcome.fits, proposal)


def keep_estimate(store: Store, estimate: Estimate) -> None:
    """Keep it beside its run, in the place of an earlier one."""
    store.remove(estimate.key)
    with store.writing(estimate.key) as folder:
        (folder / RECORD).write_text(to_json(estimate), encoding="utf-8")


def find_estimate(store: Store, run_id: str) -> Estimate | None:
    """The last estimate of a run, if there is one."""
    folder = store.open(f"{KIND}/{run_id}")
    return None if folder is None else from_json(Estimate, (folder / RECORD).read_text(encoding="utf-8"))


def _find_fitting(plan: TrainingPlan, trial: Trial, outcome: Outcome, measure: Measure) -> Proposal | None:
    """Smaller batches first, then fewer groups; each is measured until one fits."""
    while not outcome.fits:
        smaller = _smaller(plan, trial, outcome)
        if smaller is None:
            return None
        trial, outcome = smaller, measure(smaller)
    return Proposal(
        overrides=trial.overrides(plan, [stage.key for stage in outcome.stages]),
        seconds=sum(stage.seconds for stage in outcome.stages),
        peak_bytes=max(stage.peak_bytes for stage in outcome.stages),
    )


def _smaller(plan: TrainingPlan, trial: Trial, outcome: Outcome) -> Trial | None:
    """The largest batch that would fit by what was measured, half of it where memory was at an end, or fewer groups.

    A batch is not made smaller than a row can be, or than the two pictures that batch normalisation takes.
    """
    rows, free = (1 if plan.pixels is None else LEAST_ROWS), outcome.free_bytes
    least = min(plan.batch_tokens, rows * plan.max_tokens)
    if outcome.is_whole:
        tokens = min(stage.fitting_batch(free) for stage in outcome.stages if stage.needed_bytes > free)
    else:
        tokens = max(min(trial.batch_tokens, plan.rows["train"] * plan.max_tokens) // 2, least)
    rounded = max(tokens - tokens % ROUND_TOKENS, least)
    if tokens >= least and rounded < trial.batch_tokens:
        return replace(trial, batch_tokens=rounded)
    return Trial(least, trial.groups // 2) if trial.groups > 1 else None
