"""A verdict's reason: one plain sentence with its numbers, for the person who has to stand by it."""

from collections.abc import Sequence

from graftwork.evaluation.comparison import Comparison
from graftwork.promotion.statistics import half_width
from graftwork.targets.catalog import metric_name, metric_of


def explain(compared: Sequence[Comparison], outcome: str, missing_rows: int | None) -> str:
    """Why the comparisons (the deciding metric's first, then the guards) led to the outcome.

    missing_rows: as in the verdict; only an inconclusive one has any.
    """
    if not compared:
        return "There is no champion, and the policy asks for no baseline to be beaten."
    shown = _decisive(compared, outcome)
    gain, confidence = shown.difference, f"{100 * shown.level:.4g} % confidence"
    value, low, high = (_amount(shown.metric, each) for each in (gain.value, gain.low, gain.high))
    start = f"{_figures(shown)}: {_claim(shown, outcome)}"
    if outcome == "promote":
        return f"{start}, with {confidence} (difference {value}, at least {low})."
    if outcome == "keep":
        return f"{start}, with {confidence} (difference {value}, at most {high})."
    between = f"difference {value}, between {low} and {high} with {confidence} each way"
    return f"{start} ({between}); {_outlook(shown, missing_rows)}."


def _decisive(compared: Sequence[Comparison], outcome: str) -> Comparison:
    """The comparison that decided: where all were cleared, the one on the deciding metric with the least room."""
    if outcome == "keep":
        return next(each for each in compared if each.is_missed)
    if outcome == "inconclusive":
        return next(each for each in compared if not each.is_cleared)
    same = [each for each in compared if (each.metric, each.threshold) == (compared[0].metric, compared[0].threshold)]
    return min(same, key=lambda each: each.difference.low)


def _figures(shown: Comparison) -> str:
    metric = metric_name(shown.metric)
    metric = metric[0].upper() + metric[1:]
    rows = f"{shown.rows} rows" if shown.groups == shown.rows else f"{shown.rows} rows in {shown.groups} groups"
    if shown.is_known:
        rows += " that it knew"
    return f"{metric} {shown.candidate_value:.4f} against {shown.reference_value:.4f} of {_name(shown)} on {rows}"


def _claim(shown: Comparison, outcome: str) -> str:
    better = f"better than {_name(shown)}"
    worse = f"more than {_amount(shown.metric, -shown.threshold, sign='')} worse than {_name(shown)}"
    if shown.threshold == 0:
        return {"promote": better, "keep": f"not {better}", "inconclusive": f"not yet known to be {better}"}[outcome]
    return {"promote": f"not {worse}", "keep": worse, "inconclusive": f"perhaps {worse}"}[outcome]


def _outlook(shown: Comparison, missing_rows: int | None) -> str:
    if shown.difference.low > shown.threshold:
        return "too few rows are judged differently by the two to be sure"
    if shown.is_known:
        return "what it knew does not grow with what lands, so a person has to decide"
    width = half_width(shown.standard_error, shown.level)
    if shown.threshold < 0 and width > -shown.threshold:
        margin, finest = (_amount(shown.metric, each, sign="") for each in (-shown.threshold, width))
        more = "" if missing_rows is None else f", about {missing_rows} more are needed"
        return f"a margin of {margin} is finer than {shown.rows} rows can tell ({finest}){more}"
    if missing_rows is None:
        return "the two are so close to it that no realistic number of rows would decide"
    return f"about {missing_rows} more holdout rows would decide"


def _name(shown: Comparison) -> str:
    is_model = shown.reference in ("champion", "anchor")
    return f"the {shown.reference}" if is_model else f"the {shown.reference} baseline"


def _amount(metric: str, value: float, sign: str = "+") -> str:
    """A difference in points of a hundred; of log loss and others that have no hundred, as it is."""
    return f"{100 * value:{sign}.1f} points" if metric_of(metric).is_share else f"{value:{sign}.3f}"
