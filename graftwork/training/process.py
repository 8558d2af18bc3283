"""The training process: `python -m graftwork.training.process RUN_ID`.

It needs the store and nothing else: no Prefect, no MLflow, no credential. It writes one JSON object a line to standard
output, ends with its parent, and on SIGTERM stops before the next step with exit code 75.
"""

import json
import os
import signal
import sys
import traceback
from typing import Any

from graftwork.errors import GraftworkError
from graftwork.lifeline import end_with_parent
from graftwork.settings import Settings
from graftwork.storage import Store


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


def main(run_id: str) -> int:
    """Train the run; the exit code says how it ended (see `graftwork.errors`)."""
    end_with_parent()
    request = StopRequest()
    try:
        from graftwork.training.engine import run_stages
        from graftwork.training.plan import open_run

        store = Store(Settings().store_root)
        run_stages(open_run(store, run_id), store, report, should_stop=lambda: request.is_set)
    except GraftworkError as error:
        report({"event": "error", "problems": [vars(problem) for problem in error.problems]})
        return error.exit_code
    except Exception:  # noqa: BLE001 - whatever it is, the parent must be told by the exit code
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
