"""MLflow tracking: one parent run per run id, a child run for each stage, and each point logged once.

All that is logged comes from records that lie in the store, and what is in MLflow already is skipped. So a run that was
killed, or an MLflow that was away, costs a second call and nothing else.
Not here: versions and aliases (versions.py).
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from graftwork.owners import is_alive, this_owner
from graftwork.registry.client import experiment_of, reach_mlflow
from graftwork.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, Metric, Run

    from graftwork.data.manifest import DatasetManifest
    from graftwork.evaluation.evaluation import Evaluation
    from graftwork.training.bundle import StageResult
    from graftwork.training.estimate import StageEstimate
    from graftwork.training.plan import TrainingPlan
    from graftwork.training.stages import Stage

PARAM_CHARACTERS = 500
DIGEST_CHARACTERS = 36
BATCH = 1000  # metrics in one request, MLflow's limit
RUN_ID, STAGE, OWNER = "graftwork.run_id", "graftwork.stage", "graftwork.owner"
MANIFEST = "graftwork.manifest"


def log_training(workspace: Workspace, run_id: str, plan: "TrainingPlan", stages: "Sequence[StageResult]") -> str:
    """The MLflow run of `run_id`, RUNNING, with a child run for each finished stage; returns its id.

    May be called after every stage, and again after a crash: it goes on where the last call ended.
    """
    from mlflow.entities import Metric

    from graftwork.training.estimate import find_estimate
    from graftwork.training.reading import find_reading

    reading = find_reading(workspace.store, plan)
    shares = [Metric(name, share, _now_ms(), 0) for name, share in (reading.shares if reading else {}).items()]
    estimate = find_estimate(workspace.store, run_id)
    estimated = {stage.key: stage for stage in estimate.stages} if estimate else {}
    with reach_mlflow(workspace.settings) as client:
        experiment = experiment_of(client, workspace.settings, plan.name)
        parent = _open_run(client, experiment, run_id, "", run_id, plan_tags(plan))
        log_once(client, parent, shares, plan_params(plan))
        # By place: a stage that was reused may have had another name in the recipe that it was trained for.
        for stage, result in zip(plan.stages, stages, strict=False):
            tags = {"mlflow.parentRunId": parent} | stage_tags(result, estimated.get(stage.key))
            _log_stage(client, experiment, run_id, tags, stage, result, plan.target.score)
        return parent


def close_run(workspace: Workspace, mlflow_run: str, status: str = "FINISHED") -> None:
    """End the MLflow run: FINISHED, FAILED or KILLED."""
    with reach_mlflow(workspace.settings) as client:
        client.set_terminated(mlflow_run, status)


def attach_files(workspace: Workspace, mlflow_run: str, files: Sequence[Path]) -> None:
    """Put the files (report, model card, verdict) beside the run's other artifacts; older ones are replaced."""
    with reach_mlflow(workspace.settings) as client:
        for path in files:
            client.log_artifact(mlflow_run, str(path))


def close_dead_runs(workspace: Workspace) -> list[str]:
    """End as KILLED every run of ours that is RUNNING though its process is gone; the ids of those runs."""
    if workspace.settings.is_mlflow_embedded and not (workspace.settings.home / "mlflow.db").exists():
        return []
    with reach_mlflow(workspace.settings) as client:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        running = client.search_runs(experiments, f"attributes.status = 'RUNNING' and tags.`{OWNER}` LIKE '%'")
        dead = [run.info.run_id for run in running if not is_alive(run.data.tags[OWNER])]
        for run in dead:
            client.set_terminated(run, "KILLED")
        return dead


def log_once(
    client: "MlflowClient", mlflow_run: str, metrics: Sequence["Metric"], params: Mapping[str, object] | None = None
) -> None:
    """Log the metrics that the run has no point of at their step, and the params."""
    from mlflow.entities import Param

    begun = {metric.key for metric in metrics} & client.get_run(mlflow_run).data.metrics.keys()
    logged = {(key, point.step) for key in begun for point in client.get_metric_history(mlflow_run, key)}
    missing = [metric for metric in metrics if (metric.key, metric.step) not in logged]
    texts = [Param(key, str(value)[:PARAM_CHARACTERS]) for key, value in (params or {}).items()]
    client.log_batch(mlflow_run, metrics=missing[:BATCH], params=texts)
    for start in range(BATCH, len(missing), BATCH):
        client.log_batch(mlflow_run, metrics=missing[start : start + BATCH])


def log_evaluation(
    client: "MlflowClient", mlflow_run: str, model_id: str, manifest: "DatasetManifest", evaluation: "Evaluation"
) -> None:
    """The holdout metrics with their intervals, on the run and tied to the model and to the data it was judged on."""
    from mlflow.entities import DatasetInput, InputTag, Metric

    dataset = _dataset(manifest)
    client.log_inputs(mlflow_run, [DatasetInput(dataset, [InputTag("mlflow.data.context", "holdout")])])
    values = {f"holdout/{name}": interval for name, interval in evaluation.metrics.items()}
    for baseline, metrics in evaluation.baselines.items():
        values |= {f"baseline/{baseline}/{name}": interval for name, interval in metrics.items()}
    points = {
        f"{name}{suffix}": value
        for name, interval in values.items()
        for suffix, value in (("", interval.value), ("/low", interval.low), ("/high", interval.high))
    }
    tied = {"model_id": model_id, "dataset_name": dataset.name, "dataset_digest": dataset.digest, "run_id": mlflow_run}
    log_once(client, mlflow_run, [Metric(name, value, _now_ms(), 0, **tied) for name, value in points.items()])


