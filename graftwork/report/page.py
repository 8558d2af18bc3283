"""The report of a run: one HTML file that needs nothing else, the verdict first, then what led to it.

Everything that comes from a recipe, a file or a model is escaped by the template; the page runs no script and loads
nothing. Not here: how a verdict is reached (promotion) or what the figures mean (evaluation).
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftwork.evaluation.metrics import Interval
from graftwork.phrases import duration, peak_rates, trained_groups
from graftwork.report import charts
from graftwork.report.charts import DARK, LIGHT, Palette
from graftwork.report.facts import ReportFacts
from graftwork.targets.catalog import metric_name

if TYPE_CHECKING:
    from jinja2 import Environment

HEADLINES = {
    "promote": "Promoted",
    "keep": "The champion stays",
    "inconclusive": "Not decided yet",
}
DIGEST_CHARACTERS = 12


@dataclass(frozen=True)
class Picture:
    """A picture for light and dark screens as data URIs, and what it shows in words."""

    light: str
    dark: str
    text: str


def render(facts: ReportFacts) -> str:
    """The page as HTML."""
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            facts=facts,
            headline=headline(facts),
            contenders=contenders(facts),
            forest=_forest(facts),
            standing=_standing(facts),
            curves=_curves(facts),
            commands=commands(facts),
            lineage=lineage(facts),
            losses=losses(facts),
        )
    )


def environment() -> "Environment":
    """Jinja with the report's filters; an unknown name in a template is an error, never an empty place."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    templates = Environment(
        loader=PackageLoader("graftwork.report"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "metric": metric_name,
        "duration": duration,
        "percent": percent,
        "points": points,
        "rate": peak_rates,
        "short": short,
        "trained": trained_groups,
    }
    return templates


def headline(facts: ReportFacts) -> str:
    """The outcome in words; a first look that promotes nothing has no champion to keep."""
    if facts.entry is None and facts.verdict.outcome == "promote":
        return "Would be promoted"
    if facts.verdict.outcome == "keep" and "champion" not in facts.evaluation.references:
        return "Not good enough"
    return HEADLINES[facts.verdict.outcome]


def contenders(facts: ReportFacts) -> list[tuple[str, dict[str, Interval]]]:
    """Every model that was measured, the candidate first, then the registered ones, then the baselines."""
    roles: dict[str, list[str]] = {}
    for role, each in facts.evaluation.references.items():
        roles.setdefault(each.name, []).append(role)
    registered = [
        (f"{' and '.join(names)}, {version}", facts.evaluation.references[names[0]].metrics)
        for version, names in roles.items()
    ]
    return [("candidate", facts.evaluation.metrics), *registered, *facts.evaluation.baselines.items()]


def losses(facts: ReportFacts) -> list[str]:
    """The metrics of which less is better, in words."""
    return [metric_name(name) for name, metric in facts.run.plan.target.learning.metrics.items() if metric.is_loss]


def commands(facts: ReportFacts) -> list[tuple[str, str]]:
    """What a person can do next: what it does, and the command."""
    name = facts.bundle.name
    listed = [("Run it again; what is unchanged is reused", facts.command)]
    if facts.version is not None:
        listed += [
            ("Predict a file", f"graftwork predict {name}/{facts.version.version} INPUT.csv -o OUTPUT.csv"),
            ("Serve it over HTTP", f"mlflow models serve --env-manager local -m {facts.version.uri}"),
            ("See who made which version champion, and why", f"graftwork history {name}"),
        ]
    if facts.entry is not None and facts.entry.from_version is not None and facts.entry.alias == "champion":
        listed.append(("Go back to the champion before", f"graftwork rollback {name} --reason REASON"))
    return listed


def lineage(facts: ReportFacts) -> list[tuple[str, str]]:
    """What the model was made from and judged by, each by the digest or the pin that names it."""
    lock, run = facts.run.lock, facts.run
    named = [
        ("run", run.run_id),
        ("recipe", facts.bundle.recipe_digest),
        ("data", run.manifest.digest),
        ("data before it", run.manifest.parent or "none: the first of its line"),
        ("holdout", facts.evaluation.holdout_digest),
        ("start", run.plan.start.sentence),
        ("checkpoint", lock.source),
        ("checkpoint revision", lock.revision or "none stated"),
        ("checkpoint files", lock.digest),
        ("checkpoint licence", lock.licence or "none stated"),
        ("bundle", facts.bundle.digest),
        ("evaluation", facts.evaluation.digest),
        ("policy", facts.verdict.policy),
    ]
    if facts.version is not None:
        named += [("model version", facts.version.uri), ("MLflow run", facts.version.mlflow_run)]
    if facts.entry is not None:
        named.append(("ledger entry", f"{facts.entry.sequence}, {facts.entry.hash}"))
    return named


def _forest(facts: ReportFacts) -> Picture | None:
    compared = facts.verdict.comparisons
    if not compared:
        return None
    words = [
        f"{each.against}, {metric_name(each.metric)}: {each.difference.value:+.4f}, "
        f"between {each.difference.low:+.4f} and {each.difference.high:+.4f}, threshold {each.threshold:+.4f}"
        for each in compared
    ]
    text = "By how much the candidate is better. " + "; ".join(words)
    return _picture(lambda palette: charts.forest(compared, palette), text)


def _standing(facts: ReportFacts) -> Picture:
    metric = facts.run.policy.metric
    shown = [(name, metrics[metric]) for name, metrics in contenders(facts) if metric in metrics]
    words = [f"{name} {each.value:.4f} ({each.low:.4f} to {each.high:.4f})" for name, each in shown]
    text = f"{metric_name(metric)} on the holdout: " + "; ".join(words)
    return _picture(lambda palette: charts.standing(shown, metric, palette), text)


def _curves(facts: ReportFacts) -> Picture:
    stages, score = facts.bundle.stages, facts.run.plan.target.score
    told = f"validation {metric_name(score)}"
    words = [f"stage {s.stage}: {told} {s.best.validation_accuracy:.4f}" for s in stages]
    text = f"Training and validation loss and {told} by optimiser step. " + "; ".join(words)
    return _picture(lambda palette: charts.learning_curves(stages, palette, score), text)


def _picture(draw: Callable[[Palette], bytes], text: str) -> Picture:
    return Picture(_data_uri(draw(LIGHT)), _data_uri(draw(DARK)), text)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def percent(share: float) -> str:
    """A share of one, in percent."""
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """A signed difference of a metric."""
    return f"{difference:+.4f}".replace("-", "−")


def short(digest: str) -> str:
    """The first characters of a digest; anything else as it is."""
    return digest[:DIGEST_CHARACTERS] if len(digest) == 64 and digest.isalnum() else digest
