"""A disk that is full at any write: one message, nothing torn, and once there is room it goes on."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from writes import WRITES

pytestmark = pytest.mark.e2e

SCRIPT = Path(__file__).parents[1] / "support/fulldisk.py"
MOUNTED = 'mount -t tmpfs -o size=64m tmpfs "$1" && exec "${@:2}"'  # in a namespace that ends with the process
NEEDS_NO_ROOM = {"a removal"}
# A full database is retried like one that is away.
EXIT_CODES = {"StoreFull": 5, "ServiceUnavailable": 7}


@pytest.fixture
def outcomes(tiny_checkpoint: Path, tmp_path: Path) -> list[Any]:
    """What came of each write on a small disk that was full; skips where a user may not mount one."""
    room = tmp_path / "room"
    room.mkdir()
    inside = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", MOUNTED, "bash", str(room)]
    try:
        subprocess.run([*inside, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk of a limited size can be mounted here: {error}")
    command = [*inside, sys.executable, str(SCRIPT), str(room), str(tiny_checkpoint)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_full_disk_is_one_message_and_costs_nothing(outcomes: list[Any]) -> None:
    """It names the place, and the bytes that are free; what was there stays, and the end is as ever."""
    assert [outcome["name"] for outcome in outcomes] == list(WRITES)
    assert {outcome["name"] for outcome in outcomes if not outcome["failures"]} == NEEDS_NO_ROOM
    for failure in (failure for outcome in outcomes for failure in outcome["failures"]):
        assert failure["exit_code"] == EXIT_CODES[failure["error"]]
        [problem] = failure["problems"]
        assert re.search(r"/room/place/.*(no room on the disk: [\d,]+ bytes are free|disk is full|disk I/O)", problem)
        assert "free some space" in problem
    assert [outcome["name"] for outcome in outcomes if any(failure["is_torn"] for failure in outcome["failures"])] == []
    assert [outcome["name"] for outcome in outcomes if not outcome["is_same_end"]] == []
