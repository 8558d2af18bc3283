"""Tables for the terminal."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.progress import Progress
from rich.table import Column, Table
from rich.text import Text

from graftwork.data.quarantine import QUARANTINE
from graftwork.evaluation.metrics import Interval
from graftwork.phrases import duration, memory, peak_rates, trained_groups
from graftwork.promotion.history import LedgerEntry
from graftwork.targets.catalog import CLASSIFICATION, TARGETS, metric_name

if TYPE_CHECKING:
    from flows.summary import RunSummary
    from graftwork.api import PlannedRun
    from graftwork.choice import Candidate, Choice
    from graftwork.data.manifest import DatasetManifest
    from graftwork.health import Finding
    from graftwork.models.catalog import FamilyFacts
    from graftwork.registry.approvals import Approval
    from graftwork.registry.versions import ListedVersion
    from graftwork.retention import Leftover
    from graftwork.settings import Settings
    from graftwork.training.estimate import Estimate
    from graftwork.training.plan import TrainingPlan
    from graftwork.training.stages import Stage

VERDICT_STYLE = {"promote": "bold green", "keep": "bold yellow", "inconclusive": "bold blue"}
SHOWN = dict.fromkeys(name for target in TARGETS.values() for name in target.shown)  # in their order
STATE_STYLE = {"good": "green", "note": "yellow", "bad": "bold red"}
MISSING = "–"
PIPED_WIDTH = 110


@contextmanager
def progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, where that is a terminal, and the function that moves it: done, total."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show(*parts: RenderableType) -> None:
    """Print on standard output: tables fitted to the terminal, lines of text left whole, so paths can be copied."""
    console = Console(markup=False)  # a reason or a path may hold square brackets
    if not console.is_terminal:
        console = Console(width=PIPED_WIDTH, markup=False)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str | Text))


def plan_lines(planned: "PlannedRun", settings: "Settings") -> list[RenderableType]:
    """What a run would do, and what of it is there already."""
    plan, is_stored = planned.plan, planned.is_stored
    stages = _table("stage", "trains", "computed once", "parameters", "epochs", "peak rates", "state")
    for stage in plan.stages:
        stages.add_row(
            stage.name,
            trained_groups(stage.rates),
            _computed_once(stage),
            f"{stage.trainable:,} of {sum(group.parameters for group in stage.groups_of(plan.groups)):,}",
            str(stage.epochs),
            peak_rates(stage.rates),
            "reused" if is_stored[stage.name] else "to be trained",
        )
    about = (
        f"checkpoint  {planned.lock.source}  {planned.lock.architecture}, {planned.lock.licence}, "
        f"{how_read(plan)}, {plan.precision}"
    )
    start = f"start       {plan.start.sentence}"
    options = [Text(f"stage {stage.name}: {said}") for stage in plan.stages if (said := ", ".join(_options(stage)))]
    estimate = [] if planned.estimate is None else _estimate_lines(planned.estimate, plan, settings)
    return [
        _data_table(planned.manifest),
        *_set_aside(planned.manifest, settings),
        Text(about),
        Text(start),
        stages,
        *options,
        *estimate,
    ]


def how_read(plan: "TrainingPlan") -> str:
    """What the head is given of a row: pooled states, those of its words, or what a writer goes on from."""
    if plan.target.is_by_word:
        return "a state a word"
    return f"{plan.writes} tokens written at most" if plan.target.is_text else f"{plan.pooling} pooling"


PAIR_HEADS = {
    "checkpoint": "the checkpoint's own head",
    "pooler": "the checkpoint's pooler, with a new layer above it,",
    "new": "a new head",
}


def _told(stage: "Stage") -> Iterator[str]:
    """What of a checkpoint, beside its body, a stage without labels goes on with, or lacks."""
    if stage.sentences:
        yield f"{PAIR_HEADS[stage.sentences]} tells whether one part of a text follows another"
    if stage.hiding and stage.span:
        yield f"the checkpoint's decoder tells {stage.hiding.share:.0%} of all tokens, in spans of {stage.span:g}"


def _options(stage: "Stage") -> Iterator[str]:
    """What a stage does that not every stage does."""
    if stage.head_start != "keep":
        yield "a fresh head" if stage.head_start == "fresh" else f"the head's logits scaled by {stage.head_start:g}"
    yield from _told(stage)
    if stage.adapters:
        kind = "DoRA" if stage.adapters.dora else "LoRA"
        yield f"{kind} of rank {stage.adapters.rank} beside {len(stage.adapters.layers)} layers"
    yield from (f"{name.replace('_', ' ')} {strength:g}" for name, strength in stage.augment.items())
    if stage.accumulate > 1:
        yield f"{stage.accumulate} batches a step"
    if stage.l2_sp:
        yield f"L2-SP {stage.l2_sp:g}"
    if stage.ewc:
        yield f"EWC {stage.ewc:g}"
    if stage.distil:
        yield f"learns from a teacher ({stage.distil.weight:g} of its loss)"
    if stage.average:
        yield f"averaged weights (EMA {stage.average.ema:g})"
    if stage.schedule == "one-cycle":
        yield "one-cycle rates"


def choice_lines(choice: "Choice") -> Iterator[RenderableType]:
    """Candidates, the most accurate first, what the numbers stand for, and what can't be used."""
    names = ("accuracy", "log-loss", "first is better by", "ms a row", "parameters", "size", "max tokens", "licence")
    table = _table("#", *names)
    for number, candidate in enumerate(choice.candidates, start=1):
        table.add_row(
            str(number),
            _interval(candidate.accuracy),
            f"{candidate.log_loss.value:.3f}",
            _lead(candidate),
            f"{candidate.row_ms:.2f}",
            f"{candidate.parameters:,}",
            f"{candidate.size_bytes / 1e6:.0f} MB",
            str(candidate.max_tokens or "any"),
            candidate.licence,
        )
    yield table
    for number, candidate in enumerate(choice.candidates, start=1):
        yield Text(f"{number}  {candidate.source}")
    for refused in choice.refused:
        yield Text(f"{MISSING}  {refused.problem}")
    yield Text("probes of {train:,} training rows, judged on {validation:,} validation rows".format(**choice.rows))


