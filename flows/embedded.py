"""A flow run started from the command line: beside a Prefect server of our own, or on the team's."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flows.server import prefect_api, wait_until_ready
from flows.summary import RunSummary
from graftwork.policy import load_policy
from graftwork.recipe import load_recipe
from graftwork.registry.tracking import close_dead_runs as close_dead_mlflow_runs
from graftwork.settings import Settings
from graftwork.training.estimate import find_estimate
from graftwork.workspace import Workspace

FLUSH_WITHIN_S = 5.0


def run(
    settings: Settings,
    recipe: Path,
    overrides: Sequence[str],
    limit_rows: int | None,
    restart: bool,
    accept_drift: Sequence[str],
) -> RunSummary:
    """Run the finetune flow for a recipe, after closing what runs of dead processes left open.

    Raises the error of the step that failed.
    """
    wanted = load_recipe(recipe, overrides, limit_rows)  # what is wrong is said before a server is waited for
    load_policy(wanted.root / wanted.policy)
    workspace = Workspace.open(settings)
    _log_to_terminal()
    with prefect_api(settings):
        from prefect.logging.handlers import APILogWorker

        from flows.finetune import finetune  # imports Prefect, while the server starts
        from flows.recovery import close_dead_runs, owned

        workspace.store.sweep()
        close_dead_mlflow_runs(workspace)
        wait_until_ready()
        close_dead_runs()
        try:
            with owned():
                summary = finetune(str(recipe), tuple(overrides), limit_rows, restart, tuple(accept_drift))
                return replace(summary, estimate=find_estimate(workspace.store, summary.run.run_id))
        finally:
            APILogWorker.drain_all(timeout=FLUSH_WITHIN_S)


def _log_to_terminal() -> None:
    """Our own progress lines on standard error; Prefect's go to its database."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    log = logging.getLogger("graftwork")
    log.setLevel(logging.INFO)
    log.addHandler(handler)
