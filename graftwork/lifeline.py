"""A child process that ends with its parent, even when the parent is killed.

The parent holds the write end of the child's standard input and never writes. The kernel closes it when the parent is
gone, however it went, and the child's read returns.
"""

import os
import threading
from collections.abc import Callable

STDIN = 0


def end_with_parent(end: Callable[[], object] = lambda: os._exit(1)) -> None:
    """As soon as standard input is closed: end this process, or do what `end` does instead."""
    threading.Thread(target=_wait, args=(end,), name="lifeline", daemon=True).start()


def _wait(end: Callable[[], object]) -> None:
    # Not through sys.stdin: a thread that waits inside it would hold its lock when the interpreter shuts down.
    while os.read(STDIN, 1):
        pass
    end()