def run_lines(summary: "RunSummary", settings: "Settings") -> list[RenderableType]:
    """The end of a run: data, stages, metrics beside the baselines, verdict, version, and where to look further."""
    verdict = summary.verdict
    parts: list[RenderableType] = [
        _data_table(summary.run.manifest),
        *_set_aside(summary.run.manifest, settings),
        _stage_table(summary),
        _metrics_table(summary),
        Text.assemble("verdict  ", (verdict.outcome, VERDICT_STYLE[verdict.outcome]), f"  {verdict.reason}"),
    ]
    if summary.version is None or summary.entry is None:
        return [*parts, Text(f"a try on {summary.run.manifest.counts.kept:,} rows: not registered, not promoted")]
    version = f"{summary.version.name} {summary.version.version}"
    by_hand = f"graftwork promote {summary.version.name} {summary.version.version} --reason …"
    return [
        *parts,
        Text.assemble("version  ", (version, "bold"), f"  {summary.entry.alias}"),
        *([] if verdict.outcome == "promote" else [Text(f"         not promoted; a person may: {by_hand}")]),
        Text(f"report   {summary.report}"),
        *_pages(settings),
    ]


def models_table(versions: "Sequence[ListedVersion]", model: str | None = None) -> RenderableType:
    """Versions, newest first, with their aliases and figures. model: the one that was asked for."""
    if not versions and model is not None:
        return Text(f"there is no model {model!r}: `graftwork models` lists those that there are")
    if not versions:
        return Text("no model is registered yet: `graftwork run RECIPE` makes one")
    measured = {name for listed in versions for name in listed.metrics}
    shown = [name for name in SHOWN if name in measured] or CLASSIFICATION.shown
    table = _table("model", "version", "alias", "verdict", *shown, "created")
    for listed in versions:
        found = (listed.metrics.get(name) for name in shown)
        table.add_row(
            listed.version.name,
            str(listed.version.version),
            ", ".join(listed.aliases),
            listed.tags.get("graftwork.verdict", MISSING),
            *(MISSING if value is None else f"{value:.3f}" for value in found),
            _minute(listed.version.created_at),
        )
    return table


def history_table(entries: Sequence[LedgerEntry]) -> RenderableType:
    """The ledger, oldest entry first."""
    if not entries:
        return Text("the ledger has no entry for this model")
    table = _table("#", "when", "from", "to", "rule", "by", "reason")
    for entry in entries:
        before = MISSING if entry.from_version is None else str(entry.from_version)
        table.add_row(
            str(entry.sequence),
            _minute(entry.created_at),
            before,
            str(entry.to_version),
            entry.rule,
            entry.actor,
            entry.reason,
        )
    return table


