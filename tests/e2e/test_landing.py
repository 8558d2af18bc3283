"""A team leaves it alone: recipes are deployed, data lands, processes die, and each manifest is trained on once."""

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from projects import AMAZON, RECIPE, ROOT, STAGES, Project, make_project, processes_below, shorten
from servers import commands, environment_for, free_port, serving

pytestmark = pytest.mark.e2e

MODEL = "review-sentiment"
SMALL = {
    "batch_tokens: 400": "batch_tokens: 800",
    "max_tokens: 128": "max_tokens: 32",
    "baselines: [majority, tfidf, frozen-head]": "baselines: [majority, tfidf]",
    "min_rows: 500, quiet: 10m": "min_rows: 50, quiet: 1s",
}
WITHIN_S = 300


@dataclass(frozen=True)
class Team:
    """A project, and where the servers of `graftwork up` are that run its deployments."""

    project: Project
    api: str
    mlflow: str

    def call(self, *arguments: str) -> Any:
        """What a command of graftwork prints with --json."""
        return self.project.json(*arguments, PREFECT_API_URL=self.api, MLFLOW_TRACKING_URI=self.mlflow)

    def ask(self, what: str, **wanted: Any) -> list[dict[str, Any]]:
        request = urllib.request.Request(
            f"{self.api}/{what}/filter", json.dumps(wanted).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def runs(self) -> list[tuple[str, str]]:
        """The names and states of what was to run, as far as the server tells."""
        with suppress(OSError):
            return [(run["name"], run["state_type"]) for run in self.ask("flow_runs")]
        return []

    def retrainings(self) -> list[dict[str, Any]]:
        """Flow runs that the watch started, in their order."""
        runs = self.ask("flow_runs", sort="EXPECTED_START_TIME_ASC")
        return [run for run in runs if run["parameters"].get("manifest")]

    def wait_for(self, what: Callable[[], Any]) -> Any:
        """What there is, once there is something; a server that is busy for a while is asked again."""
        deadline, found = time.monotonic() + WITHIN_S, None
        while not found:
            with suppress(OSError):
                found = what()
            assert found or time.monotonic() < deadline, f"waited in vain; runs: {self.runs()}"
            time.sleep(0.5)
        return found

    def ended(self, number: int) -> dict[str, Any] | None:
        """The flow run of the retraining with that number, if it is over."""
        found = self.retrainings()[number - 1 : number]
        return next((run for run in found if run["state_type"] in {"COMPLETED", "FAILED"}), None)

    def trainer(self) -> psutil.Process | None:
        """The flow's own process while its training runs."""
        for process in psutil.process_iter(["cmdline"]):
            command = " ".join(process.info["cmdline"] or [])
            if "graftwork.training.process" in command and Path(process.cwd()) == self.project.folder:
                return process.parent()
        return None


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Servers and workers of `graftwork up`, for a small project; the Amazon reviews have not landed."""
    folder = tmp_path_factory.mktemp("team")
    project, ports = make_project(folder / "project"), (free_port(), free_port())
    recipe = project.folder / RECIPE
    text = recipe.read_text()
    head, _, tail = text.partition("stages:\n")
    text = head + "stages:\n" + "".join(f"  - {stage}\n" for stage in STAGES) + tail[tail.index("evaluation:") :]
    for said, small in SMALL.items():
        assert said in text
        text = text.replace(said, small)
    recipe.write_text(text)
    there = Team(project, f"http://127.0.0.1:{ports[0]}/api", f"http://127.0.0.1:{ports[1]}")
    up = f"cd {project.folder} && exec graftwork up --prefect-port {ports[0]} --mlflow-port {ports[1]}"
    started = time.monotonic()
    with serving(up, folder / "up", environment_for(), down_within_s=120) as told:
        there.wait_for(lambda: "in other terminals" in told.read_text())
        print(f"up: {time.monotonic() - started:.0f} s")
        yield there
    assert processes_below(folder) == []


@pytest.fixture(scope="module")
def deployed(team: Team) -> Any:
    return team.call("deploy", RECIPE)


def test_deploying_again_changes_nothing(team: Team, deployed: Any) -> None:
    """The same deployments under the same ids, and one automation of each name."""
    before = {each["name"]: each["id"] for each in team.ask("deployments")}
    assert team.call("deploy", RECIPE) == deployed
    assert {each["name"]: each["id"] for each in team.ask("deployments")} == before
    assert sorted(each["name"] for each in team.ask("automations")) == sorted(deployed["automations"])
    assert deployed["deployments"] == [f"finetune/{MODEL}", "watch/all", "watch/landed", "monitor/all"]


def test_what_is_there_is_trained_on_without_a_word(team: Team, deployed: Any) -> None:
    """The movies lie there: the watch finds them, and the first version becomes champion."""
    first = team.wait_for(lambda: team.ended(1))
    assert first["state_type"] == "COMPLETED"
    assert [entry["rule"] for entry in team.call("history", MODEL)] == ["baselines"]


def test_what_is_handed_in_is_trained_on_once_though_its_process_dies(team: Team, deployed: Any) -> None:
    """Looked at at once; the flow's process is killed in its training, and the same flow run goes on with its data."""
    team.wait_for(lambda: team.ended(1))
    shorten(ROOT / "examples/reviews/amazon.tsv", team.project.folder.parent / "amazon.tsv", AMAZON)
    handed_in = time.time()
    team.call("land", str(team.project.folder.parent / "amazon.tsv"), "--recipe", RECIPE)
    process = team.wait_for(team.trainer)
    print(f"landing to training: {time.time() - handed_in:.0f} s")
    killed = time.time()
    os.kill(process.pid, signal.SIGKILL)
    team.wait_for(lambda: (found := team.trainer()) and found.pid != process.pid)
    print(f"killed to training again: {time.time() - killed:.0f} s")
    second = team.wait_for(lambda: team.ended(2))
    assert second["state_type"] == "COMPLETED"
    assert second["run_count"] > 1
    assert [version["version"]["version"] for version in team.call("models", MODEL)] == [2, 1]
    manifests = [run["parameters"]["manifest"] for run in team.retrainings()]
    assert len(manifests) == len(set(manifests)) == 2
    assert team.call("audit")["problems"] == []


def test_the_page_tells_what_was_done_here() -> None:
    """Every command of docs/operations.md is one that these tests run."""
    run = {"up", "deploy", "land", "promote", "rollback", "history", "audit"}
    script = "\n".join(commands(ROOT / "docs/operations.md").values())
    assert {line.split()[1] for line in script.splitlines()} == run
    assert all(line.startswith("graftwork ") for line in script.splitlines())


def test_a_person_promotes_and_goes_back(team: Team, deployed: Any) -> None:
    """By hand, whatever the verdict was; the ledger, the alias and the audit agree."""
    team.wait_for(lambda: team.ended(2))
    if team.call("history", MODEL)[-1]["to_version"] == 1:
        team.call("promote", MODEL, "2", "--reason", "it has read both kinds of reviews")
    assert team.call("rollback", MODEL, "--reason", "complaints")["to_version"] == 1
    serving_now = [each["version"]["version"] for each in team.call("models", MODEL) if "champion" in each["aliases"]]
    assert serving_now == [1]
    assert team.call("audit")["problems"] == []
