"""How sure a verdict may be: error spent over looks, rows that a decision needs, resamples that a level needs."""

import math
from statistics import NormalDist

POWER = 0.8
TAIL_SAMPLES = 20  # resamples beyond a bound: fewer, and the bound is one lucky draw


def level_of_look(level: float, look: int) -> float:
    """The one-sided confidence that look number `look` (from 1) needs, so that all looks together keep `level`.

    Method: alpha spending by 1 / (k (k + 1)), which sums to 1 over all looks.
    """
    return 1 - (1 - level) / (look * (look + 1))


def samples_for(level: float, at_least: int) -> int:
    """Bootstrap resamples that put enough of them beyond a one-sided bound at `level`."""
    return max(at_least, math.ceil(TAIL_SAMPLES / (1 - level)))


def half_width(standard_error: float, level: float) -> float:
    """From an estimate to its one-sided bound at `level`."""
    return NormalDist().inv_cdf(level) * standard_error


def rows_needed(rows: int, standard_error: float, effect: float, level: float, power: float = POWER) -> float:
    """Rows at which a true `effect` clears its threshold with probability `power`; infinite if there is no effect.

    standard_error: as found on `rows` rows; it shrinks with the square root of their number.
    """
    if effect == 0:
        return math.inf
    quantiles = NormalDist().inv_cdf(level) + NormalDist().inv_cdf(power)
    return rows * (quantiles * standard_error / effect) ** 2
