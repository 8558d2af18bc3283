"""The doctor: what is well is said to be, what is not is named with what to do."""

import sys
from importlib import metadata
from pathlib import Path

import pytest

from graftwork.health import examine
from graftwork.settings import Settings


def seen(settings: Settings) -> dict[str, tuple[str, str]]:
    """State and text of each finding, by what was looked at."""
    return {each.what: (each.state, f"{each.told} {each.hint}") for each in examine(settings)}


def test_a_fresh_machine_is_well_and_stays_fresh(tmp_path: Path) -> None:
    """Everything is good, and nothing was made."""
    found = seen(Settings(home=tmp_path / ".graftwork"))
    assert {state for state, _ in found.values()} == {"good"}, found
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SQLAlchemy 2.1, with which Prefect's scheduler schedules nothing and says so nowhere."""
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "2.1.9" if name == "sqlalchemy" else real(name))
    state, told = seen(Settings(home=tmp_path))["libraries"]
    assert state == "bad"
    assert "sqlalchemy 2.1.9 is not <2.1" in told


def test_a_torchvision_that_can_not_load_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It breaks transformers' image models."""
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    state, told = seen(Settings(home=tmp_path))["torchvision"]
    assert (state, "torchvision::nms" in told, "pip uninstall" in told) == ("bad", True, True)


def test_servers_that_are_away_are_named_without_their_passwords(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database and the registry, with the variable to correct."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:9")
    monkeypatch.setenv("GRAFTWORK_DB", "postgresql+psycopg://me:hunter2@127.0.0.1:9/graftwork?connect_timeout=2")
    monkeypatch.setenv("GRAFTWORK_HOME", str(tmp_path))
    found = seen(Settings.read())
    assert found["database"][0] == found["registry"][0] == "bad"
    assert "GRAFTWORK_DB" in found["database"][1]
    assert "MLFLOW_TRACKING_URI" in found["registry"][1]
    assert "hunter2" not in str(found)


def test_half_a_team_is_noted(tmp_path: Path) -> None:
    """A shared store and a ledger of one's own do not go together."""
    settings = Settings(home=tmp_path, store=tmp_path / "shared")
    (tmp_path / "graftwork.db").touch()
    assert seen(settings)["database"][0] == "note"
