"""A child process that ends with its parent, even when the parent is killed.

The parent holds the write end of the child's standard input and never writes. The kernel closes it when the parent is
gone, however it went, and the child's read returns.
"""

import os
import threading

STDIN = 0


def end_with_parent() -> None:
    """End this process as soon as its standard input is closed."""
    threading.Thread(target=_wait, name="lifeline", daemon=True).start()


def _wait() -> None:
    # Not through sys.stdin: a thread that waits inside it would hold its lock when the interpreter shuts down.
    while os.read(STDIN, 1):
        pass
    os._exit(1)