def approvals_table(approvals: "Sequence[Approval]") -> RenderableType:
    """What was asked to be approved, oldest first."""
    if not approvals:
        return Text("nothing of this model was asked to be approved")
    table = _table("version", "request", "asked", "until", "approvers", "state", "by", "reason")
    for each in approvals:
        request, decision = each.request, each.decision
        allowed = [name for name in request.approvers if name != request.author]
        table.add_row(
            str(request.nomination.version),
            request.digest[:12],
            _minute(request.requested_at),
            _minute(request.expires_at),
            ", ".join(allowed),
            each.state,
            decision.approver if decision else MISSING,
            decision.reason if decision else request.nomination.reason,
        )
    return table


def leftovers_table(leftovers: "Sequence[Leftover]", is_removed: bool) -> RenderableType:
    """What nothing needs, the largest first, and how much it is in all."""
    table = _table("kind", "name", "size")
    for each in leftovers:
        kind, _, name = each.key.partition("/")
        table.add_row(kind, name[:12], memory(each.size))
    total = memory(sum(each.size for each in leftovers))
    told = f"{len(leftovers)} removed, {total}" if is_removed else f"{len(leftovers)}, {total}: --remove removes them"
    return Group(table, Text(told)) if leftovers else Text("everything is needed")


def findings_table(findings: "Sequence[Finding]") -> RenderableType:
    """What was looked at, and what was seen."""
    table = _table("", "what", "seen", "to do")
    for each in findings:
        table.add_row(Text(each.state, STATE_STYLE[each.state]), each.what, each.told, each.hint)
    return table


def _lead(candidate: "Candidate") -> str:
    """By how many points of accuracy the first is better, least and most, where that can be told."""
    if candidate.best_against is None:
        return ""
    if not candidate.is_distinguishable:
        return "not distinguishable"
    by = candidate.best_against.difference
    return f"{100 * by.low:.1f}–{100 * by.high:.1f} points"


def _estimate_lines(estimate: "Estimate", plan: "TrainingPlan", settings: "Settings") -> Iterator[RenderableType]:
    """What each stage will take, and whether it fits; if not, what would."""
    table = _table("estimate", "steps", "a step", "rows computed once", "in", "time", "memory")
    for stage in estimate.stages:
        computed = (f"{stage.rows:,}", duration(stage.prefix_seconds)) if stage.rows else ("", "")
        cells = (f"{stage.steps:,}", f"{stage.step_seconds * 1000:.0f} ms", *computed)
        table.add_row(stage.stage, *cells, duration(stage.seconds), memory(stage.peak_bytes))
    if len(estimate.stages) > 1:
        table.add_row("all", *[""] * 4, duration(estimate.seconds), memory(estimate.peak_bytes), style="bold")
    if estimate.stages:
        yield table
    if any(stage.patience for stage in plan.stages):
        yield Text("every epoch is counted; patience may end a stage before")
    if settings.processes != 1:
        yield Text("measured in one process: several, as GRAFTWORK_PROCESSES asks for, share the steps")
    free = memory(estimate.free_bytes)
    if estimate.fits:
        yield Text(f"it fits: {free} are free")
        return
    needed = max((stage.needed_bytes for stage in estimate.stages), default=0)
    why = f"{memory(needed)} are needed" if needed > estimate.free_bytes else "it ran out of memory"
    yield Text(f"it does not fit: {why}, {free} are free", style="bold red")
    proposal = estimate.proposal
    if proposal is None:
        yield Text("nothing smaller that was tried does: take a smaller checkpoint, shorter texts, or another machine")
        return
    changes = " ".join(f"--set {shlex.quote(override)}" for override in proposal.overrides)
    yield Text(f"this does: {changes}  ({duration(proposal.seconds)}, {memory(proposal.peak_bytes)})")


def _data_table(manifest: "DatasetManifest") -> Table:
    table = _table("data", "read", "kept", "quarantined", "duplicates", *manifest.sides)
    for name, files in groupby(manifest.sources, key=lambda file: file.source):
        counts = [file.counts for file in files]
        table.add_row(
            name,
            *(f"{sum(getattr(c, key) for c in counts):,}" for key in ("read", "kept", "quarantined", "duplicates")),
        )
    total = manifest.counts
    sides = (f"{rows:,}" for rows in manifest.side_rows.values())
    cells = (f"{count:,}" for count in (total.read, total.kept, total.quarantined, total.duplicates))
    table.add_row("all", *cells, *sides, style="bold")
    for each in manifest.auxiliary:
        found = each.counts
        cells = (f"{count:,}" for count in (found.read, found.kept, found.quarantined, found.duplicates))
        table.add_row(f"{each.name}, beside", *cells, f"{found.kept:,}")
    return table


