"""The processes that train beside the leader of a run: started by it, watched by it, and gone when it is gone.

The leader alone holds the lease, heeds signals, reports, and saves. So whatever ends it is the end of all, and a
follower that ends before its time is the end of the leader, which may be waiting for it in the middle of a step.
"""

import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from graftwork.errors import GraftworkError
from graftwork.training.launch import await_end, start_process

LOCALHOST = "127.0.0.1"
LEADER = 0
TOLD_WITHIN_S = 5.0
Tell = Callable[[GraftworkError], int]  # the exit code for it


@dataclass(frozen=True)
class Place:
    """A process's place among those that train a run: by default it is alone.

    port: where the leader listens on this machine. listener: in the leader, the descriptor of that socket.
    """

    rank: int = LEADER
    size: int = 1
    port: int = 0
    listener: int | None = None


def count_processes(wanted: int | str) -> int:
    """How many processes train a run; `auto`: one for each GPU, or one."""
    if isinstance(wanted, int):
        return wanted
    import torch

    return max(1, torch.cuda.device_count())


@contextmanager
def leading(run_id: str, size: int, tell: Tell) -> Iterator[Place]:
    """The leader's place, with its followers started; they are gone when the block ends.

    tell: given the error that ended a follower before its time; this process ends then, too, with that exit code.
    """
    if size == 1:
        yield Place()
        return
    listener = socket.create_server((LOCALHOST, 0))
    port = listener.getsockname()[1]
    followers = Followers(run_id, size, port, tell)
    try:
        yield Place(LEADER, size, port, listener.detach())
    except GraftworkError:
        raise
    except Exception:
        time.sleep(TOLD_WITHIN_S)  # if a connection was lost because a follower ended, that is told and is our end, too
        raise
    finally:
        followers.end()


class Followers:
    """All processes of a run but the leader."""

    def __init__(self, run_id: str, size: int, port: int, tell: Tell) -> None:
        self._tell, self._is_over = tell, False
        self._processes = [self._start(Place(rank, size, port), run_id) for rank in range(1, size)]

    def end(self) -> None:
        """Kill them: they have nothing that the leader has not."""
        self._is_over = True
        for process in self._processes:
            process.kill()
            process.wait()

    def _start(self, place: Place, run_id: str) -> subprocess.Popen[str]:
        log = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - it is as long as the process
        process = start_process([f"--follow={place.rank},{place.size},{place.port}", run_id], log)
        name = f"training process {place.rank + 1} of {place.size}"
        threading.Thread(target=self._watch, args=(process, log, name), daemon=True).start()
        return process

    def _watch(self, process: subprocess.Popen[str], log: TextIO, name: str) -> None:
        try:
            await_end(process, log, lambda _: None, name)
        except GraftworkError as error:
            if not self._is_over:
                os._exit(self._tell(error))
