"""A stage that is solved and not trained: the head alone, on pooled vectors, to its optimum."""

import time
from collections.abc import Sequence
from dataclasses import asdict

import torch

from graftwork.errors import Paused
from graftwork.models.catalog import DepthGroup
from graftwork.models.probe import STRENGTHS, LabelledVectors, Probe, best_probe, fit_probes
from graftwork.models.serving.classifier import Classifier
from graftwork.training.bundle import EpochMetrics
from graftwork.training.loop import Examples, StageContext, StageData, StageProgress, validate
from graftwork.training.memory import peak_bytes
from graftwork.training.stages import Stage


def solve_stage(
    model: Classifier, stage: Stage, _groups: Sequence[DepthGroup], data: StageData, context: StageContext
) -> StageProgress:
    """Give the head the weights of the best probe; its one epoch counts the iterations that they took as steps.

    Nothing is saved on the way: it takes seconds, and is done again after a kill. Raises Paused if asked to stop,
    TrainingError if an optimum is not reached.
    """
    started = time.monotonic()
    balance = "balanced" if stage.class_weights == "balanced" else None
    strengths = STRENGTHS if stage.strength is None else (stage.strength,)
    vectors, outputs = (_vectors(data.train), _vectors(data.validation)), len(model.head[-1].bias)
    probes: list[Probe] = []
    for probe in fit_probes(*vectors, outputs, balance, data.fit, strengths):
        probes.append(probe)
        event = {"event": "step", "stage": stage.name, "step": len(probes), "steps": len(strengths)}
        context.report(event | {"loss": probe.loss, "memory": peak_bytes(context.device)})
        if context.should_stop():
            raise Paused(f"stopped while stage {stage.name!r} was solved: run again to solve it")
    best = best_probe(probes)
    with torch.no_grad():
        model.head[-1].weight.copy_(torch.from_numpy(best.weight))
        model.head[-1].bias.copy_(torch.from_numpy(best.bias))
    loss, accuracy = validate(model, data, context)
    ended = time.monotonic()
    metrics = EpochMetrics(1, best.iterations, best.loss, loss, accuracy, ended - started)
    context.report({"event": "epoch", "stage": stage.name, **asdict(metrics)})
    return StageProgress(
        step=best.iterations,
        epochs=[metrics],
        best_epoch=1,
        seconds=ended - context.began,
        peak_bytes=peak_bytes(context.device),
    )


def _vectors(examples: Examples) -> LabelledVectors:
    rows = torch.cat([torch.as_tensor(row) for row in examples.rows])
    return LabelledVectors(rows.numpy(), examples.labels)
