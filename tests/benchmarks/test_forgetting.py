"""The tables of docs/scenarios.md: what is measured can be trained, and the means are means."""

from pathlib import Path

import pytest

from benchmarks.forgetting import ARMS, PACKAGED, RECIPE, STUDENTS, Row, table
from graftwork.recipe import load_recipe


@pytest.mark.parametrize("more", [*(more for _, more in ARMS.values()), *STUDENTS.values()])
def test_each_way_is_a_recipe(tmp_path: Path, more: str) -> None:
    """Whatever its stage says."""
    said = {"checkpoint": PACKAGED, "seed": 1, "replay": 0.5, "epochs": 1, "rate": 1e-4, "head": 1, "top": 3}
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(**said, more=f", {more}" if more else ""))
    assert load_recipe(tmp_path / "recipe.yaml").stages[0].name == "full"


def test_means_over_seeds_have_their_standard_error() -> None:
    """Of 0.8 and 0.9: 0.85, and 0.0707 over the root of two. Seconds have none, and what was not measured is empty."""
    rows = [Row("a", seed, {"movies": value, "seconds": 10}) for seed, value in enumerate((0.8, 0.9))]
    assert table(rows).splitlines()[-1] == "| a | 0.8500 ± 0.0500 |  |  | 10 |"
