"""RESULTS.md: every figure beside its peer's and its goal, made from the cells alone, machine by machine."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from benchmarks.cells import DISTURBED, Cell, Measurement, Results, all_results
from benchmarks.comparison import Spread, accuracy, accuracy_difference
from benchmarks.experiments import (
    COMMANDS,
    GPU,
    PIPELINE,
    PREDICTION,
    QUICK_PREDICTION,
    QUICK_RUN,
    RETRAINING,
    RUN,
    SEARCHED,
    STEPS,
    TRAINER,
    TRAINER_GPU,
    TRAINER_STEPS,
    best_searched,
)
from graftwork.evaluation.metrics import Interval
from graftwork.evaluation.predictions import probabilities_of
from graftwork.phrases import duration

MARGIN = 0.01  # of accuracy: a training that is worse by less counts as no worse
NOTHING = "–"
HEAD = """# Results

Written by `make bench` from [results](results); [README.md](README.md) says how each figure is measured. Ours and the
peer's are medians over seeds or rounds; a ratio is the geometric mean over pairs, least and greatest in brackets.
"""
COLUMNS = ("figure", "peer", "ours", "ours / peer", "goal", "reached", "`python -m benchmarks`", "commit", "date")


@dataclass(frozen=True)
class Goal:
    """What a figure is to reach, and what it aims at. is_ceiling: less is better."""

    bound: float
    aim: float | None = None
    is_ceiling: bool = True
    unit: str = ""

    def __str__(self) -> str:
        aim = "" if self.aim is None else f", aim {self.aim:.3g}{self.unit}"
        return f"{'≤' if self.is_ceiling else '≥'} {self.bound:.3g}{self.unit}{aim}"

    def verdict(self, value: float) -> str:
        if self.aim is not None and self._is_met(value, self.aim):
            return "yes, and the aim"
        return "yes" if self._is_met(value, self.bound) else "no"

    def _is_met(self, value: float, bound: float) -> bool:
        return value <= bound if self.is_ceiling else value >= bound


@dataclass(frozen=True)
class Figure:
    """A line of the table. cells: what it was made of; without any, it is not measured."""

    title: str
    goal: Goal | None = None
    peer: str = NOTHING
    ours: str = NOTHING
    ratio: str = NOTHING
    verdict: str = "not measured"
    cells: tuple[Measurement, ...] = ()

    def as_line(self) -> str:
        experiments = sorted({cell.cell.arm.partition("/")[0] for cell in self.cells})
        commits = sorted({cell.commit for cell in self.cells})
        dates = sorted({cell.measured_at for cell in self.cells})
        return _line(
            self.title,
            self.peer,
            self.ours,
            self.ratio,
            NOTHING if self.goal is None else str(self.goal),
            self.verdict,
            " ".join(f"`--only {name}`" for name in experiments) or NOTHING,
            ", ".join(commits) or NOTHING,
            " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else NOTHING,
        )


@dataclass(frozen=True)
class Pairs:
    """Cells of two arms under the same seeds, ours and the peer's."""

    ours: tuple[Measurement, ...]
    peers: tuple[Measurement, ...]

    @classmethod
    def of(cls, results: Results, ours: str, peer: str) -> "Pairs":
        found = results.read()
        seeds = [cell.seed for cell in sorted(found) if cell.arm == ours and Cell(peer, cell.seed) in found]
        return cls(*(tuple(found[Cell(arm, seed)] for seed in seeds) for arm in (ours, peer)))

    def figure(
        self, title: str, goal: Goal | None, value: Callable[[Measurement], float], show: Callable[[float], str]
    ) -> Figure:
        """Both medians, and the ratio against the goal."""
        if not self.ours:
            return Figure(title, goal)
        ours, peers = [value(cell) for cell in self.ours], [value(cell) for cell in self.peers]
        ratio = Spread.of_ratios(ours, peers)
        verdict = NOTHING if goal is None else goal.verdict(ratio.middle)
        cells = self.ours + self.peers
        return Figure(title, goal, show(median(peers)), show(median(ours)), _spread(ratio), verdict, cells)


