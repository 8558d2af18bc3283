"""The arithmetic behind a verdict."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from graftwork.promotion.statistics import half_width, level_of_look, rows_needed, samples_for


@given(level=st.floats(0.5, 0.999), looks=st.integers(1, 500))
def test_all_looks_together_spend_no_more_than_the_error_allowed(level: float, looks: int) -> None:
    """The errors of the looks add up to less than that of one test at the level, however many there are."""
    spent = sum(1 - level_of_look(level, look) for look in range(1, looks + 1))
    assert spent < 1 - level
    assert spent == pytest.approx((1 - level) * looks / (looks + 1))


@pytest.mark.parametrize("power", [0.5, 0.8])
def test_the_rows_needed_give_the_wanted_power(power: float) -> None:
    """At that many rows, a normal estimate with the true effect clears its threshold as often as was asked."""
    needed = rows_needed(1000, standard_error=0.01, effect=0.015, level=0.975, power=power)
    error = 0.01 * math.sqrt(1000 / needed)
    assert norm.sf(norm.ppf(0.975), loc=0.015 / error) == pytest.approx(power)


def test_no_effect_is_never_found() -> None:
    """Without an effect no number of rows would do."""
    assert rows_needed(1000, standard_error=0.01, effect=0.0, level=0.95) == math.inf


def test_a_bound_has_resamples_beyond_it() -> None:
    """However late the look, some twenty resamples lie beyond its bound."""
    assert samples_for(0.95, at_least=2000) == 2000
    assert samples_for(level_of_look(0.95, 20), at_least=2000) == pytest.approx(20 * 20 * 21 / 0.05, abs=1)


def test_the_half_width_is_the_normal_quantile() -> None:
    """1.96 standard errors at 97.5 %."""
    assert half_width(0.01, 0.975) == pytest.approx(0.0196, abs=1e-5)
