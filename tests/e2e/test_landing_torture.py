"""Landings, some of them twice, while who hands in and who looks is killed: `make torture`, in short."""

import random
from pathlib import Path

import pytest
from data_projects import Project
from landing_torture import Torture

pytestmark = pytest.mark.e2e

LANDINGS = 100


def test_each_landed_row_is_trained_on_once(tmp_path: Path) -> None:
    """A training for each manifest, in each of which there are new rows; all that landed is in the last one."""
    tally = Torture(Project(tmp_path), random.Random(20261122)).run(LANDINGS)
    assert tally.failures == []
    assert (tally.landings, tally.kills.total() > 0) == (LANDINGS, True)
    assert tally.duplicates > 0
