"""Waiting, and what has ended: the orphan of a killed process stays a zombie where no init collects it."""

import time
from collections.abc import Callable

import psutil


def wait_until(is_so: Callable[[], object], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
