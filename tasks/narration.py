"""One line a step in the log: what it was, and whether it was done now or found done."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from graftwork.phrases import duration
from graftwork.storage import Store

log = logging.getLogger("graftwork.tasks")


@contextmanager
def narrated(step: str, store: Store) -> Iterator[None]:
    """Log the step when the block ends well: reused, if it put nothing into the store."""
    made, started = len(store.made), time.monotonic()
    yield
    is_reused = len(store.made) == made
    log.info("%s: %s", step, "reused" if is_reused else f"done in {duration(time.monotonic() - started)}")