def write_report(folder: Path, report: Path) -> None:
    """The report of all results below `folder`, a section for each machine."""
    every = list(all_results(folder))
    sections = [HEAD, *_accuracy_of_all(every), *map(_section, every)]
    report.write_text("\n".join(sections), encoding="utf-8")


def _accuracy_of_all(every: Sequence[Results]) -> Iterator[str]:
    """What trainings on several machines say together of the accuracy beside the plain Trainer's."""
    pairs = [(results, Pairs.of(results, RUN, TRAINER)) for results in every]
    machines = [results for results, found in pairs if found.ours]
    if len(machines) < 2:
        return
    ours, peers = (
        [results.predictions(each.cell) for results, found in pairs for each in side(found)]
        for side in (lambda found: found.ours, lambda found: found.peers)
    )
    difference, rows = accuracy_difference(ours, peers), sum(map(len, ours))
    trainings = f"{rows:,} paired predictions of {len(ours)} trainings on {len(machines)} machines"
    yield f"Accuracy of ours less the plain Trainer's: {_points(difference)} over {trainings}.\n"


def _section(results: Results) -> str:
    found = results.read()
    newest = max(found.values(), key=lambda measurement: measurement.measured_at)
    libraries = ", ".join(f"{name} {version}" for name, version in newest.libraries.items())
    lines = [
        f"## {newest.machine}\n",
        f"{libraries}.\n",
        _line(*COLUMNS),
        _line(*("---" for _ in COLUMNS)),
        *(figure.as_line() for figure in figures(results)),
        "",
        *_trainings(results),
        *_steps(results),
        *_agreement(results),
        *_disturbances(results),
    ]
    return "\n".join(lines)


def figures(results: Results) -> Iterator[Figure]:
    """Every line of the table, measured or not."""
    found = results.read()
    plain = Pairs.of(results, RUN, TRAINER)
    yield _time_to_accuracy(results, RUN, TRAINER, "time to the plain Trainer's accuracy", Goal(1 / 4, 1 / 8))
    tuned = best_searched(tuple(SEARCHED), found)
    title, goal = "time to the tuned Trainer's accuracy", Goal(1 / 2.5, 1 / 4)
    yield Figure(title, goal) if tuned is None else _time_to_accuracy(results, QUICK_RUN, tuned, title, goal)
    steps = Pairs.of(results, STEPS, TRAINER_STEPS)
    yield steps.figure("rows a second, full fine-tuning", Goal(1.75, 2, is_ceiling=False), _rate, "{:.1f}".format)
    yield _share_of_gemm(steps)
    yield from _retraining([each for each in found.values() if each.cell.arm == RETRAINING])
    yield _saving(plain.ours)
    yield plain.figure("peak memory, the recipe", Goal(1), _peak, "{:,.0f} MiB".format)
    yield steps.figure("peak memory, full fine-tuning", Goal(1), _peak, "{:,.0f} MiB".format)
    predicted = Pairs.of(results, PREDICTION, PIPELINE)
    quickly = Pairs.of(results, QUICK_PREDICTION, PIPELINE)
    title, goal = "rows a second, batch prediction", Goal(3, is_ceiling=False)
    yield predicted.figure(title, goal, _rate, "{:.0f}".format)
    yield quickly.figure(f"{title}, `--precision auto`", goal, _rate, "{:.0f}".format)
    yield from _commands(found.get(Cell(COMMANDS, 1)))
    gpu = Pairs.of(results, GPU, TRAINER_GPU)
    yield gpu.figure("rows a second on a GPU, BERT-base's shape", Goal(2, is_ceiling=False), _rate, "{:,.0f}".format)
    share = gpu.figure("share of the measured bfloat16 GEMM rate on a GPU", None, _gemm_share, "{:.2f}".format)
    yield share


