"""The way to MLflow: the client, the embedded store's first start, and errors a caller can act on."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from graftwork.errors import GraftworkError, Problem, RegistryError, ServiceUnavailable, shorten
from graftwork.settings import Settings, hide_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

# Read by MLflow when it is imported. Its own defaults are 7 retries of 120 s: minutes of silence when a server is away.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output is the command line's: tables, or JSON
}
EMBEDDED = "mlflow.db"
REFUSALS = {
    "UNAUTHENTICATED": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to a user's of that server",
    "PERMISSION_DENIED": "its user may not do this: who manages the server can give the right to",
}
AWAY = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"}


@contextmanager
def reach_mlflow(settings: Settings) -> Iterator["MlflowClient"]:
    """A client of the tracking server that the settings name, or of the embedded store, which is made first.

    In the block, MLflow's errors are raised as ServiceUnavailable if it does not answer, else as RegistryError.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        client = _client(settings)
        # MLflow's SQL store asks this process's default server for a logged model, not the one it was opened with.
        mlflow.set_tracking_uri(settings.mlflow_uri)
        if settings.is_mlflow_embedded:
            os.environ.pop("MLFLOW_TRACKING_URI", None)  # set just now; children would take the file for a server
        yield client
    except MlflowException as error:
        raise _translated(error, settings) from error


@cache
def _client(settings: Settings) -> "MlflowClient":
    from mlflow import MlflowClient

    if settings.is_mlflow_embedded:
        _bootstrap(settings.home / EMBEDDED)
    return MlflowClient(tracking_uri=settings.mlflow_uri, registry_uri=settings.mlflow_uri)


def _bootstrap(path: Path) -> None:
    """Make the embedded store if it is not there: aside and by one process, since a half-made one stays broken."""
    if path.exists():
        return
    from mlflow import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            fresh = path.with_suffix(".new")
            fresh.unlink(missing_ok=True)
            MlflowClient(tracking_uri=f"sqlite:///{fresh}", registry_uri=f"sqlite:///{fresh}").search_experiments()
            fresh.replace(path)


def _translated(error: "MlflowException", settings: Settings) -> GraftworkError:
    from mlflow.exceptions import RestException

    # INTERNAL_ERROR is a failing server if the server said it, and anything at all if MLflow's own client did.
    is_away = error.error_code in AWAY | ({"INTERNAL_ERROR"} if isinstance(error, RestException) else set())
    if is_away or isinstance(error.__context__, OSError):
        return ServiceUnavailable(Problem(f"does not answer: {_message(error, settings)}", _where(settings)))
    hint = REFUSALS.get(error.error_code, "")
    return RegistryError(Problem(f"refused: {_message(error, settings)}", _where(settings), hint))


def _where(settings: Settings) -> str:
    if settings.is_mlflow_embedded:
        return f"MLflow in {settings.home / EMBEDDED}"
    return f"MLflow at {hide_password(settings.mlflow_uri)}"


def _message(error: "MlflowException", settings: Settings) -> str:
    credentials, at, _ = urlsplit(settings.mlflow_uri).netloc.rpartition("@")
    message = str(error.message)
    return shorten(message.replace(credentials + at, "") if at else message, 300)  # MLflow quotes the whole URL


def all_pages(search: Callable[..., Any]) -> list[Any]:
    """Everything that a search of MLflow's client finds, which gives it in pages."""
    found: list[Any] = []
    token = None
    while True:
        page = search(page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def experiment_of(client: "MlflowClient", settings: Settings, name: str) -> str:
    """The id of the model's experiment; it is made at the first run."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        place = str(settings.home / "mlartifacts" / name) if settings.is_mlflow_embedded else None
        try:
            return client.create_experiment(name, artifact_location=place)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    assert found is not None
    return found.experiment_id
