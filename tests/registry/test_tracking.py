"""MLflow runs: a tree per run id, every point once, and no run left behind by a dead process."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import resolve_run, write_family_project

from graftwork.errors import RegistryError, ServiceUnavailable
from graftwork.models.adapters import Adapters
from graftwork.owners import this_owner
from graftwork.registry.client import experiment_of, reach_mlflow
from graftwork.registry.tracking import (
    OWNER,
    RUN_ID,
    attach_files,
    close_dead_runs,
    close_run,
    find_run,
    log_training,
    stage_params,
)
from graftwork.settings import Settings
from graftwork.training.bundle import ServingBundle
from graftwork.training.estimate import Estimate, StageEstimate, keep_estimate
from graftwork.training.plan import TrainingPlan
from graftwork.training.reading import measure_reading
from graftwork.workspace import Workspace


def test_resumed_run_logs_no_point_twice(workspace: Workspace, plan: TrainingPlan, bundle: ServingBundle) -> None:
    """Logged after one stage, then as a whole, then once more: each point of each curve is there once."""
    first = log_training(workspace, "run1", plan, bundle.stages[:1])
    assert log_training(workspace, "run1", plan, bundle.stages) == first
    assert log_training(workspace, "run1", plan, bundle.stages) == first
    with reach_mlflow(workspace.settings) as client:
        experiment = experiment_of(client, workspace.settings, plan.name)
        assert len(client.search_runs([experiment])) == 1 + len(bundle.stages)
        for result in bundle.stages:
            child = find_run(client, experiment, "run1", result.stage)
            assert child is not None
            assert child.data.tags["mlflow.parentRunId"] == first
            assert child.info.status == "FINISHED"
            losses = client.get_metric_history(child.info.run_id, "train/loss")
            assert [(point.step, point.value) for point in losses] == [(s.step, s.loss) for s in result.steps]
            accuracies = client.get_metric_history(child.info.run_id, "validation/accuracy")
            assert [point.value for point in accuracies] == [epoch.validation_accuracy for epoch in result.epochs]


def test_a_stage_that_was_reused_goes_by_its_new_name(
    workspace: Workspace, plan: TrainingPlan, bundle: ServingBundle
) -> None:
    """Its result says what it was called when it was trained; the recipe may call it something else by now."""
    renamed = replace(plan, stages=(replace(plan.stages[0], name="first"), *plan.stages[1:]))
    log_training(workspace, "run1", renamed, bundle.stages)
    with reach_mlflow(workspace.settings) as client:
        assert find_run(client, experiment_of(client, workspace.settings, plan.name), "run1", "first") is not None


def test_what_was_estimated_stands_beside_what_it_took(
    workspace: Workspace, plan: TrainingPlan, bundle: ServingBundle
) -> None:
    """As tags of the stage's run; a stage that was not probed has what it took."""
    probed, other = plan.stages[:2]
    stage = StageEstimate(probed.name, probed.key, 9, 0, 61.5, 0.0, 0.1, 5 << 30, 0, 64, 1.0)
    keep_estimate(workspace.store, Estimate("run1", 9 << 30, (stage,), True, None))
    log_training(workspace, "run1", plan, bundle.stages)
    with reach_mlflow(workspace.settings) as client:
        experiment = experiment_of(client, workspace.settings, plan.name)
        tags = [find_run(client, experiment, "run1", name).data.tags for name in (probed.name, other.name)]
    took = {"graftwork.seconds": "3", "graftwork.peak_bytes": str(1 << 30)}
    expected = {"graftwork.estimated_seconds": "62", "graftwork.estimated_peak_bytes": str(5 << 30)}
    assert tags[0].items() >= (took | expected).items()
    assert tags[1].items() >= took.items() and not expected.keys() & tags[1].keys()


def test_child_killed_while_it_was_logged_is_completed(
    workspace: Workspace, plan: TrainingPlan, bundle: ServingBundle
) -> None:
    """A child run that holds part of its points gets the rest, and only the rest."""
    log_training(workspace, "run1", plan, bundle.stages)
    result = bundle.stages[1]
    with reach_mlflow(workspace.settings) as client:
        experiment = experiment_of(client, workspace.settings, plan.name)
        whole = find_run(client, experiment, "run1", result.stage)
        assert whole is not None
        client.delete_run(whole.info.run_id)
        tags = {RUN_ID: "run1", "graftwork.stage": result.stage, OWNER: this_owner()}
        torn = client.create_run(experiment, tags=tags).info.run_id
        client.log_metric(torn, "train/loss", result.steps[0].loss, step=result.steps[0].step)
    log_training(workspace, "run1", plan, bundle.stages)
    with reach_mlflow(workspace.settings) as client:
        assert [p.step for p in client.get_metric_history(torn, "train/loss")] == [s.step for s in result.steps]
        assert client.get_run(torn).info.status == "FINISHED"


