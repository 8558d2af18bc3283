"""Model versions: found by a bundle's digest, by number or by alias; listed; fetched back into the store.

How a version is made is in registration.py. Who may move an alias, and when, is the ledger's business
(promotion/ledger.py), which is given `move_alias`.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from graftwork.errors import Problem, RegistryError
from graftwork.fingerprint import folder_digest, from_json, to_json
from graftwork.registry.client import all_pages, reach_mlflow
from graftwork.registry.tracking import holdout_metrics
from graftwork.targets.catalog import CLASSIFICATION
from graftwork.training.bundle import BUNDLE_RECORD, FETCHED, MODEL, ServingBundle, find_model
from graftwork.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion


BUNDLE, BUNDLE_KEY = "graftwork.bundle", "graftwork.bundle_key"
ADOPTED = "graftwork.adopted"
META = "registered_model_meta"  # a file that MLflow adds to what it downloads: under which name and version


@dataclass(frozen=True)
class Adopted:
    """Of a version that others made, where it comes from, NAME/VERSION, which columns it reads, and its classes.

    target: what it gives, as in TARGETS.
    """

    SCHEMA: ClassVar[int] = 1
    origin: str
    columns: tuple[str, ...]
    classes: tuple[str, ...]
    target: str = CLASSIFICATION.name


@dataclass(frozen=True)
class ModelVersion:
    """A registered version. bundle: digest. model_id, mlflow_run: where MLflow keeps its files and its metrics.

    adopted: of a version that others made; its bundle has neither recipe nor data.
    """

    SCHEMA: ClassVar[int] = 1
    name: str
    version: int
    bundle: str
    bundle_key: str
    model_id: str
    mlflow_run: str
    created_at: str
    adopted: Adopted | None = None

    @property
    def uri(self) -> str:
        """What `mlflow models serve -m` takes."""
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class ListedVersion:
    """A version as `graftwork models` shows it."""

    version: ModelVersion
    aliases: tuple[str, ...]
    metrics: dict[str, float]
    tags: dict[str, str]


@dataclass(frozen=True)
class RegisteredModel:
    """What the registry says of a model now. aliases: where each points. bundles: digests by version, of ours alone."""

    aliases: dict[str, int]
    bundles: dict[int, str]


def find_version(workspace: Workspace, name: str, bundle: str) -> ModelVersion | None:
    """The version that holds the bundle with this digest, the first one if there are several; None if there is none."""
    with reach_mlflow(workspace.settings) as client:
        return first_version(client, name, bundle)


def move_alias(workspace: Workspace, name: str, alias: str, version: int | None) -> None:
    """Point the alias to the version; to none: remove it. Only the ledger calls this."""
    with reach_mlflow(workspace.settings) as client:
        if version is None:
            client.delete_registered_model_alias(name, alias)
        else:
            client.set_registered_model_alias(name, alias, str(version))


def read_aliases(workspace: Workspace, name: str) -> dict[str, int]:
    """Where each alias of the model points now; empty if the model is not registered."""
    with reach_mlflow(workspace.settings) as client:
        return _aliases(client, name)


def read_registry(workspace: Workspace) -> dict[str, RegisteredModel]:
    """Every registered model by its name."""
    with reach_mlflow(workspace.settings) as client:
        models = all_pages(client.search_registered_models)
        bundles: dict[str, dict[int, str]] = {model.name: {} for model in models}
        for version in all_pages(client.search_model_versions):
            if BUNDLE in version.tags:
                bundles[version.name][int(version.version)] = version.tags[BUNDLE]
    aliases = {model.name: {alias: int(number) for alias, number in model.aliases.items()} for model in models}
    return {name: RegisteredModel(aliases[name], bundles[name]) for name in bundles}


def resolve_version(workspace: Workspace, reference: str) -> ModelVersion:
    """The version that `name@alias`, `name/3` or `name` (its champion) stands for.

    Raises RegistryError, naming what there is instead.
    """
    name, alias, number = split_reference(reference)
    with reach_mlflow(workspace.settings) as client:
        aliases = _aliases(client, name)
        wanted = number or str(aliases.get(alias, ""))
        found = {str(version.version): version for version in _versions(client, name)}
    if wanted in found:
        return found[wanted]
    raise RegistryError(_not_there(reference, name, sorted(found, key=int), aliases))


def split_reference(reference: str) -> tuple[str, str, str]:
    """The name, the alias if one is meant, and the number, in which case no alias is."""
    name, at, alias = reference.partition("@")
    if at:
        return name, alias, ""
    name, slash, number = reference.partition("/")
    return name, "" if slash else "champion", number


def _not_there(reference: str, name: str, versions: Sequence[str], aliases: Mapping[str, int]) -> Problem:
    if not versions:
        return Problem(f"there is no model {name!r}", hint="`graftwork models` lists those that there are")
    standing = [f"{alias} is {version}" for alias, version in sorted(aliases.items())]
    if "champion" not in aliases:
        standing.append(f"none is champion, which `graftwork promote {name} VERSION` makes one")
    return Problem(
        f"there is no version {reference!r}", hint=f"there are versions {', '.join(versions)}; {'; '.join(standing)}"
    )


def list_models(workspace: Workspace, name: str | None = None) -> list[ListedVersion]:
    """All versions of one model, or of every model, by name and newest first."""
    with reach_mlflow(workspace.settings) as client:
        names = [name] if name else sorted(model.name for model in all_pages(client.search_registered_models))
        return [listed for each in names for listed in _list(client, each)]


def fetch_bundle(workspace: Workspace, version: ModelVersion) -> Path:
    """The model folder of a version's bundle: out of the store, else downloaded into it and checked.

    Raises RegistryError if what the registry holds is not the bundle that was registered.
    """
    store = workspace.store
    found = find_model(store, version.bundle_key, version.bundle)
    if found is None:
        with store.writing(f"{FETCHED}/{version.bundle}") as folder, reach_mlflow(workspace.settings):
            _download(workspace, version, folder)
        found = find_model(store, version.bundle_key, version.bundle)
    assert found is not None
    return found


def read_bundle(workspace: Workspace, version: ModelVersion) -> ServingBundle:
    """The record of a version's bundle; fetched like `fetch_bundle`, with its errors."""
    record = fetch_bundle(workspace, version).parent / BUNDLE_RECORD
    return from_json(ServingBundle, record.read_text(encoding="utf-8"))


