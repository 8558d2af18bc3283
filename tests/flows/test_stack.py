"""What looks after servers and workers: in order, again when they end, gone when it goes."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from processes import has_ended, wait_until
from servers import free_port

from flows.postgres import databases_on
from flows.stack import Ports, Service, Stack, check_ports, environment_of, read_procfile
from graftwork.database import Database
from graftwork.errors import RecipeError, ServiceUnavailable
from graftwork.settings import Settings

SLEEPER = "import time, os; print('pid', os.getpid(), flush=True); time.sleep(600)"


class Told(list[str]):
    """Lines that were said, and the processes that named themselves in them."""

    def pids(self, name: str) -> list[int]:
        return [int(line.split()[-1]) for line in self if line.startswith(name) and " pid " in line]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def stack(told: Told) -> Iterator[Stack]:
    """A server and a worker."""
    port = free_port()
    server = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    services = [
        Service("worker", [sys.executable, "-c", SLEEPER]),
        Service("server", server, f"http://127.0.0.1:{port}/"),
    ]
    stack = Stack(services, os.environ, told.append)
    yield stack
    stack.stop()


def test_workers_start_when_the_servers_answer(stack: Stack, told: Told) -> None:
    stack.start()
    wait_until(lambda: told.pids("worker"))
    asked = next(number for number, line in enumerate(told) if '"GET / HTTP/1.1" 200' in line)
    assert asked < next(number for number, line in enumerate(told) if line.startswith("worker"))


def test_what_ends_is_started_again_and_all_ends_with_it(stack: Stack, told: Told) -> None:
    """Killed, it is back in a second or two; stopped, no process is left."""
    stack.start()
    wait_until(lambda: told.pids("worker"))
    threading.Thread(target=stack.look_after, daemon=True).start()
    os.kill(told.pids("worker")[0], signal.SIGKILL)
    wait_until(lambda: len(told.pids("worker")) == 2)
    assert any("ended with exit code" in line for line in told)
    running = [psutil.Process(service.process.pid) for service in stack.services if service.process]
    below = [child for each in running for child in each.children(recursive=True)]
    stack.stop()
    assert not [each for each in (*running, *below) if not has_ended(each.pid)]


def test_a_server_that_ends_at_once_is_told(told: Told) -> None:
    broken = Service("server", [sys.executable, "-c", "raise SystemExit(3)"], "http://127.0.0.1:9/")
    with pytest.raises(ServiceUnavailable, match="server: it ended with exit code 3"):
        Stack([broken], os.environ, told.append).start()


def test_nothing_outlives_who_started_it(tmp_path: Path) -> None:
    """The supervisor is killed: what it had on the leash ends, too."""
    script = f"""
import subprocess, sys, time
command = [sys.executable, "-m", "flows.leash", sys.executable, "-c", {SLEEPER!r}]
child = subprocess.Popen(command, stdin=subprocess.PIPE)
time.sleep(600)
"""
    supervisor = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    pid = int(supervisor.stdout.readline().split()[-1])
    supervisor.kill()
    supervisor.wait()
    wait_until(lambda: has_ended(pid))


def test_what_does_not_end_is_ended(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ignores the signal, and so does a process that it started in a session of its own."""
    monkeypatch.setattr("flows.stack.STOP_WITHIN_S", 1)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER
    command = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {deaf!r}], start_new_session=True); {deaf}"
    )
    stack = Stack([Service("worker", [sys.executable, "-c", command])], os.environ, told.append)
    stack.start()
    wait_until(lambda: len(told.pids("worker")) == 2)
    stack.stop()
    wait_until(lambda: all(map(has_ended, told.pids("worker"))))


def test_a_port_that_is_taken_is_named() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RecipeError, match=f"--mlflow-port: port {port} can't be had"):
            check_ports(Ports(free_port(), port))


def test_the_procfile_is_whole(tmp_path: Path) -> None:
    """Every variable in it has a value, and servers are told apart from workers."""
    settings = Settings(home=tmp_path)
    services = read_procfile(settings, Ports(1, 2))
    assert [(service.name, service.health is not None) for service in services] == [
        ("prefect", True),
        ("mlflow", True),
        ("cpu", False),
        ("gpu", False),
    ]
    assert not [word for service in services for word in service.command if "$" in word]
    told = environment_of(settings, Ports(1, 2), {})
    assert (told["PREFECT_API_URL"], told["MLFLOW_TRACKING_URI"]) == ("http://127.0.0.1:1/api", "http://127.0.0.1:2")


def test_databases_are_made_on_a_postgres_server(postgres_url_of_server: str, tmp_path: Path) -> None:
    """Once; each is told by a variable, since an argument can be read by everybody. The driver is whoever's it is."""
    plain = postgres_url_of_server.replace("+psycopg", "")
    first, again = databases_on(plain), databases_on(plain)
    assert first == again
    assert {name: (url.drivername, url.database) for name, url in first.items()} == {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": ("postgresql+asyncpg", "prefect"),
        "MLFLOW_BACKEND_STORE_URI": ("postgresql+psycopg", "mlflow"),
        "GRAFTWORK_DB": ("postgresql+psycopg", "graftwork"),
    }
    told = environment_of(Settings(home=tmp_path), Ports(), {"MLFLOW_BACKEND_STORE_URI": "elsewhere"})
    assert told["MLFLOW_BACKEND_STORE_URI"] == "elsewhere"
    Database.open(first["GRAFTWORK_DB"].render_as_string(hide_password=False)).engine.dispose()


@pytest.mark.parametrize(
    ("server", "error", "said"),
    [
        ("nonsense", RecipeError, "it is no address"),
        ("sqlite:///x.db", RecipeError, "sqlite is not PostgreSQL"),
        ("postgresql://me:hunter2@127.0.0.1:9", ServiceUnavailable, "start it, or correct the address"),
    ],
)
def test_a_server_that_is_none_is_told_without_its_password(server: str, error: type[Exception], said: str) -> None:
    """Before anything is started."""
    with pytest.raises(error, match=said) as raised:
        databases_on(server)
    assert "hunter2" not in str(raised.value)