def test_run_of_a_dead_process_is_closed_and_can_go_on(
    workspace: Workspace, plan: TrainingPlan, bundle: ServingBundle
) -> None:
    """A run whose owner ended is KILLED at the next start, a living owner's is not; the run id continues it."""
    run = log_training(workspace, "run1", plan, bundle.stages[:1])
    assert close_dead_runs(workspace) == []
    with reach_mlflow(workspace.settings) as client:
        client.set_tag(run, OWNER, owner_of_a_dead_process())
    assert close_dead_runs(workspace) == [run]
    with reach_mlflow(workspace.settings) as client:
        assert client.get_run(run).info.status == "KILLED"
    assert log_training(workspace, "run1", plan, bundle.stages) == run
    close_run(workspace, run)
    with reach_mlflow(workspace.settings) as client:
        assert client.get_run(run).info.status == "FINISHED"
    assert close_dead_runs(workspace) == []


def owner_of_a_dead_process() -> str:
    """The name of a real process that has ended."""
    code = "from graftwork.owners import this_owner; print(this_owner())"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_files_are_attached_to_the_run(
    workspace: Workspace, plan: TrainingPlan, bundle: ServingBundle, tmp_path: Path
) -> None:
    """A report attached again replaces the one before."""
    run = log_training(workspace, "run1", plan, bundle.stages)
    report = tmp_path / "report.html"
    for text in ("first", "second"):
        report.write_text(text)
        attach_files(workspace, run, [report])
    with reach_mlflow(workspace.settings) as client:
        assert [file.path for file in client.list_artifacts(run)] == ["report.html"]
        assert Path(client.download_artifacts(run, "report.html")).read_text() == "second"


def test_absent_server_is_reported_as_such_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens there: ServiceUnavailable after bounded retries, and the URL is shown without credentials."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:hidden@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = pytest.raises(ServiceUnavailable, match=r"MLflow at http://127\.0\.0\.1:9")
    with away as raised, reach_mlflow(Settings()) as client:
        client.search_experiments()
    assert "hidden" not in str(raised.value)


def test_adapters_are_among_what_runs_are_compared_by(plan: TrainingPlan) -> None:
    """A stage that had some says which; another says nothing of them."""
    without = plan.stages[0]
    adapters = Adapters(rank=4, alpha=8.0, dropout=0.1, dora=True, layers=(), depth=1, parameters=0)
    said = stage_params(replace(without, adapters=adapters))
    added = {"lora.rank": 4, "lora.alpha": 8.0, "lora.dropout": 0.1, "lora.dora": True}
    assert said == stage_params(without) | added


def test_refusal_of_the_server_is_not_worth_another_try(workspace: Workspace) -> None:
    """What MLflow refuses is a RegistryError with its reason."""
    with pytest.raises(RegistryError, match=r"refused: .*no_such_run"), reach_mlflow(workspace.settings) as client:
        client.get_run("no_such_run")


@pytest.mark.e2e
def test_processes_that_start_at_once_share_one_fresh_store(
    start_together: Callable[[str, int], list[subprocess.CompletedProcess[str]]],
) -> None:
    """Several processes opening an embedded store that is not there yet all succeed."""
    code = (
        "from graftwork.registry.client import reach_mlflow, experiment_of\n"
        "from graftwork.settings import Settings\n"
        "settings = Settings()\n"
        "with reach_mlflow(settings) as client:\n"
        "    print(experiment_of(client, settings, 'shared'))\n"
    )
    outcomes = start_together(code, 2)
    assert [outcome.returncode for outcome in outcomes] == [0, 0], outcomes
    assert len({outcome.stdout for outcome in outcomes}) == 1


def test_what_is_cut_and_unknown_is_logged(tmp_path: Path, workspace: Workspace, bundle: ServingBundle) -> None:
    """With the run, once, for each side."""
    write_family_project(tmp_path, "word-vectors")
    run = resolve_run(tmp_path, workspace, "input.max_tokens=6")
    reading = measure_reading(workspace.store, run)
    assert reading is not None
    for _ in range(2):
        logged = log_training(workspace, run.run_id, run.plan, ())
    with reach_mlflow(workspace.settings) as client:
        metrics = client.get_run(logged).data.metrics
        assert len(client.get_metric_history(logged, "reading/holdout/unknown_share")) == 1
    assert metrics == reading.shares
    assert metrics["reading/train/cut_share"] == 1
