"""Recipes that are run by the clock, on the servers of `graftwork up` with its databases in files."""

import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from projects import RECIPE
from servers import environment_for
from up import Team, listening, team_up, write_recipe

pytestmark = pytest.mark.e2e

EVERY_S = {"by-cron": 60, "by-interval": 20}
SCHEDULES = {"by-cron": '{cron: "* * * * *", timezone: Europe/Berlin}', "by-interval": "{interval: 20s}"}


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with team_up(tmp_path_factory.mktemp("team"), {}) as there:
        yield there


def write_scheduled(folder: Path, name: str, schedule: str) -> str:
    """A recipe whose data is not there, so that a run of it is soon over; its path in the project."""
    path = f"recipes/{name}.yaml"
    changes = {
        "name: review-sentiment\n": f"name: {name}\n",
        "examples/reviews/movies.tsv": "examples/reviews/not-there.tsv",
        "while_running: coalesce": f"while_running: coalesce, schedule: {schedule}",
    }
    write_recipe(folder / path, changes)
    (folder / path).with_suffix(".lock.json").write_bytes((folder / RECIPE).with_suffix(".lock.json").read_bytes())
    return path


@pytest.fixture(scope="module")
def paths(team: Team) -> list[str]:
    return [write_scheduled(team.project.folder, *each) for each in SCHEDULES.items()]


def test_recipes_run_when_their_schedules_say_so(team: Team, paths: list[str]) -> None:
    """Twice each, on nobody's word and when they were to; their pages say what is wrong with the data."""
    team.call("deploy", *paths)
    for path in paths:
        runs = team.wait_for(lambda path=path: ended(team, path)[1:] and ended(team, path))
        assert all(run["auto_scheduled"] for run in runs)
        first, second = (datetime.fromisoformat(run["expected_start_time"]) for run in runs[:2])
        assert (second - first).total_seconds() % EVERY_S[Path(path).stem] == 0
        assert all("not-there.tsv" in run["state"]["message"] for run in runs)


def ended(team: Team, path: str) -> list[dict[str, Any]]:
    return [run for each in team.runs(recipe=path) if (run := team.over(each))]


def test_so_many_train_at_once_as_the_team_says(team: Team, paths: list[str]) -> None:
    """Few at first; the limit that a team sets outlives the next deployment."""

    def limit() -> int:
        (queue,) = [each for each in team.ask("work_pools/cpu/queues") if each["name"] == "finetune"]
        return int(queue["concurrency_limit"])

    team.call("deploy", *paths)
    assert limit() == 4
    known = {run["work_queue_name"] for path in paths for run in team.runs(recipe=path)}
    assert known == {"finetune"}
    words = ["work-queue", "set-concurrency-limit", "finetune", "7", "--pool", "cpu"]
    subprocess.run(["prefect", *words], env=environment_for(PREFECT_API_URL=team.api), check=True, capture_output=True)
    team.call("deploy", *paths)
    assert limit() == 7


def test_the_team_is_told_what_failed(team: Team, paths: list[str]) -> None:
    """By its own notification block, once there is one."""
    assert "notifications" in {each["what"] for each in team.call("doctor") if each["state"] == "note"}
    with listening(team) as heard:
        assert "graftwork: tell the team" in team.call("deploy", *paths)["automations"]
        run = team.start("finetune/by-cron")
        team.wait_for(lambda: any("not-there.tsv" in said["body"] and run["id"] in said["body"] for said in heard))
    assert all(said["subject"].endswith(".yaml failed") for said in heard)
    assert "notifications" in {each["what"] for each in team.call("doctor") if each["state"] == "good"}
