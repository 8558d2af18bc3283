"""Training killed at random points, resumed, and compared with an unbroken one: `make torture`, in short."""

from pathlib import Path

import pytest
from torture import make_runs, torture

pytestmark = pytest.mark.e2e

KILLS = 25


def test_killed_trainings_end_as_unbroken_ones(tmp_path: Path) -> None:
    """Head, gradual, full, adapters, all options, and one whose best epoch is not its last: the same bits, not torn."""
    runs, home = make_runs(tmp_path)
    tally = torture(runs, home, KILLS, seed=20261121)
    assert tally.kills.total() == KILLS
    assert tally.different == []
    assert tally.torn == 0
    assert max(tally.lost) <= 1  # it saves after every step
