"""What a source names: which files, each pinned by its sha256, and the reader for each format.

A path is one file, or a landing folder whose supported files are all taken. A file that changes while it is looked at
is refused, so that no half-written file becomes data.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from graftwork.data.decoding import UnreadableFileError
from graftwork.data.delimited import read_delimited
from graftwork.data.jsonlines import read_json_lines
from graftwork.data.parquet import read_parquet
from graftwork.data.quarantine import BadRow, Cells
from graftwork.errors import DataError, Problem, raise_if, shorten
from graftwork.fingerprint import file_digest
from graftwork.sections.data import NOUNS

# Suffixes of files that are a row, or what a table's row names, by what a recipe reads.
MEDIA: Mapping[str, frozenset[str]] = {
    "image": frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}),
    "audio": frozenset({".wav", ".flac", ".ogg", ".mp3"}),
}
# What is known of such a file that is a row by itself: its path below the source, the folder that it lies in, its name.
FILE, FOLDER, NAME = "file", "folder", "name"
FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
REFERENCE_BYTES = 20
UNFINISHED = (".tmp", ".part", ".crdownload")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LandedFile:
    """A file as it was when its sha256 was taken.

    name: its path within its source. where: how messages name it. kind: its format, or what of MEDIA it is.
    """

    source: str
    name: str
    path: Path
    where: str
    kind: str
    is_landing: bool
    size: int
    sha256: str
    stamp: tuple[int, int, int]

    @property
    def folder(self) -> Path:
        """Of the source."""
        return self.path.parents[len(PurePosixPath(self.name).parts) - 1]

    @property
    def is_media(self) -> bool:
        """True if it is a picture or a sound, not a table."""
        return self.kind in MEDIA


def list_files(
    source: str,
    path: Path,
    root: Path,
    kind: str | None = None,
    url: str | None = None,
    modality: str = "text",
) -> list[LandedFile]:
    """The files of one source, sorted by name; none for a landing folder that is empty or not there yet.

    kind: the format of every file, or None to go by the suffix. url: what the path is a mirror of. modality: what
    the recipe reads; each such file is a row, or, where there are tables, what a row of these may name.
    Raises DataError with every file that can't be taken.
    """
    place = root / path
    if place.is_dir():
        return _list_landing(source, place, root, kind, url, modality)
    if modality in MEDIA and place.exists() and FORMATS.get(place.suffix.lower()) != "parquet":
        hint = f"give the folder that it is in, with the {NOUNS[modality]}, or a Parquet file that holds them"
        raise DataError(Problem(f"{NOUNS[modality]} lie in a folder; this is a file", _shown(place, root), hint))
    found = kind or FORMATS.get(place.suffix.lower())
    if not place.exists():
        if not place.suffix:
            return []
        raise DataError(Problem(f"source {source!r} is not there", _shown(place, root)))
    if found is None:
        hint = f"set `format:` of source {source!r} to one of {', '.join(sorted(set(FORMATS.values())))}"
        raise DataError(Problem("the format can't be told from the suffix", _shown(place, root), hint))
    return [_pin(source, place.name, place, _shown(place, root), found, is_landing=False)]


def read_file(
    file: LandedFile,
    columns: Sequence[str],
    exact: Sequence[str],
    header: Sequence[str] | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    embedded: Sequence[str] = (),
    lists: Sequence[str] = (),
) -> list[tuple[int, Cells | BadRow]]:
    """Every row of a file: its line (its number in Parquet), and its cells in the order of `columns`, or what is wrong.

    exact: columns that hold text or names. header: the columns of a file without a header line. embedded: columns
    that may hold encoded files, in Parquet. lists: those that may hold lists of words, in JSON lines and Parquet.
    Raises UnreadableFileError if the file as a whole can't be trusted, DataError if it is still being written.
    """
    rows: Iterator[tuple[int, Cells | BadRow]]
    if file.is_media:
        rows = iter([(1, _cells_of_media(file, columns))])
    elif file.kind == "parquet":
        rows = read_parquet(file.path, file.where, columns, exact, embedded, lists)
    elif file.kind == "jsonl":
        rows = read_json_lines(file.path, file.where, columns, encoding, lists)
    else:
        is_quoted = file.kind == "csv"
        separator = delimiter or ("," if is_quoted else "\t")
        rows = read_delimited(file.path, file.where, columns, header, separator, encoding, is_quoted)
    try:
        read = list(rows)
    finally:
        _refuse_change(file.path, file.stamp, file.where)
    if not read:
        raise UnreadableFileError(Problem("nothing landed: the file has no rows", file.where))
    return read


def stamp_files(source: str, path: Path, root: Path) -> list[tuple[Any, ...]]:
    """Each file of one source by source, name, size, time and inode: what tells, unread, whether anything changed."""
    place = root / path
    if place.is_dir():
        found = [(entry.path, entry.stat()) for entry in _walk(place) if entry.is_file()]
    else:
        found = [(str(place), place.stat())] if place.exists() else []
    return sorted((source, name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in found)


def cells_of_media(name: str) -> dict[str, str]:
    """What a picture or a sound by itself has in the place of a table's columns. name: its path in its source."""
    path = PurePosixPath(name)
    return {FILE: name, FOLDER: path.parent.name, NAME: path.name}


