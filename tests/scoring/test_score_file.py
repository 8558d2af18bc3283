"""Prediction with a registered model, found in a real embedded MLflow."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from graftwork.database import Database
from graftwork.errors import DataError, RegistryError
from graftwork.fingerprint import folder_digest, to_json
from graftwork.models.serving.model import ServingModel
from graftwork.registry.client import reach_mlflow
from graftwork.registry.versions import BUNDLE, BUNDLE_KEY
from graftwork.scoring import score_file
from graftwork.settings import Settings
from graftwork.storage import Store
from graftwork.training.bundle import BUNDLE_RECORD, MODEL, ServingBundle
from graftwork.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(served: ServingModel, served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Version 1 of `reviews` is registered and its champion, its bundle in the store."""
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    workspace = Workspace(settings, Store(settings.store_root), Database.open(settings.database_url))
    digest, key = folder_digest(served_folder), f"bundle/{'1' * 64}"
    record = ServingBundle(digest, key, "reviews", "a", "b", "c", served.classes, served.columns, ())
    with workspace.store.writing(key) as folder:
        shutil.copytree(served_folder, folder / MODEL)
        (folder / BUNDLE_RECORD).write_text(to_json(record))
    with reach_mlflow(settings) as client:
        client.create_registered_model("reviews")
        client.create_model_version("reviews", served_folder.as_uri(), tags={BUNDLE: digest, BUNDLE_KEY: key})
        client.set_registered_model_alias("reviews", "champion", "1")
    return workspace


@pytest.mark.parametrize("model", ["reviews", "reviews@champion", "reviews@1", "reviews/1"])
def test_a_model_is_meant_by_name_alias_or_number(
    model: str, workspace: Workspace, served: ServingModel, tmp_path: Path
) -> None:
    """All of them are version 1 here, and give what its bundle gives."""
    (tmp_path / "data.csv").write_text("text\na good film\nbad\n")
    scored = score_file(workspace, model, tmp_path / "data.csv", tmp_path / "out.parquet")
    assert (scored.model, scored.version, scored.rows) == ("reviews", 1, 2)
    assert json.loads(json.dumps(scored.as_json()))["output"] == str(tmp_path / "out.parquet")
    found = parquet.read_table(tmp_path / "out.parquet").column("p_yes").to_numpy()
    np.testing.assert_array_equal(found, served.probabilities(["a good film", "bad"])[:, 1])


@pytest.mark.parametrize("model", ["reviews@shadow", "reviews@7", "unknown"])
def test_unknown_model_is_told_with_what_there_is(model: str, workspace: Workspace, tmp_path: Path) -> None:
    """Nothing is written."""
    (tmp_path / "data.csv").write_text("text\na good film\n")
    with pytest.raises(RegistryError, match=r"there are versions|there is no model .unknown."):
        score_file(workspace, model, tmp_path / "data.csv", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_missing_data_is_told_before_the_registry_is_asked(workspace: Workspace, tmp_path: Path) -> None:
    """A wrong file name costs no model download."""
    with pytest.raises(DataError, match="there is no such file"):
        score_file(workspace, "unknown", tmp_path / "data.csv", tmp_path / "out.csv")