def _time_to_accuracy(results: Results, ours: str, peer: str, title: str, goal: Goal) -> Figure:
    """Reached only if accuracy is, with confidence, not lower by more than the margin."""
    pairs = Pairs.of(results, ours, peer)
    figure = pairs.figure(title, goal, _seconds, duration)
    if not pairs.ours:
        return figure
    difference, rows = _difference(results, pairs)
    said = f"accuracy {_points(difference)} over {rows:,} paired predictions"
    verdict = figure.verdict if difference.low > -MARGIN else f"no: not shown to be within {100 * MARGIN:.0f} point"
    return replace(figure, verdict=f"{verdict}; {said}")


def _difference(results: Results, pairs: Pairs) -> tuple[Interval, int]:
    """The difference in accuracy, and of how many pairs of predictions it is."""
    ours, peers = ([results.predictions(each.cell) for each in side] for side in (pairs.ours, pairs.peers))
    return accuracy_difference(ours, peers), sum(map(len, ours))


def _share_of_gemm(steps: Pairs) -> Figure:
    """Against the goal stands our share itself, not the ratio."""
    goal = Goal(0.6, 0.75, is_ceiling=False)
    figure = steps.figure("share of the measured GEMM rate, full fine-tuning", goal, _gemm_share, "{:.2f}".format)
    if not steps.ours:
        return figure
    return replace(figure, verdict=goal.verdict(median(map(_gemm_share, steps.ours))))


def _saving(runs: Sequence[Measurement]) -> Figure:
    goal = Goal(2, unit=" %")
    title = "saving state, share of the training time"
    if not runs:
        return Figure(title, goal)
    shares = [100 * run.values["saving_s"] / run.values["seconds"] for run in runs]
    shown = f"{median(shares):.1f} % ({min(shares):.1f} to {max(shares):.1f})"
    return Figure(title, goal, ours=shown, verdict=goal.verdict(max(shares)), cells=tuple(runs))


def _retraining(runs: Sequence[Measurement]) -> Iterator[Figure]:
    """A landing against all from scratch in time, and all landings, one after the other, in accuracy."""
    time, lost = (
        "retraining after 5 % new rows, against from scratch",
        "accuracy after ten landings, against from scratch",
    )
    cost, loss = Goal(1 / 10, 1 / 20), Goal(0.5, unit=" points less")
    if not runs:
        yield from (Figure(time, cost), Figure(lost, loss))
        return
    landings, scratch = [median(run.values["landings_s"]) for run in runs], [run.values["scratch_s"] for run in runs]
    ratio = Spread.of_ratios(landings, scratch)
    medians = duration(median(scratch)), duration(median(landings))
    yield Figure(time, cost, *medians, _spread(ratio), cost.verdict(ratio.middle), tuple(runs))
    judged, gained, missed = (sum(run.values[name] for run in runs) for name in ("judged", "only_warm", "only_scratch"))
    warm, fresh = (
        sum(run.values[name] * run.values["judged"] for run in runs) / judged
        for name in ("warm_accuracy", "scratch_accuracy")
    )
    error = math.sqrt(gained + missed - (gained - missed) ** 2 / judged) / judged
    difference = f"{100 * (warm - fresh):+.1f} points, standard error {100 * error:.1f}"
    verdict = loss.verdict(100 * (fresh - warm))
    yield Figure(lost, loss, f"{fresh:.3f}", f"{warm:.3f}", difference, verdict, tuple(runs))


def _commands(measured: Measurement | None) -> Iterator[Figure]:
    """The whole run against four minutes; commands as they are."""
    whole = "`graftwork run` of the demo, first time"
    titles = {
        "help_s": "`graftwork --help`",
        "plan_s": "`graftwork plan`",
        "unchanged_s": "`graftwork run`, nothing changed",
    }
    goal = Goal(240, unit=" s")
    if measured is None:
        yield from (Figure(whole, goal), *map(Figure, titles.values()))
        return
    seconds = measured.values["run_s"]
    yield Figure(whole, goal, ours=f"{seconds:.0f} s", verdict=goal.verdict(seconds), cells=(measured,))
    for name, title in titles.items():
        spread = measured.values[name]
        shown = f"{median(spread):.2f} s ({min(spread):.2f} to {max(spread):.2f})"
        yield Figure(title, ours=shown, verdict=NOTHING, cells=(measured,))


