"""No network: a whole run where nothing but the loopback interface exists."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e

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


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_a_run_needs_no_network(project):
    """Where there is no network, the whole small run ends with a champion."""
    probe = subprocess.run([*INSIDE, "/bin/true"], capture_output=True, text=True)
    assert probe.returncode == 0, f"this machine allows no network namespace, so nothing is shown: {probe.stderr}"
    summary, _ = project.run_and_log(inside=INSIDE)
    assert (summary["verdict"]["outcome"], summary["alias"]) == ("promote", "champion")
