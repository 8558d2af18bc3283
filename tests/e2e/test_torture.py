"""Training killed at random points, resumed, and compared with an unbroken one: `make torture`, in short."""

from pathlib import Path

import pytest
from torture import BY_THE_CLOCK, EVERY_STEP, make_runs, torture

pytestmark = pytest.mark.e2e

KILLS = 25


def test_killed_trainings_end_as_unbroken_ones(tmp_path: Path) -> None:
    """Head, gradual, full, adapters, all options, and one whose best epoch is not its last: the same bits, not torn."""
    runs, home = make_runs(tmp_path)
    tally = torture(runs, home, KILLS, seed=20261121)
    assert tally.kills.total() == KILLS
    assert tally.failures(runs) == []
    assert max(loss.steps for loss in tally.losses if loss.saving == EVERY_STEP) <= 1
    assert any(loss.saving == BY_THE_CLOCK for loss in tally.losses)
