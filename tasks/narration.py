"""A step in the log: how far it is, what it was, and whether it was done now or found done."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from graftwork.phrases import duration
from graftwork.storage import Store

LOG_EVERY_S = 15.0

log = logging.getLogger("graftwork.tasks")


@contextmanager
def narrated(step: str, store: Store) -> Iterator[None]:
    """Log the step when the block ends well: reused, if it put nothing into the store."""
    made, started = len(store.made), time.monotonic()
    yield
    is_reused = len(store.made) == made
    log.info("%s: %s", step, "reused" if is_reused else f"done in {duration(time.monotonic() - started)}")


class RowProgress:
    """Tells the log how far a step is: as each part of it begins, and then every LOG_EVERY_S."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.part, self.logged = "", 0.0

    def __call__(self, part: str, done: int, total: int) -> None:
        now = time.monotonic()
        if part != self.part or now - self.logged >= LOG_EVERY_S:
            self.part, self.logged = part, now
            log.info("%s: %s, %d of %d rows", self.step, part, done, total)