def _cells_of_media(file: LandedFile, columns: Sequence[str]) -> Cells:
    known = cells_of_media(file.name)
    missing = [column for column in columns if column not in known]
    if missing:
        problem = f"no column {', '.join(missing)}: a file by itself has {FILE}, {FOLDER} and {NAME}"
        hint = f"put a table beside the {NOUNS[file.kind]} that says more of each"
        raise DataError(Problem(problem, file.where, hint))
    return tuple(known[column] for column in columns)


def _list_landing(
    source: str, folder: Path, root: Path, kind: str | None, url: str | None, modality: str
) -> list[LandedFile]:
    inside, shown = folder.resolve(), url or str(_below(folder, root))
    files, problems = [], []
    for entry in sorted(_walk(folder), key=lambda entry: entry.path.split("/")):  # strings: there may be many
        name = entry.path[len(str(folder)) + 1 :]
        path, where = Path(entry.path), shorten(f"{shown}/{name}")
        if entry.is_symlink() and not _leads_inside(path, inside):
            problems.append(Problem("a symbolic link leaves the landing folder", where, "copy the file"))
        elif entry.is_file():
            suffix = path.suffix.lower()
            found = modality if suffix in MEDIA.get(modality, ()) else kind or FORMATS.get(suffix)
            if found is None:
                log.warning("%s: not a supported format, left out", where)
            else:
                files.append(_pin(source, name, path, where, found, is_landing=True))
    raise_if(problems, DataError)
    return files


def _leads_inside(link: Path, folder: Path) -> bool:
    """False, too, for a link that leads nowhere because it leads in a circle."""
    try:
        return link.resolve().is_relative_to(folder)
    except RuntimeError:
        return False


def _walk(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    """What lies below a landing folder, without what is hidden or still being written; links lead nowhere."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
            elif not entry.name.endswith(UNFINISHED):
                yield entry


def _pin(source: str, name: str, path: Path, where: str, kind: str, is_landing: bool) -> LandedFile:
    try:
        stamp = _stamp(path)
        sha256 = file_digest(path)
    except OSError as error:
        raise DataError(Problem(f"can't be read: {error.strerror}", where)) from error
    _refuse_change(path, stamp, where)
    return LandedFile(source, name, path, where, kind, is_landing, stamp[0], sha256, stamp)


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _refuse_change(path: Path, stamp: tuple[int, int, int], where: str) -> None:
    try:
        is_same = _stamp(path) == stamp
    except OSError:
        is_same = False
    if not is_same:
        hint = "run again when it is whole; a writer does best to write aside and rename"
        raise DataError(Problem("the file changed while it was read: it is still being written", where, hint))


def _shown(path: Path, root: Path) -> str:
    return shorten(_below(path, root))


def _below(path: Path, root: Path) -> Path:
    """The path from the root, if that is above it."""
    return path.relative_to(root) if path.is_relative_to(root) else path


def reference_of(data: bytes) -> str:
    """What names an encoded picture or sound: equal for equal files."""
    return hashlib.blake2b(data, digest_size=REFERENCE_BYTES).hexdigest()
