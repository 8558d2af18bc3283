"""Looks at a holdout: one for each bundle, and what they add up to over a holdout's life."""

import numpy as np
import pandas as pd
import pytest

from graftwork.evaluation.comparison import compare
from graftwork.promotion.ledger import Ledger
from graftwork.promotion.looks import take_look
from graftwork.promotion.statistics import level_of_look, samples_for

ROWS, LOOKS, HISTORIES = 1500, 8, 24


def test_each_bundle_takes_one_look(ledger: Ledger) -> None:
    """Counted per model and holdout; the same bundle again keeps its number; fresh rows are a fresh holdout."""
    database = ledger.database
    assert [take_look(database, "m", "h", bundle, "e") for bundle in ("b1", "b2", "b1", "b3")] == [1, 2, 1, 3]
    assert take_look(database, "m", "h2", "b3", "e") == 1
    assert take_look(database, "other", "h", "b3", "e") == 1


def promotions(spends: bool, seed: int) -> int:
    """How many of a row of equal candidates are promoted over the first champion, all on one holdout."""
    rng = np.random.default_rng(seed)
    hardness = rng.normal(size=ROWS)

    def predicted() -> pd.DataFrame:
        """A model that is right on four rows in five, mostly the same ones as any other."""
        is_right = hardness + rng.normal(size=ROWS) * 0.4 < 0.9
        ids = [f"{row:04d}" for row in range(ROWS)]
        columns = {"row_id": ids, "label": 0, "group": None, "p_0": is_right * 1.0, "p_1": ~is_right * 1.0}
        return pd.DataFrame(columns)

    champion, won = predicted(), 0
    for look in range(1, LOOKS + 1):
        level = level_of_look(0.95, look) if spends else 0.95
        chosen = {"threshold": 0.0, "level": level, "samples": samples_for(level, 1000)}
        won += compare(champion, predicted(), name="champion", metric="accuracy", **chosen).is_cleared
    return won


@pytest.mark.parametrize(("spends", "low", "high"), [(True, 0.0, 0.125), (False, 0.2, 1.0)])
def test_equal_candidates_are_seldom_promoted(spends: bool, low: float, high: float) -> None:
    """Over a holdout's life one in twenty at most, to chance; without spending it would be several."""
    share = np.mean([promotions(spends, seed) > 0 for seed in range(HISTORIES)])
    assert low <= share <= high
