"""What Graftwork does in each experiment. Heavy imports wait until it runs, so that its memory is what it needs."""

import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cells import Job, Outcome, predictions_of
from benchmarks.machine import peak_mib
from benchmarks.workload import call_graftwork

if TYPE_CHECKING:
    import pandas as pd

    from graftwork.models.serving.model import ServingModel
    from graftwork.training.plan import ResolvedRun

FITTED_ROWS = 500
WARMUP_ROWS = 64


def train_recipe(job: Job, overrides: Sequence[str] = ()) -> Outcome:
    """All stages of the recipe, changed so, from nothing trained to the bundle in the store.

    The time begins with the first stage, when rows are tokenised and the model is loaded, as the Trainer's does; it
    holds the frozen prefix, every validation and every save.
    """
    from graftwork.data.manifest import load_rows
    from graftwork.evaluation.predictions import inputs_of
    from graftwork.models.serving.model import load
    from graftwork.training.bundle import MODEL
    from graftwork.training.engine import run_stages
    from graftwork.workspace import Workspace

    workspace = Workspace.open()
    run = job.workload.resolve(f"train.seed={job.cell.seed}", *overrides)
    events: list[tuple[float, dict[str, Any]]] = []
    bundle = run_stages(
        run, workspace, lambda event: events.append((time.perf_counter(), event)), should_stop=lambda: False
    )
    ended, peak = time.perf_counter(), peak_mib()
    began = next(when for when, event in events if event["event"] == "stage")
    saves = [event["seconds"] for _, event in events if event["event"] == "saved"]
    holdout = load_rows(workspace.store, run.manifest, sides=("holdout",))
    model = load(workspace.store.root / bundle.key / MODEL)
    values = {"seconds": ended - began, "saving_s": sum(saves), "saves": len(saves), "peak_mib": peak}
    predictions = predictions_of(holdout, model.probabilities(inputs_of(holdout)))
    return Outcome(run.plan.precision, values | {"rows": run.plan.rows["train"]}, predictions)


def train_steps(job: Job) -> Outcome:
    """Some optimiser steps of the recipe's first stage, as the training process takes them, saves included."""
    import torch

    from benchmarks.arithmetic import EncoderShape, StepClock
    from graftwork.checkpoints.retrieve import open_checkpoint
    from graftwork.data.batches import epoch_batches
    from graftwork.data.manifest import load_rows
    from graftwork.errors import Paused
    from graftwork.evaluation.predictions import inputs_of
    from graftwork.models.serving.text import TextEncoder
    from graftwork.training.engine import run_stages
    from graftwork.workspace import Workspace

    workspace = Workspace.open()
    run = job.workload.resolve(f"train.seed={job.cell.seed}")
    clock, done = StepClock(job.workload.size.warmup, job.workload.size.steps), count()
    events: list[dict[str, Any]] = []
    with suppress(Paused):  # before each step it asks whether to stop: that is when one more is done
        run_stages(run, workspace, events.append, should_stop=lambda: clock.is_over(next(done)))
    peak = peak_mib()
    assert [event["step"] for event in events if event["event"] == "saved"][-1] == clock.last
    checkpoint = open_checkpoint(workspace.store, run.lock)
    rows = load_rows(workspace.store, run.manifest, sides=("train",))
    lengths = [len(ids) for ids in TextEncoder(checkpoint, run.plan.max_tokens).encode(inputs_of(rows))]
    batches = epoch_batches(lengths, run.plan.batch_tokens, (run.plan.seed, 0, 1))
    values = clock.measured(
        [[lengths[row] for row in batch] for batch in batches],
        EncoderShape.read(checkpoint),
        getattr(torch, run.plan.precision),
    )
    return Outcome(run.plan.precision, values | {"peak_mib": peak})


def predict(job: Job, precision: str) -> Outcome:
    """Batch prediction by the served model, from texts to probabilities. precision: as of `graftwork predict`."""
    from graftwork.evaluation.predictions import inputs_of
    from graftwork.training.precision import resolve_precision

    run = job.workload.resolve()
    precision = resolve_precision(precision)
    rows, model = rows_to_predict(job, run), replace(nearest_mean_model(run), precision=precision)
    texts = inputs_of(rows)
    model.probabilities(texts[:WARMUP_ROWS])
    began = time.perf_counter()
    probabilities = model.probabilities(texts)
    seconds = time.perf_counter() - began
    return Outcome(precision, {"seconds": seconds, "rows": len(rows)}, predictions_of(rows, probabilities))


def time_commands(job: Job) -> Outcome:
    """`graftwork run` in a fresh home, then the commands that a person waits for, as whole processes."""
    arguments = job.workload.arguments
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        values: dict[str, Any] = {"run_s": _seconds(home, ["run", *arguments])}
        commands = {"help_s": ["--help"], "plan_s": ["plan", *arguments], "unchanged_s": ["run", *arguments]}
        for name, command in commands.items():
            _seconds(home, command)
            values[name] = [_seconds(home, command) for _ in range(job.workload.size.commands)]
    return Outcome(job.workload.resolve().plan.precision, values)


def _seconds(home: Path, arguments: Sequence[str]) -> float:
    began = time.perf_counter()
    call_graftwork(home, *arguments)
    return time.perf_counter() - began


def rows_to_predict(job: Job, run: "ResolvedRun") -> "pd.DataFrame":
    """Rows of all sides, of mixed lengths and in no order."""
    from graftwork.data.manifest import load_rows
    from graftwork.workspace import Workspace

    rows = load_rows(Workspace.open().store, run.manifest, sides=("train", "validation", "holdout"))
    return rows.sample(n=min(job.workload.size.predicted, len(rows)), random_state=0)


def nearest_mean_model(run: "ResolvedRun") -> "ServingModel":
    """The checkpoint with a head that takes the class whose mean of some rows is nearest.

    To run it costs what a trained one costs, and its predictions are spread over the classes.
    """
    import torch

    from graftwork.checkpoints.retrieve import open_checkpoint
    from graftwork.data.manifest import load_rows
    from graftwork.evaluation.predictions import inputs_of
    from graftwork.models.serving.inference import pick_device
    from graftwork.models.serving.model import ServingModel
    from graftwork.models.serving.text import TextEncoder
    from graftwork.models.text import load_pretrained
    from graftwork.training.engine import serving_config
    from graftwork.workspace import Workspace

    store = Workspace.open().store
    checkpoint, config = open_checkpoint(store, run.lock), replace(serving_config(run.plan), hidden_layers=())
    model = load_pretrained(checkpoint, config, seed=0).to(pick_device())
    served = ServingModel(model.eval(), TextEncoder(checkpoint, config.max_tokens), config, pick_device())
    rows = load_rows(store, run.manifest, sides=("train",)).sample(frac=1, random_state=0)[:FITTED_ROWS]
    features, labels = torch.from_numpy(served.features(inputs_of(rows))), torch.tensor(rows["label"].to_numpy())
    means = torch.stack([features[labels == label].mean(0) for label in range(len(config.classes))])
    head = model.head[-1]
    head.load_state_dict({"weight": means, "bias": -means.square().sum(1) / 2})
    return served