def holdout_metrics(run: "Run") -> dict[str, float]:
    """The metrics that `log_evaluation` put on the run, without their intervals and the baselines."""
    names = {key: key.removeprefix("holdout/") for key in run.data.metrics if key.count("/") == 1}
    return {name: run.data.metrics[key] for key, name in names.items() if key != name}


def _dataset(manifest: "DatasetManifest") -> "Dataset":
    """The manifest as MLflow's dataset: a name and a digest, no rows."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    source = CodeDatasetSource({MANIFEST: manifest.digest})
    return MetaDataset(source, manifest.lineage, manifest.digest[:DIGEST_CHARACTERS])._to_mlflow_entity()


def _open_run(
    client: "MlflowClient", experiment: str, run_id: str, stage: str, name: str, tags: Mapping[str, str]
) -> str:
    """The run with these ids, set to RUNNING by this process; made if there is none."""
    found = find_run(client, experiment, run_id, stage)
    ours = {RUN_ID: run_id, STAGE: stage, OWNER: this_owner()} | dict(tags)
    if found is None:
        source = {"mlflow.source.name": "graftwork", "mlflow.source.type": "LOCAL"}
        return client.create_run(experiment, tags=ours | source, run_name=name).info.run_id
    for key, value in ours.items():
        client.set_tag(found.info.run_id, key, value)
    client.update_run(found.info.run_id, status="RUNNING")
    return found.info.run_id


def find_run(client: "MlflowClient", experiment: str, run_id: str, stage: str = "") -> "Run | None":
    """The oldest run with this run id (and stage), or None."""
    wanted = f"tags.`{RUN_ID}` = '{run_id}' and tags.`{STAGE}` = '{stage}'"
    found = client.search_runs([experiment], wanted, max_results=1, order_by=["attributes.start_time ASC"])
    return found[0] if found else None


def _log_stage(
    client: "MlflowClient",
    experiment: str,
    run_id: str,
    tags: Mapping[str, str],
    stage: "Stage",
    result: "StageResult",
    score: str,
) -> None:
    found = find_run(client, experiment, run_id, stage.name)
    if found is not None and found.info.status == "FINISHED":
        return
    child = _open_run(client, experiment, run_id, stage.name, f"stage {stage.name}", tags)
    log_once(client, child, stage_metrics(result, score), stage_params(stage))
    client.set_terminated(child)


def stage_metrics(result: "StageResult", score: str = "accuracy") -> list["Metric"]:
    """The learning curves of a stage; a step is one optimiser step of it. score: what stands beside the loss."""
    from mlflow.entities import Metric

    now = _now_ms()
    points = [
        (f"train/{name}", getattr(step, name), step.step) for step in result.steps for name in ("loss", "rate_scale")
    ]
    points += [
        (f"validation/{name}", value, epoch.step)
        for epoch in result.epochs
        for name, value in (("loss", epoch.validation_loss), (score, epoch.validation_accuracy))
    ]
    return [Metric(key, float(value), now, step) for key, value, step in points]


def plan_params(plan: "TrainingPlan") -> dict[str, object]:
    """What a person compares runs by."""
    names = ("name", "problem_type", "pooling", "max_tokens", "dropout", "seed", "batch_tokens", "precision")
    rows = {f"rows.{side}": count for side, count in plan.rows.items()}
    shape = {"parameters": plan.parameters, "classes": ", ".join(plan.classes), "stages": len(plan.stages)}
    others = {"hidden_layers": list(plan.hidden_layers), "start": plan.start.sentence}
    return {name: getattr(plan, name) for name in names} | rows | shape | others


def stage_params(stage: "Stage") -> dict[str, object]:
    """How a stage was trained; its rates as JSON, by depth group."""
    facts = {name: value for name, value in asdict(stage).items() if name not in ("name", "key", "adapters")}
    if stage.adapters is not None:
        facts |= {f"lora.{name}": getattr(stage.adapters, name) for name in ("rank", "alpha", "dropout", "dora")}
    return facts | {"rates": json.dumps(stage.rates)}


def stage_tags(result: "StageResult", estimate: "StageEstimate | None") -> dict[str, str]:
    """The weights that a stage left, what it took, and what a probe had said that it would take."""
    tags = {"graftwork.weights": result.weights_digest}
    for prefix, cost in (("", result), ("estimated_", estimate)):
        if cost is not None:
            tags |= {f"graftwork.{prefix}{name}": str(round(getattr(cost, name))) for name in ("seconds", "peak_bytes")}
    return tags


def plan_tags(plan: "TrainingPlan") -> dict[str, str]:
    """The digests that tell what a run was computed from."""
    return {
        "graftwork.recipe": plan.recipe_digest,
        MANIFEST: plan.manifest,
        "graftwork.checkpoint": plan.checkpoint,
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
