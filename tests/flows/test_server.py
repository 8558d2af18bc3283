"""Waiting for a Prefect server."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flows.server import wait_until_ready


class Guarded(BaseHTTPRequestHandler):
    """A server that wants credentials for everything."""

    def do_GET(self) -> None:
        self.send_error(401)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def guarded() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Guarded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    server.server_close()


def test_a_server_that_wants_credentials_is_there(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is Prefect's client that has them; waiting any longer would not help."""
    monkeypatch.setattr("flows.server.START_WITHIN_S", 5)
    wait_until_ready(guarded)
