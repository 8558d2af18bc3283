"""A team leaves it alone: recipes are deployed, data lands, processes die, and each manifest is trained on once."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from projects import AMAZON, RECIPE, ROOT, shorten
from servers import commands, postgres_server
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import make_url
from up import Team, listening, team_up

pytestmark = pytest.mark.e2e

MODEL = "review-sentiment"
SECRETS = {
    "PREFECT_SERVER_API_AUTH_STRING": "team:planted-prefect-9f2c",
    "PREFECT_API_AUTH_STRING": "team:planted-prefect-9f2c",
    "AWS_SECRET_ACCESS_KEY": "planted-aws-51d7",
    "HF_TOKEN": "planted-hub-c03e",
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-77aa",
}
DATABASE_PASSWORD = "planted-database-04be"


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Servers and workers of `graftwork up` on PostgreSQL; the Amazon reviews have not landed."""
    places = [tmp_path_factory.mktemp(name) for name in ("postgres", "team")]
    with postgres_server(places[0]) as postgres:
        server = make_url(postgres.get_uri()).set(password=DATABASE_PASSWORD).render_as_string(hide_password=False)
        with team_up(places[1], {}, server, SECRETS) as there:
            yield there


def retraining(team: Team, number: int) -> dict[str, Any]:
    """The flow run that the watch started as its so manieth."""
    return team.wait_for(lambda: team.runs(manifest=None)[number - 1 : number])[0]


@pytest.fixture(scope="module")
def heard(team: Team) -> Iterator[list[dict[str, str]]]:
    """What the team is told by its notification block."""
    with listening(team) as heard:
        yield heard


@pytest.fixture(scope="module")
def deployed(team: Team, heard: list[dict[str, str]]) -> Any:
    return team.call("deploy", RECIPE)


def test_deploying_again_changes_nothing(team: Team, deployed: Any) -> None:
    """The same deployments under the same ids, and one automation of each name."""
    before = {(each["name"], each["id"]) for each in team.ask("deployments")}
    assert team.call("deploy", RECIPE) == deployed
    assert {(each["name"], each["id"]) for each in team.ask("deployments")} == before
    assert sorted(each["name"] for each in team.ask("automations")) == sorted(deployed["automations"])
    assert deployed["deployments"] == [
        f"finetune/{MODEL}",
        "train/gpu",
        "watch/all",
        "watch/landed",
        "monitor/all",
        "promote/by-hand",
        "rollback/by-hand",
        "decide/by-hand",
    ]


def test_what_is_there_is_trained_on_without_a_word(team: Team, deployed: Any, heard: list[dict[str, str]]) -> None:
    """The movies lie there: the watch finds them, the first version becomes champion, and the team is told."""
    first = team.wait_for(lambda: team.over(retraining(team, 1)))
    assert first["state_type"] == "COMPLETED"
    (said,) = team.wait_for(lambda: heard)
    assert said["subject"] == f"{MODEL}: version 1 is the champion"
    assert first["id"] in said["body"]
    assert [entry["rule"] for entry in team.call("history", MODEL)] == ["baselines"]
    assert {each["state"] for each in team.call("doctor")} == {"good"}


def test_what_is_handed_in_is_trained_on_once_though_its_process_dies(team: Team, deployed: Any) -> None:
    """The flow that trains is killed, and then the one that waits for it: both go on as they were."""
    team.wait_for(lambda: team.over(retraining(team, 1)))
    shorten(ROOT / "examples/reviews/amazon.tsv", team.project.folder.parent / "amazon.tsv", AMAZON)
    handed_in = time.time()
    team.call("land", str(team.project.folder.parent / "amazon.tsv"), "--recipe", RECIPE)
    process = team.wait_for(team.trainer)
    print(f"landing to training: {time.time() - handed_in:.0f} s")
    killed = time.time()
    os.kill(process.pid, signal.SIGKILL)
    team.wait_for(lambda: (found := team.trainer()) and found.pid != process.pid)
    print(f"killed to training again: {time.time() - killed:.0f} s")
    team.kill_run(retraining(team, 2))
    second = team.wait_for(lambda: team.over(retraining(team, 2)))
    assert second["state_type"] == "COMPLETED"
    assert second["run_count"] > 1
    first_training, second_training = team.runs(run_id=None)
    assert second_training["run_count"] > first_training["run_count"] == 1
    assert [version["version"]["version"] for version in team.call("models", MODEL)] == [2, 1]
    manifests = [run["parameters"]["manifest"] for run in team.runs(manifest=None)]
    assert len(manifests) == len(set(manifests)) == 2
    assert team.call("audit")["problems"] == []


def test_the_page_tells_what_was_done_here() -> None:
    """Every command of docs/operations.md is one that these tests run; adopt, those of the registry."""
    run = {"adopt", "up", "deploy", "land", "promote", "rollback", "history", "audit", "doctor", "prune"}
    script = "\n".join(commands(ROOT / "docs/operations.md").values())
    assert {line.split()[1] for line in script.splitlines()} == run
    assert all(line.startswith("graftwork ") for line in script.splitlines())


def test_a_person_promotes_and_goes_back(team: Team, deployed: Any) -> None:
    """By hand, whatever the verdict was; the ledger, the alias and the audit agree."""
    team.wait_for(lambda: team.over(retraining(team, 2)))
    if team.call("history", MODEL)[-1]["to_version"] == 1:
        team.call("promote", MODEL, "2", "--reason", "it has read both kinds of reviews")
    assert team.call("rollback", MODEL, "--reason", "complaints")["to_version"] == 1
    serving_now = [each["version"]["version"] for each in team.call("models", MODEL) if "champion" in each["aliases"]]
    assert serving_now == [1]
    assert team.call("prune") == []
    assert team.call("audit")["problems"] == []


def test_no_secret_was_written_down(team: Team, deployed: Any) -> None:
    """In no file, no log, no artifact and no row of any of the three databases, after all that was done here."""
    team.wait_for(lambda: team.over(retraining(team, 2)))
    planted = [secret.encode() for secret in {*SECRETS.values(), DATABASE_PASSWORD}]
    planted += [secret.rpartition(b":")[2] for secret in planted]
    found = [
        str(path)
        for path in team.project.folder.parent.rglob("*")
        if path.is_file() and any(secret in path.read_bytes() for secret in planted)
    ]
    assert found == []
    for database in ("prefect", "mlflow", "graftwork"):
        engine = create_engine(make_url(team.environment["GRAFTWORK_DB"]).set(database=database))
        with engine.connect() as connection:
            for table in inspect(engine).get_table_names():
                told = connection.execute(text(f'SELECT CAST(t AS text) FROM "{table}" t')).scalars()
                assert not any(secret.decode() in row for row in told for secret in planted), f"{database}.{table}"
        engine.dispose()
