"""Several processes that train one run, forked from one that has torch imported already: what takes long is left out.

How they are started and ended in earnest is in graftwork.training.followers.
"""

import json
import multiprocessing
import os
import socket
import sys
from itertools import count
from pathlib import Path
from typing import Any

from graftwork.errors import GraftworkError
from graftwork.settings import Settings
from graftwork.storage import Store
from graftwork.training.followers import LEADER, LOCALHOST, Place
from graftwork.training.plan import open_run
from graftwork.workspace import Workspace

CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = ["torch", "torch._dynamo", "transformers.models.bert.modeling_bert", "graftwork.training.engine", "team"]
WITHIN_S = 60


def train_together(
    run_id: str,
    home: Path,
    size: int,
    *,
    stop_after: int | None = None,
    accept_drift: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> tuple[int, list[dict[str, Any]]]:
    """The leader's exit code, and what it reported; its followers are gone.

    stop_after: how often the leader asks until it is told to stop. environment: of the leader alone.
    """
    CONTEXT.set_forkserver_preload(PRELOADED)
    with socket.create_server((LOCALHOST, 0)) as listener:
        port = listener.getsockname()[1]
        leader = CONTEXT.Process(
            target=_lead, args=(run_id, home, size, port, listener, stop_after, accept_drift, environment or {})
        )
        followers = [CONTEXT.Process(target=_follow, args=(run_id, home, rank, size, port)) for rank in range(1, size)]
        for process in (leader, *followers):
            process.start()
    leader.join(WITHIN_S)
    assert leader.exitcode is not None, "it hangs"
    for follower in followers:
        follower.kill()
        follower.join()
    return leader.exitcode, [json.loads(line) for line in (home / "events").read_text().splitlines()]


def _lead(
    run_id: str,
    home: Path,
    size: int,
    port: int,
    listener: socket.socket,
    stop_after: int | None,
    accept_drift: tuple[str, ...],
    environment: dict[str, str],
) -> None:
    from graftwork.training.engine import ResumeWish, run_stages
    from graftwork.training.replicas import gathered

    os.environ |= environment
    workspace, asked = Workspace.open(Settings(home=home)), count(1)
    wish = ResumeWish(accept_drift=accept_drift)
    should_stop = (lambda: False) if stop_after is None else (lambda: next(asked) > stop_after)
    with (home / "events").open("w", buffering=1) as events:
        try:
            with gathered(Place(LEADER, size, port, listener.detach())) as replicas:
                run = open_run(workspace.store, run_id)
                run_stages(run, workspace, lambda e: print(json.dumps(e), file=events), should_stop, wish, replicas)
        except GraftworkError as error:
            print(json.dumps({"event": "error", "text": str(error)}), file=events)
            sys.exit(error.exit_code)


def _follow(run_id: str, home: Path, rank: int, size: int, port: int) -> None:
    from graftwork.training.engine import follow_stages
    from graftwork.training.replicas import gathered

    store = Store(Settings(home=home).store_root)
    with gathered(Place(rank, size, port)) as replicas:
        follow_stages(open_run(store, run_id), store, replicas)
