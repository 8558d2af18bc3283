"""The training process: `python -m graftwork.training.process RUN_ID`.

It needs the store and the run's head in the database: no Prefect, no MLflow. It writes one JSON object a line to
standard output, ends with its parent, and on SIGTERM saves after the step and ends with exit code 75. Where several
processes train a run, it is their leader, and starts the others as its followers. With `--probe` it only measures.
"""

import argparse
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from graftwork.errors import GraftworkError
from graftwork.lifeline import end_with_parent

STOPPING = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Set by the first SIGTERM or SIGINT; the second ends the process at once."""

    def __init__(self) -> None:
        self.is_set = False
        for number in STOPPING:
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: object) -> None:
        if self.is_set:
            os._exit(128 + number)
        self.is_set = True


def report(event: dict[str, Any]) -> None:
    """One line of JSON for the parent."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def tell(error: GraftworkError) -> int:
    """Tell the parent of an error; the exit code for it."""
    report({"event": "error", "problems": [vars(problem) for problem in error.problems]})
    return error.exit_code


def main(arguments: Sequence[str]) -> int:
    """Train or probe the run; the exit code says how it ended (see `graftwork.errors`)."""
    parser = argparse.ArgumentParser(prog="graftwork.training.process")
    parser.add_argument("--restart", action="store_true")
    parser.add_argument("--accept-drift", action="append", default=[])
    parser.add_argument("--follow", help="rank, size and port: train beside the leader that listens there")
    parser.add_argument("--probe", help="batch tokens and groups: measure a little of what training would do with them")
    parser.add_argument("run_id")
    asked = parser.parse_args(arguments)
    end_with_parent()
    try:
        if asked.follow:
            follow(asked.run_id, *map(int, asked.follow.split(",")))
        elif asked.probe:
            probe(asked.run_id, *map(int, asked.probe.split(",")))
        else:
            lead(asked.run_id, asked.restart, asked.accept_drift)
    except GraftworkError as error:
        return tell(error)
    except Exception:  # noqa: BLE001 - whatever it is, the parent must be told by the exit code
        traceback.print_exc()
        return 1
    return 0


def lead(run_id: str, restart: bool, accept_drift: Sequence[str]) -> None:
    """Train the run, with as many followers as the settings want; they load while this process does."""
    request = StopRequest()
    from graftwork.settings import Settings
    from graftwork.training.followers import count_processes, leading

    with leading(run_id, count_processes(Settings.read().processes), tell) as place:
        from graftwork.training.engine import ResumeWish, run_stages
        from graftwork.training.plan import open_run
        from graftwork.training.replicas import gathered
        from graftwork.workspace import Workspace

        workspace = Workspace.open()
        run, wish = open_run(workspace.store, run_id), ResumeWish(restart, tuple(accept_drift))
        with gathered(place) as replicas:
            run_stages(run, workspace, report, lambda: request.is_set, wish, replicas)


def follow(run_id: str, rank: int, size: int, port: int) -> None:
    """Train beside the leader; whoever asks us to stop asks it, too, and it stops for all."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    from graftwork.settings import Settings
    from graftwork.storage import Store
    from graftwork.training.engine import follow_stages
    from graftwork.training.followers import Place
    from graftwork.training.plan import open_run
    from graftwork.training.replicas import gathered

    store = Store(Settings.read().store_root)
    run = open_run(store, run_id)
    with gathered(Place(rank, size, port)) as replicas:
        follow_stages(run, store, replicas)


def probe(run_id: str, batch_tokens: int, groups: int) -> None:
    """Measure what the run would take in one process."""
    request = StopRequest()
    from graftwork.training.estimate import Trial
    from graftwork.training.plan import open_run
    from graftwork.training.probe import probe_run
    from graftwork.workspace import Workspace

    workspace = Workspace.open()
    run, trial = open_run(workspace.store, run_id), Trial(batch_tokens, groups)
    probe_run(run, workspace, report, lambda: request.is_set, trial)


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Not by sys.exit: as it shuts down, Python no longer heeds signals, and a second one would hide how this ended.
    os._exit(exit_code)
