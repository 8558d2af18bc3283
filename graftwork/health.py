"""What this machine has to be like: libraries, folders, the database, the registry. Nothing is made that is not there.

What is looked at on the Prefect server is in flows/doctor.py.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from graftwork.errors import GraftworkError, Problem
from graftwork.phrases import memory
from graftwork.settings import DATABASE, Settings, hide_password

State = Literal["good", "note", "bad"]
LITTLE_ROOM = 5 << 30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. note: it works, but a person should know. hint: what to do, unless it is good."""

    what: str
    state: State
    told: str
    hint: str = ""

    @property
    def problem(self) -> Problem:
        return Problem(self.told, self.what, self.hint)


def examine(settings: Settings) -> Iterator[Finding]:
    """Everything that can be seen without a Prefect server, one after the other."""
    yield from _libraries()
    yield _torchvision()
    yield _device()
    yield _folder("home", settings.home)
    yield _folder("store", settings.store_root)
    yield _database(settings)
    yield _registry(settings)


def _libraries() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in metadata.requires("graftwork") or ()]
    wrong = []
    for each in wanted:
        if each.marker is not None and not each.marker.evaluate({"extra": ""}):
            continue
        found = metadata.version(each.name)
        if not each.specifier.contains(found, prereleases=True):
            wrong.append(f"{each.name} {found} is not {each.specifier}")
    if wrong:
        hint = "pip install -c constraints.txt graftwork, in an environment of its own"
        yield Finding("libraries", "bad", "; ".join(wrong), hint)
    else:
        yield Finding("libraries", "good", f"graftwork {metadata.version('graftwork')} and all that it stands on fit")


def _torchvision() -> Finding:
    if find_spec("torchvision") is None:
        return Finding("torchvision", "good", "not installed, and not needed")
    try:
        torchvision = import_module("torchvision")
    except (ImportError, OSError, RuntimeError) as error:
        return Finding("torchvision", "bad", f"installed, but can't load: {error}", "pip uninstall torchvision")
    return Finding("torchvision", "good", f"{torchvision.__version__} loads")


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Finding("device", "good", names)
    return Finding("device", "good", f"no GPU that torch can use: training on {torch.get_num_threads()} threads")


def _folder(what: str, folder: Path) -> Finding:
    above = next(each for each in (folder, *folder.parents) if each.exists())
    if not os.access(above, os.W_OK | os.X_OK):
        return Finding(what, "bad", f"{above} can't be written to", "make it this user's, or name another place")
    try:
        with tempfile.TemporaryDirectory(dir=above, prefix=".graftwork-doctor-") as made:
            (Path(made) / "a").write_bytes(b"x")
            (Path(made) / "a").rename(Path(made) / "b")
    except OSError as error:
        return Finding(what, "bad", f"{above}: {error.strerror}", "free some space, or name another place")
    free = shutil.disk_usage(above).free
    if free < LITTLE_ROOM:
        return Finding(what, "note", f"{folder}: {memory(free)} free", "a checkpoint with its stages takes gigabytes")
    return Finding(what, "good", f"{folder}: {memory(free)} free")


def _database(settings: Settings) -> Finding:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    from graftwork.database import REVISION, Database

    try:
        where = make_url(settings.database_url).render_as_string(hide_password=True)
    except ArgumentError as error:
        return Finding("database", "bad", str(error), "correct GRAFTWORK_DB")
    if settings.db is None and not settings.home.joinpath(DATABASE).exists():
        return Finding("database", "good", f"{where}, which the first run makes")
    try:
        Database.open(settings.database_url).engine.dispose()
    except GraftworkError as error:
        return Finding("database", "bad", error.problems[0].message, error.problems[0].hint)
    if settings.store is not None and settings.db is None:
        told = f"{where} is this machine's, the store may be others', too"
        return Finding("database", "note", told, "machines that share a store share GRAFTWORK_DB, too")
    return Finding("database", "good", f"{where}, at migration {REVISION}")


def _registry(settings: Settings) -> Finding:
    from graftwork.registry.client import EMBEDDED, reach_mlflow

    where = "embedded" if settings.is_mlflow_embedded else hide_password(settings.mlflow_uri)
    if settings.is_mlflow_embedded and not (settings.home / EMBEDDED).exists():
        return Finding("registry", "good", "embedded; the first run makes it")
    try:
        with reach_mlflow(settings) as client:
            client.search_registered_models(max_results=1)
    except GraftworkError as error:
        message = error.problems[0].message
        by_name = "403" in message or "Invalid Host" in message
        hint = (
            'start it with --allowed-hosts and every name it is called by: "mlflow:*,localhost:*"'
            if by_name
            else "start it, or correct MLFLOW_TRACKING_URI"
        )
        return Finding("registry", "bad", f"{where}: {message}", hint)
    if not settings.is_mlflow_embedded and settings.db is None:
        told = f"{where} is a server, while the ledger is in a file of this machine"
        return Finding("registry", "note", told, "people who share a registry share GRAFTWORK_DB, too")
    return Finding("registry", "good", where)
