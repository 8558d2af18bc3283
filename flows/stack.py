"""Prefect server, MLflow server and workers on this machine, as deployments/Procfile lists them: `graftwork up`."""

import os
import platform
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources
from pathlib import Path
from string import Template
from typing import IO

from flows.server import answers
from graftwork.errors import Problem, RecipeError, ServiceUnavailable, raise_if
from graftwork.settings import PATIENT_THREADS, Settings

HOST = "127.0.0.1"
READY_WITHIN_S, STOP_WITHIN_S = 120.0, 40.0
RESTART_AFTER_S = (1.0, 2.0, 5.0, 15.0, 30.0)  # the first time, the second …
STEADY_S = 120.0  # a process that ran so long is not one that keeps dying
LOG = "up.log"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Ports:
    """Where the servers listen, on the loopback interface."""

    prefect: int = 4200
    mlflow: int = 5000

    @property
    def prefect_api(self) -> str:
        return f"http://{HOST}:{self.prefect}/api"

    @property
    def mlflow_uri(self) -> str:
        return f"http://{HOST}:{self.mlflow}"


@dataclass
class Service:
    """A line of the Procfile. health: a URL that answers when it is up; None for a worker."""

    name: str
    command: Sequence[str]
    health: str | None = None
    process: "subprocess.Popen[str] | None" = None
    started: float = 0.0
    deaths: int = 0
    due: float | None = None

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None


@dataclass
class Stack:
    """The services of one machine. environment: of all of them. tell: is given each line that any of them says.

    is_over: it is being stopped.
    """

    services: Sequence[Service]
    environment: Mapping[str, str]
    tell: Tell
    pumps: list[threading.Thread] = field(default_factory=list)
    is_over: bool = False

    def start(self) -> None:
        """Start the servers, and the workers once these answer. Raises ServiceUnavailable if one does not."""
        servers = [service for service in self.services if service.health]
        for service in servers:
            self._launch(service)
        for service in servers:
            self._wait_until_up(service)
        for service in self.services:
            if service.health is None:
                self._launch(service)

    def look_after(self) -> None:
        """Start again what has ended, later each time, until it is stopped."""
        while not self.is_over:
            for service in self.services:
                self._revive(service)
            time.sleep(0.5)

    def stop(self) -> None:
        """End the workers, which first stop what they run, then the servers."""
        self.is_over = True
        for group in ([s for s in self.services if s.health is None], [s for s in self.services if s.health]):
            running = [service.process for service in group if service.process is not None and service.is_running]
            for process in running:
                process.terminate()
            deadline = time.monotonic() + STOP_WITHIN_S
            for process in running:
                try:
                    process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.terminate()  # the second time the leash insists
                    process.wait()
        for pump in self.pumps:
            pump.join(1)

    def _launch(self, service: Service) -> None:
        service.process = subprocess.Popen(  # noqa: S603 - commands of our Procfile
            [sys.executable, "-m", "flows.leash", *service.command],
            env=dict(self.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        service.started, service.due = time.monotonic(), None
        assert service.process.stdout is not None
        pump = threading.Thread(target=self._pump, args=(service.name, service.process.stdout), daemon=True)
        pump.start()
        self.pumps.append(pump)

    def _pump(self, name: str, said: IO[str]) -> None:
        for line in said:
            self.tell(f"{name:8}{line.rstrip()}")

    def _wait_until_up(self, service: Service) -> None:
        assert service.health is not None
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            if not service.is_running:
                assert service.process is not None
                problem = f"it ended with exit code {service.process.returncode}"
                raise ServiceUnavailable(Problem(problem, service.name, "its last lines above say why"))
            if answers(service.health):
                return
            time.sleep(0.2)
        raise ServiceUnavailable(Problem(f"it does not answer at {service.health}", service.name))

    def _revive(self, service: Service) -> None:
        if service.is_running or service.process is None:
            return
        now = time.monotonic()
        if service.due is None:
            service.deaths = 1 if now - service.started > STEADY_S else service.deaths + 1
            wait = RESTART_AFTER_S[min(service.deaths, len(RESTART_AFTER_S)) - 1]
            service.due = now + wait
            self.tell(f"{service.name:8}ended with exit code {service.process.returncode}: again in {wait:.0f} s")
        elif now >= service.due:
            self._launch(service)


@contextmanager
def running(settings: Settings, ports: Ports, databases: Mapping[str, str], show: Tell) -> Iterator[Stack]:
    """The stack of this machine, up, until the block ends. Everything is kept below `home`; the log is its up.log.

    databases: variables that name databases which are kept elsewhere. Raises RecipeError if a port is taken,
    ServiceUnavailable if a server does not come up.
    """
    check_ports(ports)
    lock = threading.Lock()
    with (settings.home / LOG).open("a", encoding="utf-8") as log:

        def tell(line: str) -> None:
            with lock:
                log.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {line}\n")
                log.flush()
            show(line)

        stack = Stack(read_procfile(settings, ports), environment_of(settings, ports, databases), tell)
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()


def read_procfile(settings: Settings, ports: Ports) -> list[Service]:
    """The services of deployments/Procfile with this machine's values."""
    values = {
        "HOST": HOST,
        "PREFECT_PORT": str(ports.prefect),
        "MLFLOW_PORT": str(ports.mlflow),
        "MLFLOW_ARTIFACTS": str(settings.home / "mlartifacts"),
        "MACHINE": platform.node(),
    }
    health = {"prefect": f"{ports.prefect_api}/health", "mlflow": f"{ports.mlflow_uri}/health"}
    text = (resources.files("deployments") / "Procfile").read_text(encoding="utf-8")
    lines = (line.partition(":") for line in text.splitlines() if line and not line.startswith("#"))
    return [
        Service(name, [Template(word).substitute(values) for word in shlex.split(command)], health.get(name))
        for name, _, command in lines
    ]


def environment_of(settings: Settings, ports: Ports, databases: Mapping[str, str]) -> dict[str, str]:
    """What servers and workers are told: nothing leaves the machine, slots survive a restart, runs find the servers."""
    # By the environment, not as an argument that every user of the machine can read: it may hold a password.
    embedded = {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{settings.home / 'mlflow.db'}"}
    told = {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
        "PREFECT_HOME": str(settings.home / "prefect-server"),
        "PREFECT_API_URL": ports.prefect_api,
        "PREFECT_SERVER_UI_API_URL": ports.prefect_api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",  # SQLite on a busy machine: after 10 s it dropped events
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_WORKER_QUERY_SECONDS": "5",
        "PREFECT_CLI_PROMPT": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_TRACKING_URI": ports.mlflow_uri,
        "GRAFTWORK_HOME": str(settings.home),
        "PYTHONUNBUFFERED": "1",
    }
    return PATIENT_THREADS | embedded | dict(os.environ) | told | dict(databases)


def check_ports(ports: Ports) -> None:
    """Raises RecipeError for each port that something listens on already."""
    taken = []
    for option, port in (("--prefect-port", ports.prefect), ("--mlflow-port", ports.mlflow)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                taken.append(Problem(f"port {port} can't be had: {error.strerror}", option, "name another one"))
    raise_if(taken, RecipeError)
