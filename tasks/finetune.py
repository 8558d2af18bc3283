"""Planning and staged training as tasks."""

import logging
import time
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import httpx
from prefect import task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.runtime import flow_run

from graftwork.checkpoints.lock import CheckpointLock
from graftwork.claims import claim, outcome_of, settle
from graftwork.data.manifest import DatasetManifest
from graftwork.phrases import duration, memory
from graftwork.policy import load_policy
from graftwork.recipe import Recipe
from graftwork.registry.starts import fetch_start, resolve_start
from graftwork.targets.catalog import metric_name
from graftwork.training import launch, plan
from graftwork.training.bundle import ServingBundle
from graftwork.training.plan import ResolvedRun, open_run
from graftwork.workspace import Workspace
from tasks.narration import LOG_EVERY_S
from tasks.policies import MINUTE_S, RETRIED

PUBLISH_EVERY_S = 2.0
RESOLVED = "resolved by flow run"

log = logging.getLogger("graftwork.tasks")


@task(task_run_name="plan the stages of {recipe.name}", tags=["cpu"], timeout_seconds=10 * MINUTE_S, **RETRIED)
def plan_training(recipe: Recipe, manifest: DatasetManifest, lock: CheckpointLock) -> ResolvedRun:
    """What will be trained from which weights, kept under the run's id with all that it was resolved from."""
    workspace, policy = Workspace.open(), load_policy(recipe.root / recipe.policy)
    start = resolve_start(workspace, recipe, manifest, lock)
    room = workspace.settings.cache_bytes
    run = plan.plan_run(recipe, manifest, lock, policy, workspace.store, start, room)
    fetch_start(workspace, run.plan)
    claim(workspace.database, RESOLVED, flow_run.id)
    settle(workspace.database, RESOLVED, flow_run.id, run.run_id)
    log.info("start: %s", start.sentence)
    create_table_artifact(
        key="plan",
        table=[
            {"stage": s.name, "trains": ", ".join(s.rates), "parameters": s.trainable, "epochs": s.epochs}
            for s in run.plan.stages
        ],
        description=f"Run {run.run_id}: {run.plan.rows['train']:,} rows, {run.plan.parameters:,} parameters in all.",
    )
    return run


def find_resolved() -> ResolvedRun | None:
    """What this flow run resolved when it first came to it; None if it has not yet."""
    workspace = Workspace.open()
    run_id = outcome_of(workspace.database, RESOLVED, flow_run.id)
    return None if run_id is None else open_run(workspace.store, run_id)


@task(task_run_name="train run {run_id}", tags=["gpu"], **RETRIED)
def train_stages(
    run_id: str, restart: bool = False, accept_drift: tuple[str, ...] = (), time_limit_s: float | None = None
) -> ServingBundle:
    """All stages of the run, in a process of their own; an artifact shows step, loss and time left while it works."""
    progress = TrainingProgress()
    limit = None if time_limit_s is None else timedelta(seconds=time_limit_s)
    bundle = launch.train_stages(run_id, Workspace.open().store, progress, restart, accept_drift, limit)
    progress.finish()
    return bundle


class TrainingProgress:
    """Passes training events on to the log and to a progress artifact of the task run."""

    def __init__(self) -> None:
        self.artifact = cast("UUID", create_progress_artifact(progress=0.0, key="training", description="starting"))
        self.stage_started = self.published = self.logged = 0.0
        self.first_step = 0  # of this attempt
        self.score = "accuracy"  # what stands beside the loss on validation

    def __call__(self, event: dict[str, Any]) -> None:
        handle = getattr(self, f"on_{event['event']}")
        handle(event)

    def finish(self) -> None:
        # Said here, not by the last step: a stage may stop early, and one that is reused has no steps.
        self._publish(100.0, "all stages done")

    def _publish(self, progress: float, description: str) -> None:
        """Bring the artifact up to date, if the server is there; training does not wait for it."""
        try:
            update_progress_artifact(self.artifact, progress=progress, description=description)
        except httpx.HTTPError as error:
            log.warning("the Prefect server does not answer (%s): its page is behind", error)

    def on_reused(self, event: dict[str, Any]) -> None:
        log.info("stage %s: reused, %s of training not repeated", event["stage"], duration(event["seconds"]))

    def on_waiting(self, event: dict[str, Any]) -> None:
        log.info("%s trains this run: waiting for it", event["owner"])

    def on_prefix(self, event: dict[str, Any]) -> None:
        self.stage_started = time.monotonic()  # steps begin after this: their speed says how long they take
        if event["rows"] == event["of"]:
            who = "" if event["shares"] == 1 else f", the first of {event['shares']} shares"
            log.info("stage %s: what is frozen was computed for %d new rows%s", event["stage"], event["of"], who)
        elif self.stage_started - self.logged >= LOG_EVERY_S:
            self.logged = self.stage_started
            log.info("stage %s: computing what is frozen, row %d of %d", event["stage"], event["rows"], event["of"])

    def on_paired(self, event: dict[str, Any]) -> None:
        if event["single"]:
            text = "stage %s: %d of %d texts are one sentence, of which hidden words alone are told"
            log.info(text, event["stage"], event["single"], event["rows"])

    def on_resumed(self, event: dict[str, Any]) -> None:
        self.first_step = event["step"]
        self.stage_started = time.monotonic()
        log.info("stage %s: goes on at step %d of %d", event["stage"], event["step"], event["steps"])
        for change in event["drift"]:
            log.warning("stage %s: no longer exact to the bit, %s", event["stage"], change)

    def on_lost(self, event: dict[str, Any]) -> None:
        log.warning("the saved %s is gone or damaged: the stage starts again", event["kind"])

    def on_saved(self, event: dict[str, Any]) -> None:
        if event["first"]:
            log.info("stage %s: saved at step %d, and from now on as it goes", event["stage"], event["step"])

    def on_stage(self, event: dict[str, Any]) -> None:
        self.stage_started = self.logged = time.monotonic()
        self.first_step, self.score = 0, metric_name(event["score"])
        log.info("stage %s: %d of %d begins", event["stage"], event["index"] + 1, event["stages"])

    def on_step(self, event: dict[str, Any]) -> None:
        now = time.monotonic()
        left = (now - self.stage_started) / (event["step"] - self.first_step) * (event["steps"] - event["step"])
        text = "stage {stage}: step {step} of {steps}, loss {loss:.3f}, ".format(**event)
        text += f"{duration(left)} left, memory up to {memory(event['memory'])}"
        if now - self.published >= PUBLISH_EVERY_S or event["step"] == event["steps"]:
            self.published = now
            self._publish(100 * event["step"] / event["steps"], text)
        if now - self.logged >= LOG_EVERY_S:
            self.logged = now
            log.info(text)

    def on_epoch(self, event: dict[str, Any]) -> None:
        log.info(
            "stage %s: epoch %d in %s, validation loss %.3f, validation %s %.3f",
            event["stage"],
            event["epoch"],
            duration(event["seconds"]),
            event["validation_loss"],
            self.score,
            event["validation_accuracy"],
        )
