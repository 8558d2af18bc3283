"""Landing folders that are elsewhere, such as a bucket: each file there is fetched once into a folder of this machine.

Everything that reads data reads that mirror, so that nothing changes under it. A file is known by its name, its size,
and what the server says of its content or its time. Credentials are the environment's, such as AWS_ACCESS_KEY_ID; a URL
holds none.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from graftwork.data.sources import UNFINISHED
from graftwork.errors import DataError, GraftworkError, Problem, RecipeError, ServiceUnavailable, raise_if
from graftwork.fields import PROTOCOLS
from graftwork.fingerprint import digest
from graftwork.storage import make_folder, whole_file

# What servers say of a file by which a change of it can be told, the best first.
VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "updated", "modified")
INDEX, FILES = "index.json", "files"


@dataclass(frozen=True, order=True)
class RemoteFile:
    """A file below a URL. name: its path there. version: differs when its content does."""

    name: str
    size: int
    version: str


@dataclass(frozen=True)
class RemoteFolder:
    """What lies below a URL. Raises RecipeError for one whose protocol can't be spoken."""

    url: str

    def list(self) -> list[RemoteFile]:
        """Every file, sorted by name, without those that are hidden or still being written.

        Raises DataError if the place is not there, or if a name would lead elsewhere in a folder.
        """
        with self._reached() as (system, top):
            system.invalidate_cache()
            found: Mapping[str, Any] = system.find(top, detail=True)
        files = [
            RemoteFile(path.removeprefix(top).lstrip("/"), int(facts["size"]), _version(facts))
            for path, facts in found.items()
            if facts["type"] == "file" and not path.endswith("/")
        ]
        folders = {str(folder) for file in files for folder in PurePosixPath(file.name).parents}
        wrong = (file.name for file in files if not _is_safe(file.name) or file.name in folders)
        hint = "rename it there"
        raise_if((Problem("it can't be a file in a folder", f"{self.url}/{name}", hint) for name in wrong), DataError)
        return sorted(file for file in files if _is_whole(file.name))

    def mirror(self, below: Path) -> Path:
        """The folder, below this one, that now holds what is there; what has been fetched before is not again.

        Raises DataError if a file changes while it is fetched.
        """
        home = below / digest(self.url)[:16]
        make_folder(home / FILES)
        with FileLock(home / "lock"):
            known = _read_index(home / INDEX)
            files = {file.name: file for file in self.list()}
            for name in known.keys() - files.keys():
                (home / FILES / name).unlink(missing_ok=True)
            wanted = [file for name, file in files.items() if known.get(name) != file]
            kept = {name: file for name, file in known.items() if files.get(name) == file}
            _write_index(home / INDEX, kept)  # before any file is replaced: what a crash leaves is fetched again
            for file in wanted:
                self._fetch(file, home / FILES / file.name)
            _write_index(home / INDEX, files)
        return home / FILES

    def put(self, file: Path) -> bool:
        """Copy a file there; False if it is there already. Raises DataError if another of its name is."""
        with self._reached() as (system, top):
            place = f"{top}/{file.name}"
            if system.exists(place):
                if system.cat_file(place) == file.read_bytes():
                    return False
                hint = "give yours another name"
                raise DataError(Problem("another file of that name has landed", f"{self.url}/{file.name}", hint))
            aside = f"{top}/.{file.name}.part"
            system.put_file(str(file), aside)
            system.mv(aside, place)
        return True

    def _fetch(self, file: RemoteFile, place: Path) -> None:
        make_folder(place.parent)
        with self._reached() as (system, top), whole_file(place) as aside:
            system.get_file(f"{top}/{file.name}", str(aside))
            if aside.stat().st_size != file.size:
                hint = "run again when it is whole"
                raise DataError(Problem("it changed while it was fetched", f"{self.url}/{file.name}", hint))

    @contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        """The file system, and the path in it, and its errors as ours."""
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]

        try:
            system, top = url_to_fs(self.url)
            yield system, top.rstrip("/")
        except GraftworkError:
            raise
        except ImportError as error:
            hint = f"pip install '{PROTOCOLS[urlsplit(self.url).scheme]}'"
            raise RecipeError(Problem(f"its protocol can't be spoken here: {error}", self.url, hint)) from error
        except FileNotFoundError as error:
            raise DataError(Problem("there is no such place", self.url)) from error
        except PermissionError as error:
            hint = "the server refuses these credentials; they are taken from the environment"
            raise DataError(Problem(f"it can't be read: {error}", self.url, hint)) from error
        except Exception as error:  # each protocol has errors of its own for a server that does not answer
            raise ServiceUnavailable(Problem(f"it does not answer: {error}", self.url)) from error


def _version(facts: Mapping[str, Any]) -> str:
    return next((str(facts[name]) for name in VERSIONS if facts.get(name)), "")


def _is_safe(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name and "\0" not in name


def _is_whole(name: str) -> bool:
    return not name.endswith(UNFINISHED) and not any(part.startswith(".") for part in PurePosixPath(name).parts)


def _read_index(path: Path) -> dict[str, RemoteFile]:
    """What was fetched whole; nothing if that is not known, so that it is fetched again."""
    try:
        return {name: RemoteFile(name, *facts) for name, facts in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write_index(path: Path, files: Mapping[str, RemoteFile]) -> None:
    with whole_file(path) as aside:
        known = {name: (file.size, file.version) for name, file in files.items()}
        aside.write_text(json.dumps(known), encoding="utf-8")
