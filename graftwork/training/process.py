"""The training process: `python -m graftwork.training.process RUN_ID`.

It needs the store and the run's head in the database: no Prefect, no MLflow. It writes one JSON object a line to
standard output, ends with its parent, and on SIGTERM saves after the step and ends with exit code 75.
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


class StopRequest:
    """Set by the first SIGTERM or SIGINT; the second ends the process at once."""

    def __init__(self) -> None:
        self.is_set = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: object) -> None:
        if self.is_set:
            os._exit(128 + number)
        self.is_set = True


def report(event: dict[str, Any]) -> None:
    """One line of JSON for the parent."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Train the run; the exit code says how it ended (see `graftwork.errors`)."""
    parser = argparse.ArgumentParser(prog="graftwork.training.process")
    parser.add_argument("--restart", action="store_true")
    parser.add_argument("--accept-drift", action="append", default=[])
    parser.add_argument("run_id")
    asked = parser.parse_args(arguments)
    end_with_parent()
    request = StopRequest()
    try:
        from graftwork.training.engine import ResumeWish, run_stages
        from graftwork.training.plan import open_run
        from graftwork.workspace import Workspace

        workspace = Workspace.open()
        wish = ResumeWish(asked.restart, tuple(asked.accept_drift))
        run_stages(open_run(workspace.store, asked.run_id), workspace, report, lambda: request.is_set, wish)
    except GraftworkError as error:
        report({"event": "error", "problems": [vars(problem) for problem in error.problems]})
        return error.exit_code
    except Exception:  # noqa: BLE001 - whatever it is, the parent must be told by the exit code
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
