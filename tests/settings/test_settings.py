"""Settings: what the environment says, and what it only seems to say."""

from pathlib import Path

import pytest

from graftwork.errors import RecipeError
from graftwork.settings import Settings, use_home


def test_an_empty_variable_is_an_unset_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `MLFLOW_TRACKING_URI=` in a compose file."""
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "GRAFTWORK_HOME", "GRAFTWORK_STORE"):
        monkeypatch.setenv(name, "")
    assert use_home(tmp_path) == tmp_path / ".graftwork"
    settings = Settings()
    assert settings.is_mlflow_embedded and settings.is_prefect_embedded
    assert settings.store_root == tmp_path / ".graftwork" / "store"


def test_a_store_is_no_url(tmp_path: Path) -> None:
    """Taken for a path it would be a folder of that name in whatever folder one happens to be in."""
    with pytest.raises(RecipeError, match="GRAFTWORK_STORE: only a folder"):
        _ = Settings(home=tmp_path, store=Path("s3://bucket/store")).store_root


def test_a_variable_that_can_not_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them at once, each with what was found."""
    monkeypatch.setenv("GRAFTWORK_SAVE_SHARE", "a bit")
    monkeypatch.setenv("GRAFTWORK_PROCESSES", "many")
    with pytest.raises(RecipeError) as caught:
        Settings.read()
    first, second = map(str, caught.value.problems)
    assert first.startswith("GRAFTWORK_PROCESSES: ") and "found 'many'" in first and "'auto'" in first
    assert second.startswith("GRAFTWORK_SAVE_SHARE: input should be a valid number") and "found 'a bit'" in second
