"""The right to train a run: one process holds it, and one that lost it can't write any more.

Each holder gets a greater fencing number than the one before, and can write to the run's head only while that number
stands there. Whether a holder lives is judged by whether its head still moves, on the watcher's own monotonic clock;
two machines' clocks are never compared. Method: Kleppmann 2016, How to do distributed locking.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from graftwork.database import Database, now, run_heads
from graftwork.errors import Paused, Problem, ServiceUnavailable, TrainingError
from graftwork.owners import is_alive, this_owner

POLL_S = 0.5
BEATS = 4  # in the time after which a holder that does not beat has lost the run
NOBODY = ""


class Replaced(TrainingError):
    """Another process has taken the run over; this one has written nothing since."""


class Lease:
    """The run's head, as long as its fencing number is ours. state: digest of the state that counts, if any."""

    def __init__(self, database: Database, run_id: str, fence: int, state: str | None) -> None:
        self.run_id, self.fence, self.state = run_id, fence, state
        self._database = database
        self._is_lost = False

    def check(self) -> None:
        """Raises Replaced if the last beat found another holder."""
        if self._is_lost:
            raise Replaced(_replaced(self._database, self.run_id))

    def advance(self, state: str | None) -> None:
        """From now on this state counts. Raises Replaced, with nothing changed, if another process holds the run."""
        self._write(state_digest=state)
        self.check()
        self.state = state

    def beat(self) -> None:
        """Show that the holder lives."""
        self._write()

    def release(self) -> None:
        """Let the next holder have it at once."""
        self._write(owner=NOBODY)

    def _write(self, **values: Any) -> None:
        mine = (run_heads.c.run_id == self.run_id) & (run_heads.c.fence == self.fence)
        with self._database.begin() as connection:
            done = connection.execute(update(run_heads).where(mine).values(**values, updated_at=now()))
        self._is_lost = self._is_lost or done.rowcount == 0


@contextmanager
def hold(
    database: Database,
    run_id: str,
    lease_s: float,
    on_wait: Callable[[str], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Lease]:
    """The lease on a run, kept by a thread until the block ends.

    A living holder is waited for (`on_wait` is told once who it is); one that has ended, or whose head has not moved
    for `lease_s` seconds, is replaced. Raises Paused if asked to stop while it waits.
    """
    lease = _take(database, run_id, lease_s, on_wait, should_stop)
    is_over = threading.Event()
    keeper = threading.Thread(target=_beat_until, args=(lease, is_over, lease_s / BEATS), daemon=True)
    keeper.start()
    try:
        yield lease
    finally:
        is_over.set()
        keeper.join()
        with suppress(ServiceUnavailable):  # then the next holder finds our process gone
            lease.release()


def _beat_until(lease: Lease, is_over: threading.Event, every_s: float) -> None:
    while not is_over.wait(every_s):
        with suppress(ServiceUnavailable):
            lease.beat()


def _take(
    database: Database,
    run_id: str,
    lease_s: float,
    on_wait: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> Lease:
    told = seen = None
    since = time.monotonic()
    while True:
        head = _read_or_make(database, run_id)
        if head.updated_at != seen:
            seen, since = head.updated_at, time.monotonic()
        if not _is_held(head) or time.monotonic() - since > lease_s:
            lease = _replace(database, head)
            if lease is not None:
                return lease
        elif should_stop():
            raise Paused(f"stopped while {head.owner} trains run {run_id}")
        else:
            if told != head.owner:
                on_wait(told := head.owner)
            time.sleep(POLL_S)


def _read_or_make(database: Database, run_id: str) -> Row[Any]:
    wanted = select(run_heads).where(run_heads.c.run_id == run_id)
    with database.begin() as connection:
        head = connection.execute(wanted).one_or_none()
    if head is None:
        with suppress(IntegrityError), database.begin() as connection:
            connection.execute(insert(run_heads).values(run_id=run_id, fence=0, owner=NOBODY, updated_at=now()))
        return _read_or_make(database, run_id)
    return head


def _is_held(head: Row[Any]) -> bool:
    return head.owner not in (NOBODY, this_owner()) and is_alive(head.owner)


def _replace(database: Database, head: Row[Any]) -> Lease | None:
    """Our lease in the place of the head as it was read; None if it has changed since."""
    as_read = (
        (run_heads.c.run_id == head.run_id)
        & (run_heads.c.fence == head.fence)
        & (run_heads.c.updated_at == head.updated_at)
    )
    with database.begin() as connection:
        values = {"fence": head.fence + 1, "owner": this_owner(), "updated_at": now()}
        done = connection.execute(update(run_heads).where(as_read).values(values))
    return Lease(database, head.run_id, head.fence + 1, head.state_digest) if done.rowcount else None


def _replaced(database: Database, run_id: str) -> Problem:
    owner = _read_or_make(database, run_id).owner or "another process"
    return Problem(
        f"{owner} has taken this run over; nothing was written since",
        where=f"run {run_id}",
        hint="leave it to that one",
    )
