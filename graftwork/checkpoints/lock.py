"""The lock of a checkpoint: which bytes, from where, under which licence. It lies beside the recipe."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from graftwork.errors import CheckpointError, GraftworkError, Problem
from graftwork.fingerprint import digest, file_digest, from_json, to_json
from graftwork.storage import whole_file


@dataclass(frozen=True)
class CheckpointFile:
    """One file: its path below the checkpoint's folder, its size in bytes, its sha256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class CheckpointLock:
    """A checkpoint, pinned.

    revision: the hub's commit or the package's version. architecture: config.json's `model_type`, or that of the tower
    which is used of two. pooling: what the sentence encoder was made with, if it says. dtypes: of its tensors, as
    safetensors names them. files: by path.
    """

    SCHEMA: ClassVar[int] = 1
    source: str
    revision: str | None
    licence: str | None
    architecture: str
    pooling: str | None
    dtypes: tuple[str, ...]
    files: tuple[CheckpointFile, ...]

    @property
    def digest(self) -> str:
        """Of the files alone: the same bytes from another place are the same checkpoint."""
        return digest(self.files)

    @property
    def key(self) -> str:
        """Where the store holds the verified files."""
        return f"checkpoint/{self.digest}"


def lock_path(recipe: Path) -> Path:
    """The lockfile of a recipe: beside it, `<stem>.lock.json`."""
    return recipe.with_name(f"{recipe.stem}.lock.json")


def read_lock(path: Path) -> CheckpointLock | None:
    """The lock in the file, None if there is no file. Raises CheckpointError if it can't be read."""
    try:
        return from_json(CheckpointLock, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, GraftworkError) as error:
        raise CheckpointError(
            Problem(f"not a lockfile: {error}", str(path), "restore it, or run graftwork lock")
        ) from error


def write_lock(path: Path, lock: CheckpointLock) -> None:
    """Write the lockfile, whole or not at all. Raises CheckpointError, or StoreFull for a full disk."""
    try:
        with whole_file(path) as aside:
            aside.write_text(to_json(lock), encoding="utf-8")
    except OSError as error:
        raise CheckpointError(Problem(f"can't be written: {error.strerror}", str(path))) from error


def list_files(folder: Path, names: tuple[str, ...]) -> tuple[CheckpointFile, ...]:
    """The named files of a folder with their sizes and digests, by path."""
    paths = ((name, folder / name) for name in sorted(names))
    return tuple(CheckpointFile(name, path.stat().st_size, file_digest(path)) for name, path in paths)


def differences(locked: CheckpointLock, found: CheckpointLock) -> Iterator[Problem]:
    """What is not as the lockfile says, file by file."""
    hint = "restore it; to accept it as it is, run graftwork lock"
    expected = {file.path: file for file in locked.files}
    present = {file.path: file for file in found.files}
    for name in sorted(expected.keys() | present.keys()):
        where = f"{found.source}: {name}"
        if name not in present:
            yield Problem("missing, but the lockfile lists it", where, hint)
        elif name not in expected:
            yield Problem("not in the lockfile", where, hint)
        elif present[name] != expected[name]:
            yield Problem(f"altered: {_brief(present[name])} found, {_brief(expected[name])} locked", where, hint)


def _brief(file: CheckpointFile) -> str:
    return f"{file.size} bytes sha256 {file.sha256[:12]}"