def _trainings(results: Results) -> Iterator[str]:
    """Every training arm: time, accuracy and memory; and what the search for a rate cost."""
    found = results.read()
    arms = sorted({cell.arm for cell in found if cell.arm.startswith("training/")})
    if not arms:
        return
    yield "### Trainings\n"
    yield _line("arm", "seeds", "precision", "time", "accuracy", "peak memory")
    yield _line(*["---"] * 6)
    for arm in arms:
        cells = [found[cell] for cell in sorted(found) if cell.arm == arm]
        accuracies = [accuracy(results.predictions(each.cell)) for each in cells]
        seconds = [_seconds(each) for each in cells]
        yield _line(
            arm.partition("/")[2],
            str(len(cells)),
            cells[0].precision,
            f"{duration(median(seconds))} ({duration(min(seconds))} to {duration(max(seconds))})",
            f"{sum(accuracies) / len(cells):.4f} ({min(accuracies):.4f} to {max(accuracies):.4f})",
            f"{median(map(_peak, cells)):,.0f} MiB",
        )
    yield ""
    best = best_searched(tuple(SEARCHED), found)
    if best is not None:
        cost = duration(sum(_seconds(found[Cell(arm, 1)]) for arm in SEARCHED))
        yield f"The search for the tuned Trainer's rate took {cost} and is in no other figure; it chose {best}.\n"


def _steps(results: Results) -> Iterator[str]:
    """What a step was in each throughput arm."""
    found = results.read()
    arms = [arm for arm in (TRAINER_STEPS, STEPS, TRAINER_GPU, GPU) if Cell(arm, 1) in found]
    if not arms:
        return
    yield "### Steps\n"
    yield _line("arm", "precision", "rows a step", "tokens a row", "padding", "ms a step", "GEMM rate, GFLOP/s")
    yield _line(*["---"] * 7)
    for arm in arms:
        cells = [found[cell] for cell in sorted(found) if cell.arm == arm]
        values = {name: median(each.values[name] for each in cells) for name in cells[0].values}
        yield _line(
            arm,
            cells[0].precision,
            f"{values['rows'] / values['steps']:.1f}",
            f"{values['tokens'] / values['rows']:.1f}",
            _percent(1 - values["tokens"] / values["positions"]),
            f"{1000 * values['seconds'] / values['steps']:.0f}",
            f"{values['gemm_flops_per_s'] / 1e9:,.0f}",
        )
    yield ""


def _agreement(results: Results) -> Iterator[str]:
    """How far ours and the pipeline predict the same."""
    pairs = Pairs.of(results, PREDICTION, PIPELINE)
    if not pairs.ours:
        return
    ours, peers = (probabilities_of(results.predictions(side[0].cell)) for side in (pairs.ours, pairs.peers))
    same = _percent((ours.argmax(axis=1) == peers.argmax(axis=1)).mean(), 2)
    yield "### Batch prediction\n"
    furthest = abs(ours - peers).max()
    yield f"The same class for {same} of {len(ours):,} rows; no probability differs by more than {furthest:.4f}.\n"


def _disturbances(results: Results) -> Iterator[str]:
    """Cells whose times say something of other processes, too."""
    disturbed = [each for each in results.read().values() if each.usage.is_disturbed]
    if disturbed:
        shares = ", ".join(f"{each.cell} ({_percent(each.usage.others)})" for each in disturbed)
        yield f"Other processes used more than {_percent(DISTURBED)} of the machine during: {shares}.\n"


def _seconds(measurement: Measurement) -> float:
    return measurement.values["seconds"]


def _peak(measurement: Measurement) -> float:
    return measurement.values["peak_mib"]


def _rate(measurement: Measurement) -> float:
    return measurement.values["rows"] / measurement.values["seconds"]


def _gemm_share(measurement: Measurement) -> float:
    values = measurement.values
    return values["flops"] / values["seconds"] / values["gemm_flops_per_s"]


def _spread(spread: Spread) -> str:
    return f"{spread.middle:.2f} ({spread.least:.2f} to {spread.greatest:.2f})"


def _points(interval: Interval) -> str:
    return f"{100 * interval.value:+.1f} points ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
