"""A small project on the servers and workers of `graftwork up`, and what its people can see and kill."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
from projects import RECIPE, ROOT, STAGES, Project, make_project, processes_below
from servers import ask_prefect, environment_for, free_port, post_json, serving

WITHIN_S = 900
INIT = 1
SMALL = {
    "batch_tokens: 400": "batch_tokens: 800",
    "max_tokens: 128": "max_tokens: 32",
    "baselines: [majority, tfidf, frozen-head]": "baselines: [majority, tfidf]",
    "min_rows: 500, quiet: 10m": "min_rows: 50, quiet: 1s",
}
SAVE_BLOCK = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock

said = {"subject": "{{subject}}", "body": "{{body}}"}
CustomWebhookNotificationBlock(name="team", url=sys.argv[1], json_data=said).save("graftwork")
"""
OVER = {"COMPLETED", "FAILED", "CANCELLED"}


@dataclass(frozen=True)
class Team:
    """A project, and where the servers are that run its deployments. environment: what its people were told to set."""

    project: Project
    api: str
    mlflow: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def call(self, *arguments: str) -> Any:
        """What a command of graftwork prints with --json."""
        servers = {"PREFECT_API_URL": self.api, "MLFLOW_TRACKING_URI": self.mlflow}
        return self.project.json(*arguments, **servers, **self.environment)

    def ask(self, what: str, **wanted: Any) -> list[dict[str, Any]]:
        """Prefect's records of a kind."""
        return ask_prefect(self.api, what, self.environment.get("PREFECT_API_AUTH_STRING", ""), **wanted)

    def runs(self, **parameters: Any) -> list[dict[str, Any]]:
        """Flow runs with these parameters, whatever they are where None is asked for, in their order."""
        runs = self.ask("flow_runs", sort="EXPECTED_START_TIME_ASC")
        return [run for run in runs if all(_has(run["parameters"], *wanted) for wanted in parameters.items())]

    def start(self, deployment: str, **how: Any) -> dict[str, Any]:
        """A run of the deployment, as its page starts it. how: what is said of it, such as its parameters."""
        (known,) = [each for each in self.ask("deployments") if deployment.endswith(f"/{each['name']}")]
        url = f"{self.api}/deployments/{known['id']}/create_flow_run"
        started: dict[str, Any] = post_json(url, how, self.environment.get("PREFECT_API_AUTH_STRING", ""))
        return started

    def wait_for(self, what: Callable[[], Any], within_s: float = WITHIN_S) -> Any:
        """What there is, once there is something; a server that is busy for a while is asked again."""
        deadline, found = time.monotonic() + within_s, None
        while not found:
            with suppress(OSError):
                found = what()
            if not found and time.monotonic() > deadline:
                states = [(run["name"], run["state_name"], run["state"]["message"]) for run in self.runs()]
                raise AssertionError(f"waited in vain; runs: {states}")
            time.sleep(0.5)
        return found

    def over(self, run: Mapping[str, Any]) -> dict[str, Any] | None:
        """The flow run, if it is over; one that crashed is not: somebody starts it again."""
        found = self.ask("flow_runs", flow_runs={"id": {"any_": [run["id"]]}})
        return next((run for run in found if run["state_type"] in OVER), None)

    def processes(self, *words: str) -> list[psutil.Process]:
        """Living processes of the project whose command line holds all these words."""
        found = []
        for process in psutil.process_iter(["cmdline", "cwd"]):
            command = " ".join(process.info["cmdline"] or [])
            if process.info["cwd"] == str(self.project.folder) and all(word in command for word in words):
                found.append(process)
        return found

    def kill(self, *words: str) -> None:
        """Kill, without a chance to say so, what runs a command with these words, but not who looks after it."""
        for process in self.processes(*words):
            with suppress(psutil.NoSuchProcess):
                if "flows.leash" not in process.cmdline():
                    process.kill()

    def kill_run(self, run: Mapping[str, Any]) -> None:
        """Kill the process that works on a flow run, and what that started."""
        for process in psutil.process_iter():
            with suppress(psutil.AccessDenied, psutil.NoSuchProcess):
                if process.environ().get("PREFECT__FLOW_RUN_ID") == run["id"]:
                    process.kill()

    def trainer(self) -> psutil.Process | None:
        """The flow's own process while its training runs; a training that outlives its flow for a moment has none."""
        parents = [process.parent() for process in self.processes("graftwork.training.process")]
        return next((each for each in parents if each is not None and each.pid != INIT and each.is_running()), None)


@contextmanager
def team_up(
    folder: Path,
    changes: Mapping[str, str],
    postgres: str | None = None,
    secrets: Mapping[str, str] | None = None,
) -> Iterator[Team]:
    """A project with a small recipe, changed so, and its servers and workers until the block ends.

    postgres: the server for all databases; by default they are files. secrets: variables that everybody has.
    """
    project, ports = make_project(folder / "project"), (free_port(), free_port())
    write_recipe(project.folder / RECIPE, changes)
    up = f"cd {project.folder} && exec graftwork up --prefect-port {ports[0]} --mlflow-port {ports[1]}"
    secrets = secrets or {}
    environment = dict(secrets)
    if postgres is not None:
        from flows.postgres import databases_on

        up += f" --postgres '{postgres}'"
        environment["GRAFTWORK_DB"] = databases_on(postgres)["GRAFTWORK_DB"].render_as_string(hide_password=False)
    there = Team(project, f"http://127.0.0.1:{ports[0]}/api", f"http://127.0.0.1:{ports[1]}", environment)
    started = time.monotonic()
    with serving(up, folder / "up", environment_for(**secrets), down_within_s=120) as told:
        there.wait_for(lambda: "in other terminals" in told.read_text())
        print(f"up: {time.monotonic() - started:.0f} s")
        yield there
    assert processes_below(folder) == []


def write_recipe(path: Path, changes: Mapping[str, str]) -> None:
    """The demo's recipe with small stages on little text, and some more changes."""
    text = (ROOT / RECIPE).read_text()
    head, _, tail = text.partition("stages:\n")
    text = head + "stages:\n" + "".join(f"  - {stage}\n" for stage in STAGES) + tail[tail.index("evaluation:") :]
    for said, wanted in (SMALL | dict(changes)).items():
        assert said in text, said
        text = text.replace(said, wanted)
    path.write_text(text)


def _has(parameters: Mapping[str, Any], name: str, value: Any) -> bool:
    return parameters.get(name) is not None if value is None else parameters.get(name) == value


@contextmanager
def listening(team: Team) -> Iterator[list[dict[str, str]]]:
    """The team's notification block, a webhook to here: what it is told, each with a subject and a body."""
    heard: list[dict[str, str]] = []

    class Ear(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Ear)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = environment_for(PREFECT_API_URL=team.api, **team.environment)
    command = [sys.executable, "-c", SAVE_BLOCK, f"http://127.0.0.1:{server.server_port}"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    try:
        yield heard
    finally:
        server.shutdown()
