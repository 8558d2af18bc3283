"""Named points at which a test may kill the process, to prove that what is written stays whole.

In production `fault` is one dictionary look-up. A test sets GRAFTWORK_FAULT=<point>[:<n>] and the n-th pass (counted
from 1) ends the process as SIGKILL does: no handler, no flush, no clean-up.
"""

import os
import signal
from collections import Counter

POINTS = frozenset(
    {
        "file.before_rename",
        "store.before_fsync",
        "store.before_rename",
        "store.after_rename",
        "training.step",
        "training.epoch_end",
        "training.before_publish",
        "training.stage_switch",
        "state.before_publish",
        "state.before_head",
        "state.after_head",
        "probe.step",
        "evaluation.before_publish",
        "registry.after_create_logged_model",
        "registry.after_log_model",
        "registry.after_create_version",
        "landing.after_request",
        "landing.after_start",
        "promotion.before_witness",
        "promotion.after_ledger",
        "promotion.after_alias",
    }
)
VARIABLE = "GRAFTWORK_FAULT"

_passes: Counter[str] = Counter()


def fault(point: str) -> None:
    """Die here if a test asked for it."""
    assert point in POINTS, point
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    name, _, count = wanted.partition(":")
    if name == point:
        _passes[point] += 1
        if _passes[point] == int(count or 1):
            os.kill(os.getpid(), signal.SIGKILL)
