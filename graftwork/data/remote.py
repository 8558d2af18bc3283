"""Landing folders in a bucket: each object there is fetched once into a folder of this machine.

Everything that reads data reads that mirror, as it would any landing folder. An object is known by its name, its size,
and what the server says of its content or its time. Credentials are the environment's, such as AWS_ACCESS_KEY_ID; a URL
holds none.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from graftwork.data.sources import UNFINISHED
from graftwork.errors import DataError, GraftworkError, Problem, RecipeError, ServiceUnavailable, raise_if
from graftwork.fields import PROTOCOLS
from graftwork.fingerprint import digest
from graftwork.storage import is_full, make_folder, whole_file

# What servers say of an object by which a change of it can be told, the best first.
VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified", "updated")
INDEX, FILES = "index.json", "files"


@dataclass(frozen=True, order=True)
class RemoteFile:
    """An object below a URL. name: its path there. version: differs when its content does."""

    name: str
    size: int
    version: str


@dataclass(frozen=True)
class RemoteFolder:
    """What lies below a URL.

    Whatever is done there raises RecipeError if its protocol can't be spoken here, DataError if there is no such
    bucket, ServiceUnavailable for what may be otherwise the next time: no answer, or credentials that are refused.
    """

    url: str

    def list(self) -> list[RemoteFile]:
        """Every object, sorted by name, without those that are hidden or still being written.

        Raises DataError for names that can't be those of files in a folder.
        """
        with self._reached() as (system, top):
            system.invalidate_cache()
            found: Mapping[str, Any] = system.find(top, detail=True)
            files = [_remote_file(path.removeprefix(f"{top}/"), facts) for path, facts in found.items() if path != top]
        files = [file for file in files if file.name and not file.name.endswith("/")]
        folders = {str(folder) for file in files for folder in PurePosixPath(file.name).parents}
        wrong = (file.name for file in files if not _is_plain(file.name) or file.name in folders)
        hint = "rename it there"
        raise_if((Problem("it can't be a file in a folder", f"{self.url}/{name}", hint) for name in wrong), DataError)
        return sorted(file for file in files if _is_whole(file.name))

    def mirror(self, below: Path) -> Path:
        """The folder, below this one, that now holds what is there and nothing else; what it held is not fetched again.

        Raises ServiceUnavailable if an object changes while it is fetched.
        """
        home = below / digest(self.url)[:16]
        place = home / FILES
        make_folder(place)
        with FileLock(home / "lock"):
            known, files = _read_index(home / INDEX), {file.name: file for file in self.list()}
            kept = {name: file for name, file in files.items() if known.get(name) == file and (place / name).is_file()}
            # Before anything is removed or fetched: what a crash leaves is then unknown, and goes the next time.
            _write_index(home / INDEX, kept)
            _remove_others(place, kept)
            for name in files.keys() - kept.keys():
                self._fetch(files[name], place / name)
            _write_index(home / INDEX, files)
        return place

    def put(self, file: Path, sha256: str) -> bool:
        """Upload a file with this digest; False if it is there already. Raises DataError if another of its name is."""
        with self._reached() as (system, top):
            place = f"{top}/{file.name}"
            system.invalidate_cache()
            try:
                system.info(place)
            except FileNotFoundError:
                system.put_file(str(file), place)  # to a bucket, whole or not at all
                return True
            with system.open(place, "rb") as there:
                is_same = hashlib.file_digest(there, "sha256").hexdigest() == sha256
        if not is_same:
            hint = "give yours another name"
            raise DataError(Problem("another file of that name has landed", f"{self.url}/{file.name}", hint))
        return False

    def _fetch(self, file: RemoteFile, place: Path) -> None:
        make_folder(place.parent)
        with whole_file(place) as aside:
            with self._reached() as (system, top):
                found = None
                with suppress(FileNotFoundError):
                    system.get_file(f"{top}/{file.name}", str(aside))
                    system.invalidate_cache()
                    found = _remote_file(file.name, system.info(f"{top}/{file.name}"))
            if found != file or aside.stat().st_size != file.size:
                hint = "run again when it is whole"
                raise ServiceUnavailable(Problem("it changed while it was fetched", f"{self.url}/{file.name}", hint))

    @contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        """The file system, the path in it, and its errors as ours."""
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
        except Exception as error:  # each protocol has errors of its own
            if is_full(error):
                raise
            hint = "credentials and endpoints are taken from the environment"
            raise ServiceUnavailable(Problem(f"it can't be reached: {error}", self.url, hint)) from error


def _remote_file(name: str, facts: Mapping[str, Any]) -> RemoteFile:
    version = next((str(facts[key]) for key in VERSIONS if facts.get(key)), "")
    return RemoteFile(name, int(facts.get("size") or 0), version)


def _is_plain(name: str) -> bool:
    """True if it names one file below a folder, and no other name does."""
    path = PurePosixPath(name)
    return str(path) == name and not path.is_absolute() and ".." not in path.parts and not set(name) & set("\\\0")


def _is_whole(name: str) -> bool:
    return not name.endswith(UNFINISHED) and not any(part.startswith(".") for part in PurePosixPath(name).parts)


def _remove_others(folder: Path, kept: Collection[str]) -> None:
    """Whatever is below the folder and not one of these files, and folders that are then empty."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before it
        if not path.is_dir() or path.is_symlink():
            if path.relative_to(folder).as_posix() not in kept:
                path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()


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
