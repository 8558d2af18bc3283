"""No network: whole runs where nothing but the loopback interface exists."""

import subprocess
import sys
from pathlib import Path

import pytest
from servers import environment_for

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's"),
]

# Raises `lo` in the new network namespace, makes sure that there is nothing else, and becomes the command.
ALONE = """
import fcntl, os, socket, struct, sys
UP, GET_FLAGS, SET_FLAGS = 0x1, 0x8913, 0x8914
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    name, flags = struct.unpack("16sh", fcntl.ioctl(control, GET_FLAGS, struct.pack("16sh", b"lo", 0)))
    fcntl.ioctl(control, SET_FLAGS, struct.pack("16sh", name, flags | UP))
found = [name for _, name in socket.if_nameindex()]
assert found == ["lo"], found
os.execv(sys.argv[1], sys.argv[1:])
"""
INSIDE = ("unshare", "--map-root-user", "--net", sys.executable, "-c", ALONE)


# What a team does, from `graftwork up` to a champion that nobody asked for by hand.
WALK = """
import sys
from pathlib import Path
from projects import RECIPE
from up import team_up

with team_up(Path(sys.argv[1]), {}) as team:
    team.call("deploy", RECIPE)
    run = team.wait_for(lambda: team.runs(manifest=None))[0]
    assert team.wait_for(lambda: team.over(run))["state_type"] == "COMPLETED"
    (version,) = team.call("models", "review-sentiment")
    assert version["aliases"] == ["champion"]
    assert team.call("audit")["problems"] == []
    assert {each["state"] for each in team.call("doctor")} <= {"good", "note"}
"""


@pytest.fixture(autouse=True)
def namespaces() -> None:
    """Without them nothing would be shown."""
    probe = subprocess.run([*INSIDE, "/bin/true"], capture_output=True, text=True)
    assert probe.returncode == 0, f"this machine allows no network namespace, so nothing is shown: {probe.stderr}"


def test_a_run_needs_no_network(project):
    """Where there is no network, the whole small run ends with a champion."""
    summary, _ = project.run_and_log(inside=INSIDE)
    assert (summary["verdict"]["outcome"], summary["alias"]) == ("promote", "champion")


def test_a_team_needs_no_network(tmp_path):
    """Servers, workers, deployments and the watch: what is there is trained on, and the audit and the doctor agree."""
    done = subprocess.run(
        [*INSIDE, sys.executable, "-c", WALK, str(tmp_path)],
        env=environment_for(PYTHONPATH=str(Path(__file__).parents[1] / "support")),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
