"""The store: folders addressed by the digest of what they were computed from.

A step asks for its key before it works; a hit is verified, then reused. How a write becomes whole stays in here: it is
made aside, each file and folder is fsynced, then one rename puts it in place. Readers see all of it or nothing.
"""

import errno
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from graftwork.errors import GraftworkError, Problem
from graftwork.faults import fault
from graftwork.fingerprint import file_digest, walk_files
from graftwork.owners import is_alive, this_owner

MANIFEST = "MANIFEST.json"
STAGING = "staging"
REJECTED = "rejected"
MIB = 1 << 20

log = logging.getLogger(__name__)


class StoreFull(GraftworkError):
    """The disk has no room for what was to be published; nothing was changed."""

    exit_code = 5


@dataclass(frozen=True)
class StoredFile:
    """One file of a stored folder: its path below it, its size in bytes, its sha256."""

    path: str
    size: int
    sha256: str


class Store:
    """Folders under `root`, each `root/<kind>/<digest>` with a manifest of its files; keys are `<kind>/<digest>`.

    made: the keys that this object published, so that a step can tell whether it did anything.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: list[str] = []

    def find(self, key: str) -> bool:
        """True if something is published under the key; `open` tells whether it is still whole."""
        return (self._place(key) / MANIFEST).is_file()

    def open(self, key: str) -> Path | None:
        """The folder published under the key, every file verified; None if there is none.

        A folder that is not what its manifest says is moved aside and reported, so that its step runs again.
        """
        place = self._place(key)
        if not self.find(key):
            return None
        fault_found = _difference(place, key)
        if fault_found is None:
            return place
        aside = self.root / REJECTED / f"{key.replace('/', '-')}-{uuid.uuid4().hex[:8]}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        place.replace(aside)
        log.warning("%s is not what was stored (%s): moved to %s, it will be made again", key, fault_found, aside)
        return None

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        """A fresh folder to write into, published under the key if the block ends well, removed if it does not.

        Raises StoreFull if the disk is full.
        """
        with self.staging() as folder:
            yield folder
            self.publish(key, folder)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder of this process below the store, removed when the block ends; `sweep` removes it after a kill.

        Raises StoreFull if the disk is full.
        """
        folder = self.root / STAGING / f"{this_owner()}:{uuid.uuid4().hex[:12]}"
        folder.mkdir(parents=True)
        try:
            yield folder
        except Exception as error:
            if not _is_full(error):
                raise
            raise StoreFull(_no_room(folder, error)) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, key: str, folder: Path) -> Path:
        """Move a finished folder to its key, whole or not at all; a folder that is already there stays."""
        place = self._place(key)
        files = [
            StoredFile(path.relative_to(folder).as_posix(), path.stat().st_size, file_digest(path))
            for path in walk_files(folder)
        ]
        manifest = {"key": key, "files": [vars(file) for file in files]}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        fault("store.before_fsync")
        _sync_tree(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        fault("store.before_rename")
        try:
            folder.rename(place)
        except OSError:
            if not self.find(key):
                raise
        fault("store.after_rename")
        _sync(place.parent)
        self.made.append(key)
        return place

    def keys(self, kind: str, prefix: str = "") -> list[str]:
        """The keys of a kind whose names begin so, sorted."""
        found = (self.root / kind).glob(f"{prefix}*/{MANIFEST}")
        return sorted(f"{kind}/{manifest.parent.name}" for manifest in found)

    def remove(self, key: str) -> None:
        """Take a folder away, whole or not at all; one that is not there is no error."""
        aside = self.root / STAGING / f"{this_owner()}:{uuid.uuid4().hex[:12]}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            self._place(key).rename(aside)
            _sync(self._place(key).parent)
            shutil.rmtree(aside, ignore_errors=True)

    def sweep(self) -> int:
        """Remove what processes of this machine that have ended left half-written; the number of folders removed."""
        folders = (self.root / STAGING).glob("*")
        left = [folder for folder in folders if ":" in folder.name and not is_alive(folder.name.rpartition(":")[0])]
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        return len(left)

    def _place(self, key: str) -> Path:
        kind, _, name = key.partition("/")
        if not (kind.isidentifier() and name.isalnum()):
            raise ValueError(f"not a store key: {key!r}")
        return self.root / kind / name


def _difference(place: Path, key: str) -> str | None:
    """What is wrong with the folder stored under the key, or None."""
    try:
        manifest = json.loads((place / MANIFEST).read_text("utf-8"))
        if manifest["key"] != key:
            return f"it was stored as {manifest['key']}"
        listed = [StoredFile(**entry) for entry in manifest["files"]]
        found = {path.relative_to(place).as_posix() for path in walk_files(place)} - {MANIFEST}
    except (ValueError, KeyError, TypeError, GraftworkError) as error:
        return f"unreadable: {error}"
    for name in sorted(found - {file.path for file in listed}):
        return f"{name} does not belong to it"
    for file in listed:
        path = place / file.path
        if file.path not in found:
            return f"{file.path} is missing"
        if path.stat().st_size != file.size or file_digest(path) != file.sha256:
            return f"{file.path} was altered"
    return None


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_full(error: Exception) -> bool:
    """True for a full disk, also as safetensors tells it: by an error of its own, in words."""
    return getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)


def _no_room(folder: Path, error: Exception) -> Problem:
    free = shutil.disk_usage(folder).free / MIB
    written = sum(path.stat().st_size for path in walk_files(folder)) / MIB
    return Problem(
        f"no room on the disk: {written:.0f} MiB were written when it was full, {free:.0f} MiB are free",
        where=str(getattr(error, "filename", None) or folder),
        hint="free some space and run again; nothing that was stored is lost",
    )
