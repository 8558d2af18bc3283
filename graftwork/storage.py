"""The store: folders addressed by the digest of what they were computed from.

A step asks for its key before it works; a hit is verified, then reused. How a write becomes whole stays in here: it is
made aside, each file and folder is fsynced, then one rename puts it in place, and the folder that it is named in is
fsynced, too. Readers see all of it or nothing, and a power cut takes nothing back. The few files that lie outside of
the store are written so by `whole_file`.
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

FULL = (errno.ENOSPC, errno.EDQUOT)
MANIFEST = "MANIFEST.json"
STAGING = "staging"
REJECTED = "rejected"

log = logging.getLogger(__name__)


class StoreFull(GraftworkError):
    """The disk has no room for what was to be written; what was there before is as it was."""

    exit_code = 5


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place to write a file that becomes `path` if the block ends well; until then what is there stays.

    Raises StoreFull if the disk is full.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _full_told(path, aside):
            yield aside
            _sync(aside)
            fault("file.before_rename")
            aside.replace(path)
            _sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write into that becomes `path`, where nothing is yet, if the block ends well.

    Raises StoreFull if the disk is full.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _full_told(path, aside):
            aside.mkdir()
            yield aside
            _sync_tree(aside)
            fault("file.before_rename")
            aside.rename(path)
            _sync(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make the folder, and those above it that are missing, so that a power cut leaves them there."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        _sync(folder.parent)


def is_full(error: Exception) -> bool:
    """True for a full disk, also as safetensors or a database tells it: by an error of its own, in words."""
    words = ("database or disk is full", *map(os.strerror, FULL))
    return getattr(error, "errno", None) in FULL or any(text in str(error) for text in words)


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
        try:
            with _full_told(self.root, folder):
                make_folder(folder.parent)
                folder.mkdir()
                yield folder
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
        make_folder(place.parent)
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


@contextmanager
def _full_told(where: Path, aside: Path) -> Iterator[None]:
    """Raises StoreFull if the disk is found full while `aside`, a file or a folder, is written for `where`."""
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        raise StoreFull(_no_room(where, aside)) from error


def _no_room(where: Path, aside: Path) -> Problem:
    """What was written aside is given back, so that it counts as free. (The error itself may name a file it read.)"""
    files = walk_files(aside) if aside.is_dir() else [path for path in (aside,) if path.exists()]
    disk = next(folder for folder in aside.parents if folder.exists())
    free = sum(path.stat().st_size for path in files) + shutil.disk_usage(disk).free
    return Problem(
        f"no room on the disk: {free:,} bytes are free, and more are needed",
        where=str(where),
        hint="free some space and run again; nothing that was stored is lost",
    )
