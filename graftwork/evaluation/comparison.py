"""Two models on the same rows: the paired difference of a metric, with a one-sided bound each way."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graftwork.evaluation.metrics import Interval, resample
from graftwork.evaluation.predictions import group_codes, labels_of, probabilities_of
from graftwork.targets.catalog import CLASSIFICATION
from graftwork.targets.learning import Metric
from graftwork.targets.target import Target

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Comparison:
    """A candidate against a reference, and the threshold that its difference has to clear.

    difference: by how much the candidate is better (for a loss: by how much it is lower); each bound holds by itself
    with confidence `level`. mid_p: for a metric that counts rows which are right, McNemar's one-sided mid-p value of
    'not better'. is_known: on the rows alone that the reference's data had.
    """

    reference: str
    metric: str
    threshold: float
    level: float
    rows: int
    groups: int
    reference_value: float
    candidate_value: float
    difference: Interval
    standard_error: float
    mid_p: float | None
    is_known: bool = False

    @property
    def against(self) -> str:
        """Whom the candidate is compared with, and on which rows if not on all."""
        return f"{self.reference}, on what it knew" if self.is_known else self.reference

    @property
    def is_cleared(self) -> bool:
        """The difference is above the threshold, with confidence."""
        # Where only a few rows differ the bootstrap is too sure of itself: four wins in four clear 97.5 %, and a coin
        # does that once in sixteen. McNemar's count is exact there.
        is_counted = self.mid_p is None or self.threshold != 0 or self.mid_p < 1 - self.level
        return self.difference.low > self.threshold and is_counted

    @property
    def is_missed(self) -> bool:
        """The difference is not above the threshold, with confidence."""
        return self.difference.high <= self.threshold


def compare(
    reference: "pd.DataFrame",
    candidate: "pd.DataFrame",
    *,
    name: str,
    metric: str,
    threshold: float,
    level: float,
    samples: int,
    seed: int = 0,
    is_known: bool = False,
    target: Target = CLASSIFICATION,
) -> Comparison:
    """The candidate's predictions against those of the reference called `name`, by paired bootstrap of groups.

    is_known: they are of the rows that its data had.

    Raises ValueError if the two are not predictions for the same labelled rows.
    """
    truth = ["row_id", "label"]
    reference, candidate = (frame.sort_values("row_id", ignore_index=True) for frame in (reference, candidate))
    if not reference[truth].equals(candidate[truth]):
        raise ValueError(f"the candidate and {name} were not predicted on the same rows")
    labels, groups, measured = labels_of(candidate, target), group_codes(candidate), target.learning.metrics[metric]
    both = [probabilities_of(reference), probabilities_of(candidate)]
    columns = [measured.columns(labels, values) for values in both]
    sums = np.hstack(columns)
    gains = _gain(measured, resample(sums, groups, samples, seed))
    low, high = np.quantile(gains, [1 - level, level])
    values = [float(measured.value(part.sum(axis=0))) for part in columns]
    count = measured.is_right
    return Comparison(
        reference=name,
        metric=metric,
        threshold=threshold,
        level=level,
        rows=target.learning.rows(labels),
        groups=len(np.unique(groups)),
        reference_value=values[0],
        candidate_value=values[1],
        difference=Interval(float(_gain(measured, sums.sum(axis=0))), float(low), float(high)),
        standard_error=float(gains.std(ddof=1)),
        mid_p=None if count is None else mcnemar_mid_p(*(count(labels, each) for each in both)),
        is_known=is_known,
    )


def _gain(metric: Metric, sums: np.ndarray) -> np.ndarray:
    """By how much the right half of the sums is better than the left."""
    reference, candidate = np.split(sums, 2, axis=-1)
    difference = metric.value(candidate) - metric.value(reference)
    return -difference if metric.is_loss else difference


def mcnemar_mid_p(is_reference_right: np.ndarray, is_candidate_right: np.ndarray) -> float:
    """How likely so many rows won over rows lost are, were the candidate not better; half the weight on a tie.

    Method: McNemar mid-p (Fagerland, Lydersen and Laake 2013), one-sided; takes rows as independent.
    """
    from scipy.stats import binom

    won = int((is_candidate_right & ~is_reference_right).sum())
    lost = int((is_reference_right & ~is_candidate_right).sum())
    return float(binom.sf(won, won + lost, 0.5) + binom.pmf(won, won + lost, 0.5) / 2)