def _set_aside(manifest: "DatasetManifest", settings: "Settings") -> Iterator[Text]:
    """Where rows that were set aside stand, with their reasons."""
    for each in manifest.auxiliary:
        if each.withheld:
            yield Text(f"{each.name}: rows not learnt from, since they belong to such as are judged: {each.withheld:,}")
    if manifest.counts.quarantined or any(each.counts.quarantined for each in manifest.auxiliary):
        yield Text(f"set aside: {settings.store_root / manifest.key / QUARANTINE}")


def _computed_once(stage: "Stage") -> str:
    if stage.augment:
        return "nothing: augmented"
    if stage.is_pooled:
        return "pooled vectors"
    if stage.cut:
        return f"{stage.cut} lowest blocks, {memory(stage.kept_bytes)} at most"
    return f"nothing: {memory(stage.kept_bytes)} at most, over the budget" if stage.kept_bytes else ""


def _stage_table(summary: "RunSummary") -> Table:
    estimated = summary.estimated
    beside, score = ("estimated",) if estimated else (), summary.run.plan.target.score
    table = _table(
        "stage", "trained", "epochs", "time", *beside, "memory", *beside, "val. loss", f"val. {metric_name(score)}"
    )
    for stage, result in zip(summary.run.plan.stages, summary.bundle.stages, strict=True):
        best, before = result.best, estimated.get(stage.key)
        costs = [duration(result.seconds), memory(result.peak_bytes)]
        if estimated:
            told = [duration(before.seconds), memory(before.peak_bytes)] if before else [MISSING] * 2
            costs = [cost for pair in zip(costs, told, strict=True) for cost in pair]
        table.add_row(
            stage.name,
            trained_groups(stage.rates),
            f"{len(result.epochs)}, best {result.best_epoch}",
            *costs,
            f"{best.validation_loss:.3f}",
            f"{best.validation_accuracy:.3f}",
        )
    return table


def _metrics_table(summary: "RunSummary") -> Table:
    """The candidate's row, then the references', then the baselines'."""
    evaluation = summary.evaluation
    rivals = {f"{name} ({each.name})": each.metrics for name, each in evaluation.references.items()}
    shown = TARGETS[evaluation.target].shown
    table = _table(f"{evaluation.rows:,} holdout rows", *shown)
    for name, metrics in {"candidate": evaluation.metrics, **rivals, **evaluation.baselines}.items():
        cells = (_interval(metrics[metric]) for metric in shown)
        table.add_row(name, *cells, style="bold" if name == "candidate" else "")
    return table


def _pages(settings: "Settings") -> Iterator[Text]:
    """The commands that open the servers' pages on the embedded databases."""
    if settings.is_prefect_embedded:
        yield Text(f"Prefect  PREFECT_HOME={settings.home / 'prefect'} prefect server start")
    if settings.is_mlflow_embedded:
        yield Text(f"MLflow   mlflow server --backend-store-uri {settings.mlflow_uri}")


def families_table(families: "Sequence[FamilyFacts]") -> Table:
    """Every architecture, one a line."""
    architecture = Column("model_type", no_wrap=True)
    folded = (Column(name, overflow="fold") for name in ("attention", "without labels"))
    table = Table(architecture, "known as", "depth groups", "pooling", *folded, box=None, header_style="dim")
    for family in families:
        groups, objectives = ", ".join(family.depth_groups), ", ".join(family.objectives)
        table.add_row(family.architecture, family.known_as, groups, family.pooling, family.attention_layers, objectives)
    return table


def _minute(moment: str) -> str:
    """An ISO 8601 time in UTC, to the minute."""
    return moment[:16].replace("T", " ")


def _interval(interval: Interval) -> str:
    return f"{interval.value:.3f} {interval.low:.3f}–{interval.high:.3f}"


def _table(first: str, *others: str) -> Table:
    table = Table(first, box=None, pad_edge=False, header_style="dim")
    for name in others:
        table.add_column(name, justify="left" if name in {"trains", "trained", "reason", "rule", "by"} else "right")
    return table
