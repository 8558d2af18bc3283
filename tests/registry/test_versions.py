"""Registration and versions: one version for each bundle, aliases, and a bundle that comes back as it went in."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from graftwork.data.manifest import DatasetManifest
from graftwork.errors import RegistryError
from graftwork.fingerprint import folder_digest, to_json, walk_files
from graftwork.promotion.gate import Verdict
from graftwork.registry.client import reach_mlflow
from graftwork.registry.registration import record_verdict
from graftwork.registry.versions import (
    ModelVersion,
    fetch_bundle,
    find_version,
    list_models,
    move_alias,
    read_aliases,
    read_bundle,
    resolve_version,
)
from graftwork.training.bundle import MODEL, ServingBundle
from graftwork.workspace import Workspace

Register = Callable[[], ModelVersion]


def test_bundle_is_registered_once(workspace: Workspace, bundle: ServingBundle, register: Register) -> None:
    """Registering the same bundle again gives the version that is there, and stores its weights once."""
    assert find_version(workspace, bundle.name, bundle.digest) is None
    first = register()
    assert register() == first == find_version(workspace, bundle.name, bundle.digest)
    assert [listed.version.version for listed in list_models(workspace)] == [1]
    assert len(list((workspace.settings.home / "mlartifacts").rglob("MLmodel"))) == 1


@pytest.mark.parametrize(
    "point", ["registry.after_create_logged_model", "registry.after_log_model", "registry.after_create_version"]
)
def test_killed_registration_ends_with_one_version(
    workspace: Workspace, register: Register, bundle: ServingBundle, point: str, fork: Callable[..., int]
) -> None:
    """Killed after any step that MLflow keeps, then run again: one version, one READY model, nothing pending."""
    _, status = os.waitpid(fork(register, fault=point), 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    version = register()
    assert version.version == 1
    with reach_mlflow(workspace.settings) as client:
        experiment = client.get_experiment_by_name(bundle.name)
        models = client.search_logged_models([experiment.experiment_id])
        assert [str(model.status) for model in models] == ["READY"]
        assert len(client.search_model_versions(f"name = '{bundle.name}'")) == 1
        assert client.get_run(version.mlflow_run).info.status == "FINISHED"


def test_version_deleted_by_hand_is_registered_anew(workspace: Workspace, register: Register) -> None:
    """The claim on a bundle does not outlive its version."""
    first = register()
    with reach_mlflow(workspace.settings) as client:
        client.delete_model_version(first.name, str(first.version))
    assert register().version == 2
    with reach_mlflow(workspace.settings) as client:
        client.delete_model_version(first.name, "2")
    assert register().version == 3


def test_metrics_are_tied_to_model_and_data(
    workspace: Workspace, register: Register, manifest: DatasetManifest
) -> None:
    """The holdout accuracy hangs on the logged model, with the manifest's digest beside it."""
    version = register()
    with reach_mlflow(workspace.settings) as client:
        metrics = {metric.key: metric for metric in client.get_logged_model(version.model_id).metrics}
        assert metrics["holdout/accuracy"].value == 0.85
        assert metrics["holdout/accuracy/low"].value == 0.83
        assert metrics["holdout/accuracy"].dataset_digest == manifest.digest[:36]
        assert client.get_run(version.mlflow_run).data.metrics["baseline/majority/accuracy"] == 0.5


def test_later_verdict_replaces_the_first(
    workspace: Workspace, register: Register, verdict: Verdict, bundle: ServingBundle
) -> None:
    """A version that is judged again carries the newer verdict."""
    version = register()
    record_verdict(workspace, version, replace(verdict, outcome="keep", reason="Not better."))
    (listed,) = list_models(workspace, bundle.name)
    assert listed.tags["graftwork.verdict"] == "keep"
    with reach_mlflow(workspace.settings) as client:
        assert client.get_model_version(version.name, "1").description == "Not better."


def test_aliases_move_and_are_listed(workspace: Workspace, register: Register) -> None:
    """An alias points where it was put last, shows in the list, and can be removed."""
    assert read_aliases(workspace, "review-sentiment") == {}
    version = register()
    move_alias(workspace, version.name, "challenger", 1)
    move_alias(workspace, version.name, "champion", 1)
    assert read_aliases(workspace, version.name) == {"challenger": 1, "champion": 1}
    (listed,) = list_models(workspace, version.name)
    assert listed.aliases == ("challenger", "champion")
    assert listed.metrics == {"accuracy": 0.85}
    move_alias(workspace, version.name, "challenger", None)
    assert read_aliases(workspace, version.name) == {"champion": 1}


