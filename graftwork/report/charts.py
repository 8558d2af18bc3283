"""The report's pictures, as PNG bytes: Matplotlib's object interface, no global state, no display."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftwork.evaluation.comparison import Comparison
from graftwork.evaluation.metrics import Interval
from graftwork.targets.catalog import metric_name
from graftwork.training.bundle import StageResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN, DPI = 8.0, 144
ROW_IN = 0.42


@dataclass(frozen=True)
class Palette:
    """Colours of a picture: what it is about, what stands beside it, text, and lines that only help the eye."""

    accent: str
    other: str
    text: str
    faint: str
    paper: str


LIGHT = Palette(accent="#0f766e", other="#8a8f98", text="#33383f", faint="#dcdfe3", paper="#ffffff")
DARK = Palette(accent="#5eead4", other="#8b929c", text="#c9ced6", faint="#343a43", paper="#16191d")


def forest(comparisons: Sequence[Comparison], palette: Palette) -> bytes:
    """Each comparison's paired difference with its bounds, and the threshold that its lower bound has to clear."""
    labels = [f"{each.against}, {metric_name(each.metric)}" for each in comparisons]
    figure, axes = _rows(labels, palette)
    for place, each in enumerate(comparisons):
        _interval(axes, place, each.difference, palette.accent)
        axes.plot([each.threshold] * 2, [place - 0.4, place + 0.4], color=palette.text, lw=1.4, ls=(0, (3, 2)))
    axes.set_xlabel("candidate better by (bars: one-sided bounds, dashes: threshold)")
    return _png(figure)


def standing(metrics: Sequence[tuple[str, Interval]], metric: str, palette: Palette) -> bytes:
    """One metric of several models with its intervals; the first is the candidate."""
    figure, axes = _rows([name for name, _ in metrics], palette)
    for place, (_, interval) in enumerate(metrics):
        _interval(axes, place, interval, palette.other if place else palette.accent)
    axes.axvline(metrics[0][1].value, color=palette.accent, lw=0.8, alpha=0.5)
    axes.set_xlabel(metric_name(metric))
    return _png(figure)


def learning_curves(stages: Sequence[StageResult], palette: Palette, score: str = "accuracy") -> bytes:
    """Losses and the score on validation over the optimiser steps of all stages, one after the other."""
    figure = _figure(3.2, palette)
    losses, accuracies = figure.subplots(1, 2)
    start = 0
    for number, result in enumerate(stages):
        first = number == 0
        steps = [start + step.step for step in result.steps]
        ends = [start + epoch.step for epoch in result.epochs]
        losses.plot(
            steps, [s.loss for s in result.steps], color=palette.other, lw=1, label="training" if first else None
        )
        validation = [epoch.validation_loss for epoch in result.epochs]
        losses.plot(ends, validation, color=palette.accent, marker="o", ms=4, label="validation" if first else None)
        accuracy = [epoch.validation_accuracy for epoch in result.epochs]
        accuracies.plot(ends, accuracy, color=palette.accent, marker="o", ms=4)
        accuracies.plot(
            ends[result.best_epoch - 1], result.best.validation_accuracy, "o", ms=9, mfc="none", mec=palette.accent
        )
        end = max(steps + ends)
        for axes in (losses, accuracies):
            _name_stage(axes, result.stage, start, palette, is_first=first)
        start = end
    losses.set_ylabel("loss")
    losses.legend(frameon=False, labelcolor=palette.text, loc="upper right", fontsize=8.5)
    accuracies.set_ylabel(f"validation {metric_name(score)} (ring: kept)")
    for axes in (losses, accuracies):
        axes.set_xlim(0, start * 1.02)
        axes.set_xlabel("optimiser step")
        _dress(axes, palette)
    return _png(figure)


def _name_stage(axes: "Axes", name: str, start: int, palette: Palette, *, is_first: bool) -> None:
    if not is_first:
        axes.axvline(start, color=palette.faint, lw=1)
    axes.annotate(
        name,
        (start, 1),
        xycoords=("data", "axes fraction"),
        xytext=(3, 4),
        textcoords="offset points",
        color=palette.other,
        fontsize=8.5,
        annotation_clip=False,
    )


def _rows(labels: Sequence[str], palette: Palette) -> "tuple[Figure, Axes]":
    """An empty plot with a named row for each label, the first on top."""
    figure = _figure(0.75 + ROW_IN * len(labels), palette)
    axes = figure.subplots()
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    _dress(axes, palette)
    axes.grid(visible=True, axis="x", color=palette.faint, lw=0.8)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure, axes


def _interval(axes: "Axes", place: int, interval: Interval, color: str) -> None:
    axes.plot([interval.low, interval.high], [place, place], color=color, lw=2.2, solid_capstyle="butt")
    axes.plot(interval.value, place, "o", color=color, ms=6.5)


def _figure(height: float, palette: Palette) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH_IN, height), dpi=DPI, facecolor=palette.paper, layout="constrained")


def _dress(axes: "Axes", palette: Palette) -> None:
    axes.set_facecolor(palette.paper)
    axes.set_axisbelow(True)
    axes.tick_params(colors=palette.text, labelsize=9, color=palette.faint)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(palette.faint)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=palette.text, fontsize=9)


def _png(figure: "Figure") -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    return picture.getvalue()
