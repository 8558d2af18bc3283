"""The embedded Prefect server: `python -m flows.server PORT`, and how a command runs beside one.

Prefect can start a temporary server by itself, but that one outlives a parent that is killed. This one ends with it.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from graftwork.errors import ServiceUnavailable
from graftwork.settings import Settings, hide_password

START_WITHIN_S = 120
STOP_WITHIN_S = 10

# What Prefect reads when it is imported. Nothing leaves the machine; the command line prints our own lines, and
# Prefect's own go to its database, where the run's page shows them.
EMBEDDED = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "graftwork",
    "PREFECT_CLI_PROMPT": "false",
}


@contextmanager
def prefect_api(settings: Settings) -> Iterator[None]:
    """Prefect's address in the environment: the team's server, or one of our own below `home` while the block runs.

    Enter it before Prefect is imported; the server starts while the caller goes on, `wait_until_ready` waits for it.
    """
    for name, value in EMBEDDED.items():
        os.environ.setdefault(name, value)
    if not settings.is_prefect_embedded:
        yield
        return
    port = _free_port()
    os.environ["PREFECT_HOME"] = str(settings.home / "prefect")
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    os.environ["PREFECT_UI_URL"] = ""  # nothing is to link to pages that are gone when this is over
    log_path = settings.home / "prefect" / "server.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("w", encoding="utf-8") as log:
        server = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "flows.server", str(port)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"},
            start_new_session=True,
        )
        try:
            yield
        finally:
            del os.environ["PREFECT_API_URL"]
            _stop(server)


def wait_until_ready(url: str | None = None) -> None:
    """Return when the Prefect server answers; ServiceUnavailable if it does not in time."""
    url = url or os.environ["PREFECT_API_URL"]
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline:
        if answers(f"{url}/health"):
            return
        time.sleep(0.05)
    raise ServiceUnavailable(f"the Prefect server at {hide_password(url)} does not answer")


def answers(url: str) -> bool:
    """True if a server does, be it to say that we may not come in: the credentials are its client's."""
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - an address from the settings
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def serve(port: int) -> None:
    """Run Prefect's server on the loopback interface until the parent ends."""
    from graftwork.lifeline import end_with_parent

    end_with_parent()
    os.environ |= {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    import uvicorn

    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=port,
        log_level="error",
        lifespan="on",
    )


if __name__ == "__main__":
    serve(int(sys.argv[1]))
