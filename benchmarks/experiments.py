"""The experiments: which arms stand beside each other, on what, and which cells that makes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import ours, peers, retraining
from benchmarks.bert import bert_base
from benchmarks.cells import Arm, Cell, Measurement
from benchmarks.workload import Size, Workload, both_reviews, full_stage, movie_reviews

ENGINE = ("graftwork/training", "graftwork/models", "graftwork/data/batches.py")
PRODUCT = ("graftwork", "tasks", "flows")
RUN, QUICK_RUN = "training/graftwork", "training/graftwork-quick"
TRAINER = "training/trainer"
STEPS, TRAINER_STEPS = "steps/graftwork", "steps/trainer"
PREDICTION, PIPELINE = "prediction/graftwork", "prediction/pipeline"
QUICK_PREDICTION = "prediction/graftwork-auto"
COMMANDS = "commands/graftwork"
RETRAINING = "retraining/graftwork"
GPU, TRAINER_GPU = "gpu/graftwork", "gpu/trainer"


def _peer(measure: Callable[..., Any], settings: Mapping[str, Any], version: int = 1) -> Arm:
    return Arm(partial(measure, settings=settings), settings, version=version)


SEARCHED = {
    f"training/tuned-{rate:.0e}": _peer(peers.train_tuned, {**peers.TUNED, "learning_rate": rate}, version=2)
    for rate in peers.RATES
}
# As accurate as the Trainer; the demo's own stages are quicker and less so.
THOROUGH = (
    "stages=[{name: full, train: all, epochs: 2, learning_rate: 3e-4, head_multiplier: 10, layer_decay: 0.85, "
    "label_smoothing: 0.1, keep_epoch: last, body_dropout: false}]",
    "train.batch_tokens=800",
)
QUICK = (*THOROUGH, "stages.0.epochs=1")  # as accurate as the tuned Trainer
GPU_SETTINGS = {**peers.TUNED, "bf16": True, "per_device_train_batch_size": 64}
ARMS: Mapping[str, Arm] = {
    RUN: Arm(partial(ours.train_recipe, overrides=THOROUGH), {"overrides": THOROUGH}, code=ENGINE),
    QUICK_RUN: Arm(partial(ours.train_recipe, overrides=QUICK), {"overrides": QUICK}, code=ENGINE),
    TRAINER: _peer(peers.train, peers.PLAIN),
    **SEARCHED,
    STEPS: Arm(ours.train_steps, code=ENGINE),
    TRAINER_STEPS: _peer(peers.train_steps, peers.PLAIN),
    PREDICTION: Arm(partial(ours.predict, precision="float32"), code=ENGINE),
    QUICK_PREDICTION: Arm(partial(ours.predict, precision="auto"), code=ENGINE),
    PIPELINE: Arm(peers.predict),
    COMMANDS: Arm(ours.time_commands, code=PRODUCT),
    RETRAINING: Arm(retraining.retrain, code=(*ENGINE, "graftwork/data/replay.py")),
    GPU: Arm(ours.train_steps, code=ENGINE),
    TRAINER_GPU: _peer(peers.train_steps, GPU_SETTINGS),
}


@dataclass(frozen=True)
class Experiment:
    """Arms that are measured in turn, seed by seed, on the same work.

    searched: arms of which the first seed chooses one, on the validation rows; the others stay with that seed.
    rounds: how often, if not once for each seed.
    """

    workload: Callable[[Size], Workload]
    arms: tuple[str, ...]
    searched: tuple[str, ...] = ()
    rounds: int | None = None
    needs_gpu: bool = False

    def cells(self, seeds: int, found: Mapping[Cell, Measurement]) -> Iterator[Cell]:
        """Every cell, in the order of measuring; what was found so far decides which arm of a search goes on."""
        for seed in range(1, (self.rounds or seeds) + 1):
            chosen = self.searched if seed == 1 else _chosen(self.searched, found)
            yield from (Cell(arm, seed) for arm in (*self.arms, *chosen))


EXPERIMENTS: Mapping[str, Experiment] = {
    "training": Experiment(both_reviews, (RUN, QUICK_RUN, TRAINER), searched=tuple(SEARCHED)),
    "steps": Experiment(full_stage, (STEPS, TRAINER_STEPS)),
    "prediction": Experiment(both_reviews, (PREDICTION, QUICK_PREDICTION, PIPELINE)),
    "retraining": Experiment(both_reviews, (RETRAINING,), rounds=3),
    "commands": Experiment(movie_reviews, (COMMANDS,), rounds=1),
    "gpu": Experiment(bert_base, (GPU, TRAINER_GPU), needs_gpu=True),
}


def best_searched(searched: Sequence[str], found: Mapping[Cell, Measurement]) -> str | None:
    """The arm that got most validation rows right with the first seed; None before all were measured."""
    firsts = [found.get(Cell(arm, 1)) for arm in searched]
    known = [first for first in firsts if first is not None]
    if not known or len(known) < len(firsts):
        return None
    return max(known, key=lambda first: first.values["validation_accuracy"]).cell.arm


def _chosen(searched: Sequence[str], found: Mapping[Cell, Measurement]) -> tuple[str, ...]:
    best = best_searched(searched, found)
    return () if best is None else (best,)
