"""A flow run whose process keeps dying is given up; one that fails by itself may be tried again for ever."""

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect import flow
from prefect.runtime import flow_run
from prefect.testing.utilities import prefect_test_harness
from sqlalchemy import insert

from graftwork.claims import open_claims
from graftwork.database import claims, now
from graftwork.errors import TrainingError
from graftwork.settings import Settings
from graftwork.workspace import Workspace
from tasks.attempts import DEATHS, ENDED, KIND, begin_attempt

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """A Prefect server for these tests, with a database of its own."""
    with prefect_test_harness():
        yield


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("GRAFTWORK_HOME", str(tmp_path))
    return Workspace.open(Settings(home=tmp_path))


def leave_attempt(workspace: Workspace, run: str, number: int) -> None:
    """What a process of this machine leaves that was killed."""
    owner = f"{platform.node()}:{4194304 + number}:1.00"
    row = {"kind": KIND, "key": f"{run}/{owner}", "owner": owner, "created_at": now()}
    with workspace.database.begin() as connection:
        connection.execute(insert(claims).values(row))


def run_after(workspace: Workspace, deaths: int, error: Exception | None = None) -> None:
    """A flow run whose process has died so often, and which then ends well or with an error."""

    def work() -> None:
        for number in range(deaths):
            leave_attempt(workspace, str(flow_run.id), number)
            leave_attempt(workspace, "another run", number)
        begin_attempt()
        assert len(open_claims(workspace.database, KIND)) == 2 * deaths + 1
        if error:
            raise error

    flow(work, name="work", **ENDED)()


def test_a_run_goes_on_after_some_deaths(workspace: Workspace) -> None:
    """What was left open stays, so that it counts at the next attempt; this one is closed."""
    run_after(workspace, DEATHS - 1)
    assert len(open_claims(workspace.database, KIND)) == 2 * (DEATHS - 1)


def test_a_run_that_keeps_dying_is_given_up(workspace: Workspace) -> None:
    with pytest.raises(TrainingError, match=f"its process died {DEATHS} times"):
        run_after(workspace, DEATHS)


def test_an_error_is_no_death(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="ours"):
        run_after(workspace, 0, ValueError("a bug of ours"))
    assert open_claims(workspace.database, KIND) == ()