def first_version(client: "MlflowClient", name: str, bundle: str) -> ModelVersion | None:
    """`find_version` inside a `reach_mlflow` block."""
    found = client.search_model_versions(f"name = '{name}' and tags.`{BUNDLE}` = '{bundle}'")
    return min((_record(version) for version in found), key=lambda version: version.version, default=None)


def adopted_version(client: "MlflowClient", name: str, origin: str) -> ModelVersion | None:
    """The version of the model that was adopted from there, inside a `reach_mlflow` block; None if there is none."""
    found = (version for version in _versions(client, name) if version.adopted and version.adopted.origin == origin)
    return min(found, key=lambda version: version.version, default=None)


def _versions(client: "MlflowClient", name: str) -> list[ModelVersion]:
    return [_record(version) for version in client.search_model_versions(f"name = '{name}'") if BUNDLE in version.tags]


def _record(version: "MlflowVersion") -> ModelVersion:
    return ModelVersion(
        name=version.name,
        version=int(version.version),
        bundle=version.tags[BUNDLE],
        bundle_key=version.tags[BUNDLE_KEY],
        model_id=version.source.removeprefix("models:/"),  # its own field reads back empty
        mlflow_run=version.run_id or "",  # one that others made may have none
        created_at=_iso(version.creation_timestamp),
        adopted=from_json(Adopted, version.tags[ADOPTED]) if ADOPTED in version.tags else None,
    )


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _aliases(client: "MlflowClient", name: str) -> dict[str, int]:
    # A look-up of one alias that is not set is an error like any other; the model's own list is not.
    found = client.search_registered_models(f"name = '{name}'")
    return {alias: int(version) for model in found for alias, version in model.aliases.items()}


def _list(client: "MlflowClient", name: str) -> list[ListedVersion]:
    aliases = _aliases(client, name)
    listed = []
    for version in client.search_model_versions(f"name = '{name}'", order_by=["version_number DESC"]):
        if BUNDLE in version.tags:
            record = _record(version)
            names = tuple(sorted(alias for alias, number in aliases.items() if number == record.version))
            metrics = {} if record.adopted else holdout_metrics(client.get_run(record.mlflow_run))
            listed.append(ListedVersion(record, names, metrics, version.tags))
    return listed


def download_adopted(workspace: Workspace, uri: str, name: str, adopted: Adopted, folder: Path) -> ServingBundle:
    """The files of a model that others made, in the folder, and the record of what is known of it: little.

    name: of our model that it becomes a version of.
    """
    digest = folder_digest(_download_files(workspace, uri, folder / MODEL))
    bundle = ServingBundle(
        digest=digest,
        key=f"{FETCHED}/{digest}",
        name=name,
        recipe_digest="",
        manifest="",
        checkpoint="",
        classes=adopted.classes,
        columns=adopted.columns,
        stages=(),
    )
    (folder / BUNDLE_RECORD).write_text(to_json(bundle), encoding="utf-8")
    return bundle


def _download_files(workspace: Workspace, uri: str, folder: Path) -> Path:
    """A registered version's files, in the folder, as they were registered."""
    from mlflow.artifacts import download_artifacts

    server = workspace.settings.mlflow_uri
    whole = Path(download_artifacts(uri, dst_path=str(folder), tracking_uri=server, registry_uri=server))
    (whole / META).unlink(missing_ok=True)
    return whole


def _download(workspace: Workspace, version: ModelVersion, folder: Path) -> None:
    """The bundle's record and model folder out of the registry's artifacts, its digest checked."""
    if version.adopted is not None:
        download_adopted(workspace, version.uri, version.name, version.adopted, folder)
    else:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            whole = _download_files(workspace, version.uri, Path(temporary))
            shutil.move(whole / BUNDLE_RECORD, folder / BUNDLE_RECORD)
            shutil.move(next((whole / "artifacts").iterdir()), folder / MODEL)
    found = folder_digest(folder / MODEL)
    if found != version.bundle:
        problem = f"the registry's files changed: found {found[:12]}, expected {version.bundle[:12]}"
        raise RegistryError(Problem(problem, version.uri, "restore its artifacts, or promote another version"))
