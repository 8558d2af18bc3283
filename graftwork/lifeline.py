"""A child process that ends with its parent, even when the parent is killed.

The parent holds the write end of the child's standard input and never writes. The kernel closes it when the parent is
gone, however it went, and the child's read returns.
"""

import os
import sys
import threading


def end_with_parent() -> None:
    """End this process as soon as its standard input is closed."""
    threading.Thread(target=_wait, name="lifeline", daemon=True).start()


def _wait() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os._exit(1)
