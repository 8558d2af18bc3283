"""Which process something belongs to, in a form that outlives it: `host:pid:start`.

Unlike a bare pid, it is never another process's later, nor one of another machine that shares a store or a database.
"""

import os
import platform
from functools import cache

import psutil

CLOCK_STEP_S = 2.0  # how far two processes may differ on when a third began: the kernel's boot time is re-estimated


def this_owner() -> str:
    """This process as `host:pid:start`."""
    return _owner(os.getpid())


@cache
def _owner(pid: int) -> str:
    return f"{platform.node()}:{pid}:{psutil.Process(pid).create_time():.2f}"


def is_alive(owner: str) -> bool:
    """False if the owner was a process of this machine that has ended; of another machine nothing is known: True."""
    host, pid, start = owner.rsplit(":", 2)
    if host != platform.node():
        return True
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(start)) <= CLOCK_STEP_S
    except psutil.NoSuchProcess:
        return False
