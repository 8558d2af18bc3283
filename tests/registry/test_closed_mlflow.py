"""An MLflow server with users and passwords: whoever has one does everything, nobody else gets in, and is told why."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from servers import environment_for, free_port, post_json, serving

from graftwork.errors import RegistryError
from graftwork.registry.client import reach_mlflow
from graftwork.registry.versions import ModelVersion, list_models, move_alias, read_aliases
from graftwork.settings import Settings
from graftwork.workspace import Workspace

pytestmark = pytest.mark.e2e

ADMIN = ("admin", "planted-admin-3f61")
PIPELINE = ("pipeline", "planted-pipeline-a07c")
SERVER = "-m mlflow server --app-name basic-auth --workers 1 --port"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address. It has an administrator, and a user for pipelines."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    said = {"MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1], "MLFLOW_FLASK_SERVER_SECRET_KEY": "planted-key-9e"}
    environment = environment_for(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", MLFLOW_DISABLE_TELEMETRY="true", **said)
    address = f"http://127.0.0.1:{port}"
    with serving(f"exec {sys.executable} {SERVER} {port}", folder, environment, f"{address}/health"):
        user = {"username": PIPELINE[0], "password": PIPELINE[1]}
        post_json(f"{address}/api/2.0/mlflow/users/create", user, ":".join(ADMIN))
        yield address


@pytest.fixture
def workspace(workspace: Workspace, server: str, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The workspace, with its registry on that server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    return replace(workspace, settings=Settings(home=workspace.settings.home))


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    def go(name: str, password: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)

    return go


def test_a_user_registers_and_moves_aliases(
    workspace: Workspace, register: Callable[[], ModelVersion], as_user: Callable[[str, str], None]
) -> None:
    """With credentials from the environment alone: what they make is theirs to manage."""
    as_user(*PIPELINE)
    version = register()
    move_alias(workspace, version.name, "champion", version.version)
    assert read_aliases(workspace, version.name) == {"champion": version.version}
    assert [listed.version.version for listed in list_models(workspace)] == [1]


@pytest.mark.parametrize("user", [("", ""), ("pipeline", "guessed"), ("nobody", "guessed")])
def test_nobody_else_gets_in(workspace: Workspace, as_user: Callable[[str, str], None], user: tuple[str, str]) -> None:
    as_user(*user)
    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_USERNAME") as caught:
        list_models(workspace)
    assert "guessed" not in str(caught.value)


def test_what_a_user_may_not_do_is_told(
    workspace: Workspace, register: Callable[[], ModelVersion], as_user: Callable[[str, str], None]
) -> None:
    """A model of somebody else's can be read, and is not theirs to promote."""
    as_user(*ADMIN)
    with reach_mlflow(workspace.settings) as client:
        client.create_registered_model("theirs")
    as_user(*PIPELINE)
    with pytest.raises(RegistryError, match="may not do this"), reach_mlflow(workspace.settings) as client:
        client.set_registered_model_tag("theirs", "key", "value")
