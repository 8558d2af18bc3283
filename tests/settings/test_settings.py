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