def test_references_name_a_version(workspace: Workspace, register: Register) -> None:
    """name@alias, name/number and a bare name (its champion) find the version; others say what there is."""
    version = register()
    move_alias(workspace, version.name, "champion", 1)
    for reference in ("review-sentiment@champion", "review-sentiment/1", "review-sentiment"):
        assert resolve_version(workspace, reference) == version
    for reference in ("review-sentiment@none", "review-sentiment/2"):
        with pytest.raises(RegistryError, match="there are versions 1; champion is 1"):
            resolve_version(workspace, reference)
    with pytest.raises(RegistryError, match="there is no model 'unknown'"):
        resolve_version(workspace, "unknown")


def test_bundle_comes_back_from_the_registry(workspace: Workspace, bundle: ServingBundle, register: Register) -> None:
    """Out of the store while it is there; once it is gone, downloaded with the same digest."""
    version = register()
    stored = workspace.store.open(bundle.key)
    assert stored is not None
    assert fetch_bundle(workspace, version) == stored / MODEL
    shutil.rmtree(stored)
    assert folder_digest(fetch_bundle(workspace, version)) == bundle.digest
    assert read_bundle(workspace, version) == bundle


def test_altered_artifact_is_refused(workspace: Workspace, bundle: ServingBundle, register: Register) -> None:
    """A registry whose files changed since registration is named, and nothing of it reaches the store."""
    version = register()
    shutil.rmtree(workspace.settings.store_root / bundle.key)
    (weights,) = (workspace.settings.home / "mlartifacts").rglob("model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(RegistryError, match="the registry's files changed"):
        fetch_bundle(workspace, version)
    assert not workspace.store.find(f"registered/{bundle.digest}")


def test_other_bundle_under_the_same_key_is_not_taken(
    workspace: Workspace, bundle: ServingBundle, register: Register
) -> None:
    """A store that was trained anew to other bits does not stand in for the version that was registered."""
    version = register()
    shutil.rmtree(workspace.settings.store_root / bundle.key)
    with workspace.store.writing(bundle.key) as folder:
        (folder / "bundle.json").write_text(to_json(replace(bundle, digest="f" * 64)))
        (folder / MODEL).mkdir()
    assert folder_digest(fetch_bundle(workspace, version)) == bundle.digest


def test_model_folder_is_plain(workspace: Workspace, register: Register) -> None:
    """No pickle, no path of this machine, exact requirements, and the bundle's files without bytecode beside them."""
    version = register()
    (card,) = (workspace.settings.home / "mlartifacts").rglob("MLmodel")
    names = [path.relative_to(card.parent).as_posix() for path in walk_files(card.parent)]
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pyc", ".bin", ".pt"))]
    assert str(workspace.settings.home) not in card.read_text()
    assert str(Path(__file__).parents[2]) not in card.read_text()
    flavor = yaml.safe_load(card.read_text())["flavors"]["python_function"]
    assert flavor["model_code_path"] == "serving_model.py"
    pins = (card.parent / "requirements.txt").read_text().split()
    assert {pin.partition("==")[0] for pin in pins} == {
        "mlflow",
        "numpy",
        "pandas",
        "safetensors",
        "torch",
        "transformers",
    }
    assert not [pin for pin in pins if "==" not in pin or "+" in pin]
    assert version.uri == "models:/review-sentiment/1"


def test_concurrent_registrations_make_one_version(
    workspace: Workspace, register: Register, bundle: ServingBundle, fork: Callable[..., int]
) -> None:
    """Three processes registering the same bundle at once all end well, and there is one version."""
    children = [fork(register) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert [listed.version.version for listed in list_models(workspace, bundle.name)] == [1]


def test_a_bundle_of_one_file_of_code_is_loaded_too(tmp_path: Path) -> None:
    """As earlier versions stored them, and a later one registers again."""
    from graftwork.registry.serving_model import import_code

    (tmp_path / "serving.py").write_text("def load(folder):\n    return folder.name\n")
    assert import_code(tmp_path).load(tmp_path) == tmp_path.name
