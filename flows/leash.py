"""Runs a command that ends when whoever started this does: `python -m flows.leash COMMAND …`.

A server that outlives a supervisor that was killed would keep its port. Signals are passed on.
"""

import signal
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial

import psutil

from graftwork.lifeline import end_with_parent

PATIENCE_S = 40.0  # a worker gives what it runs 30 s


def main(command: list[str]) -> int:
    """The exit code of the command. The first signal asks it to end, a second one ends it and all that it started."""
    # A session of its own: Ctrl-C is the supervisor's to hear, which then stops workers before servers.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - ours
    asked = threading.Event()

    def pass_on(*_: object) -> None:
        _kill(child) if asked.is_set() else child.terminate()
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    end_with_parent(partial(_end, child))
    return child.wait()


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    try:
        child.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        _kill(child)


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """The process and all below it, which may have sessions of their own."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(child.pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
