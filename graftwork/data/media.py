"""Pictures and sounds of accepted rows: checked where they landed, then kept in the store, so that a manifest is whole.

A row names its file by a reference. Each manifest adds a pack of the files that are new in it, as `media/<digest>`, and
lists those of its parents before it.
"""

import errno
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Protocol, SupportsBytes

import pyarrow
import pyarrow.parquet

from graftwork.data.chunks import Chunk, TableFile
from graftwork.data.parquet import EmbeddedFiles
from graftwork.data.quarantine import BadRow
from graftwork.data.sources import MEDIA, LandedFile, reference_of
from graftwork.errors import DataError, Problem, RecipeError, shorten
from graftwork.fingerprint import folder_digest
from graftwork.storage import Store

KIND = "media"
PACK = "media.arrow"
SCHEMA = pyarrow.schema([("reference", pyarrow.string()), ("data", pyarrow.large_binary())])
BATCH_BYTES = 32 << 20
MAX_BYTES = 256 << 20  # of one encoded file
ONE = {"image": "picture", "audio": "sound"}

log = logging.getLogger(__name__)


class MediaFacts(Protocol):
    """What is told of a file. reference: names it. likeness: bits that nearly agree for what is nearly the same.

    converted: what the rules did to it.
    """

    @property
    def reference(self) -> str: ...
    @property
    def likeness(self) -> bytes: ...
    @property
    def converted(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class CheckedFile:
    """A file as it was when it was checked. data: its bytes, read anew when they are asked for. sha256: of them."""

    data: SupportsBytes
    where: str
    sha256: str
    facts: MediaFacts


class MediaReader:
    """Checks the files that rows name, which are of those that landed. found: by reference, one file for each.

    beside: a reader of other files, into whose `found` this one puts its own.
    """

    def __init__(self, modality: str, files: Sequence[LandedFile], beside: "MediaReader | None" = None) -> None:
        check_readable(modality)
        self.modality = modality
        self.landed = {Path(os.path.normpath(file.path)): file for file in files if file.is_media}
        self.found: dict[str, CheckedFile] = {} if beside is None else beside.found
        self.embedded: dict[tuple[Path, str], EmbeddedFiles | None] = {}

    def take(self, file: LandedFile, cell: str, column: str) -> str | BadRow:
        """The reference of the file that a row names, or why it can't be trained on.

        file: that the row is in: the picture or sound itself, a table that its path leads from, or one that holds it.
        Raises DataError if what is named has changed since it was looked at.
        """
        held = self._held_by(file, column)
        if held is not None:
            return self._check(_Embedded(held, int(cell)), f"{file.where}:{cell}", column, cell)
        named = file if file.is_media else self.landed.get(Path(os.path.normpath(file.path.parent / cell)))
        if named is None or named.source != file.source:
            return BadRow(column, self._why_not_landed(file, cell), cell)
        return self._check(MediaFile(named.path), named.where, column, cell, named.sha256)

    def _check(
        self, source: SupportsBytes, where: str, column: str, cell: str, expected: str | None = None
    ) -> str | BadRow:
        """The reference of a file. expected: its digest, if it was looked at before."""
        data = _read(source)
        if isinstance(data, str):
            return BadRow(column, data, cell)
        sha256 = hashlib.sha256(data).hexdigest()
        if expected not in (None, sha256):
            raise DataError(_changed(where))
        facts = inspect(self.modality, data, column)
        if isinstance(facts, BadRow):
            return facts
        checked = CheckedFile(source, where, sha256, facts)
        return self.found.setdefault(facts.reference, checked).facts.reference

    def _held_by(self, file: LandedFile, column: str) -> EmbeddedFiles | None:
        """The files that a column of a table holds; None where it holds paths."""
        if file.kind != "parquet":
            return None
        key = (file.path, column)
        if key not in self.embedded:
            self.embedded[key] = EmbeddedFiles.of(file.path, column)
        return self.embedded[key]

    def tell_conversions(self) -> None:
        """Log what the rules did to how many files."""
        for word, count in sorted(
            Counter(word for each in self.found.values() for word in each.facts.converted).items()
        ):
            log.info("%d of %d files converted by rule: %s", count, len(self.found), word)
        if self.modality == "audio":
            self._tell_rates()

    def _tell_rates(self) -> None:
        """Log at what rates the recordings are: a model hears all of them at its own, which is known later."""
        from graftwork.data.sounds import SoundFacts

        facts = (each.facts for each in self.found.values())
        rates = Counter(each.rate for each in facts if isinstance(each, SoundFacts))
        for rate, count in sorted(rates.items()):
            log.info(
                "%d of %d files are at %s Hz; the model hears them at its own rate", count, len(self.found), f"{rate:,}"
            )

    def _why_not_landed(self, file: LandedFile, cell: str) -> str:
        """In words, for a path that leads to no file which was looked at."""
        path = file.path.parent / cell
        astray = _astray(path, file.folder)
        if astray is not None:
            return astray
        if not os.path.lexists(path):
            return f"there is no such {ONE[self.modality]}"
        suffixes = ", ".join(sorted(MEDIA[self.modality]))
        return f"not taken: expected a file that is whole, not hidden, and ends in {suffixes}"


def check_readable(modality: str) -> None:
    """Raises RecipeError where what reads such files is not installed."""
    if modality == "audio":
        try:
            import soundfile  # noqa: F401
            import soxr  # noqa: F401
        except ImportError as error:
            problem = f"{error.name} is not installed, which reads sounds"
            raise RecipeError(Problem(problem, hint="pip install 'graftwork[audio]'")) from error


def inspect(modality: str, data: bytes, column: str) -> "MediaFacts | BadRow":
    """The facts about an encoded picture or sound, or why it can't be trained on."""
    if modality == "image":
        from graftwork.data.images import inspect_image

        return inspect_image(data, column)
    from graftwork.data.sounds import inspect_sound

    return inspect_sound(data, column)


@dataclass(frozen=True)
class MediaFile:
    """An encoded picture or sound in a file, read when its bytes are asked for. A pipe may be endless, and is not."""

    path: Path

    def __bytes__(self) -> bytes:
        if not (self.path.is_file() or self.path.is_dir()) and self.path.exists():
            raise OSError(errno.EINVAL, "a device or a pipe, not a file")
        if self.path.stat().st_size > MAX_BYTES:
            raise OSError(errno.EFBIG, f"more than {MAX_BYTES >> 20} MiB")
        return self.path.read_bytes()


@dataclass(frozen=True)
class _Embedded:
    """An encoded picture or sound in a row of a table."""

    held: EmbeddedFiles
    number: int

    def __bytes__(self) -> bytes:
        return self.held[self.number] or b""


@dataclass(frozen=True)
class NamedFile:
    """An encoded picture or sound that a row names and that was checked, read again when its bytes are asked for.

    name: how it is told. where: the row. reference: of what was checked.
    """

    source: SupportsBytes
    name: str
    where: str
    reference: str

    def __bytes__(self) -> bytes:
        """Raises DataError if it is not what was checked."""
        data = _read(self.source)
        if isinstance(data, bytes) and reference_of(data) == self.reference:
            return data
        problem = data if isinstance(data, str) else "it changed while it was read"
        hint = "run again when nothing changes any more"
        raise DataError(Problem(f"{shorten(self.name)}: {problem}", self.where, hint))


class RowFiles:
    """The pictures or sounds that the rows of a table name by their paths, or that a column of it holds."""

    def __init__(self, modality: str, file: TableFile, column: str) -> None:
        self.modality, self.file, self.column = modality, file, column
        self.held = EmbeddedFiles.of(file.path, column) if file.kind == "parquet" else None

    def cells(self, chunk: Chunk) -> list[str | None]:
        """What names the file of each row of the chunk: its path, or the number of its row. None if nothing does."""
        return chunk.cells(self.column) if self.held is None else list(map(str, chunk.lines))

    def named(self, line: int, cell: str, reference: str) -> NamedFile:
        """The file that a row names, which was checked before."""
        where = f"{self.file.path}:{line}"
        if self.held is not None:
            return NamedFile(_Embedded(self.held, line), ONE[self.modality], where, reference)
        return NamedFile(MediaFile(self.file.folder / cell), PurePath(cell).name, where, reference)

    def open(self, line: int, cell: str) -> NamedFile | BadRow:
        """The same, checked now, or why it can't be read. Its path stays in the folder that it leads from."""
        found = self.named(line, cell, "")
        astray = _astray(self.file.folder / cell, self.file.folder) if self.held is None else None
        data = astray or _read(found.source)
        facts = BadRow("", data, cell) if isinstance(data, str) else inspect(self.modality, data, "")
        if isinstance(facts, BadRow):
            return BadRow("", f"the {ONE[self.modality]} {shorten(cell)}: {facts.reason}", cell)
        return replace(found, reference=facts.reference)


def _astray(path: Path, folder: Path) -> str | None:
    """Why a path does not lead into the folder, symbolic links followed; None if it does."""
    try:
        is_inside = path.resolve().is_relative_to(folder.resolve())
    except RuntimeError:  # so pathlib tells a loop, until Python 3.13
        return "its symbolic links lead in a circle"
    except ValueError:
        return "no file can have such a name"
    return None if is_inside else "the path leaves the folder of the source"


def _read(source: SupportsBytes) -> bytes | str:
    """The bytes of a file, or why they are not read."""
    try:
        return bytes(source)
    except OSError as error:
        return f"it can't be read: {error.strerror}"
    except ValueError:
        return "no file can have such a name"


class StoredMedia:
    """An encoded file in a pack, read when its bytes are asked for."""

    __slots__ = ("_data", "_place")

    def __init__(self, data: "pyarrow.ChunkedArray", place: int) -> None:
        self._data, self._place = data, place

    def __bytes__(self) -> bytes:
        content: bytes = self._data[self._place].as_py()
        return content


def open_packs(store: Store, keys: Sequence[str]) -> dict[str, StoredMedia]:
    """What the packs hold, by reference. Raises DataError if a pack is not there whole."""
    kept: dict[str, StoredMedia] = {}
    for key in keys:
        folder = store.open(key)
        if folder is None:
            hint = "restore the store from its backup; under another recipe name the data is split afresh"
            raise DataError(Problem("files of this data are not in the store, or were altered there", key, hint))
        table = pyarrow.ipc.open_file(pyarrow.memory_map(str(folder / PACK))).read_all()
        names, data = table.column("reference").to_pylist(), table.column("data")
        kept |= {name: StoredMedia(data, place) for place, name in enumerate(names)}
    return kept


def publish_pack(store: Store, files: Mapping[str, CheckedFile]) -> str:
    """The key of a pack with these files, by reference. Raises DataError if one has changed since it was checked."""
    with store.staging() as folder:
        with pyarrow.ipc.new_file(str(folder / PACK), SCHEMA) as writer:
            for batch in _batches(files):
                writer.write_batch(pyarrow.record_batch([list(batch), list(batch.values())], schema=SCHEMA))
        key = f"{KIND}/{folder_digest(folder)}"
        store.publish(key, folder)
    return key


def _batches(files: Mapping[str, CheckedFile]) -> Iterable[dict[str, bytes]]:
    batch: dict[str, bytes] = {}
    size = 0
    for reference in sorted(files):
        data = _read_again(files[reference])
        batch[reference] = data
        size += len(data)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = {}, 0
    if batch:
        yield batch


def _read_again(file: CheckedFile) -> bytes:
    try:
        data = bytes(file.data)
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise DataError(_changed(file.where))
    return data


def _changed(where: str) -> Problem:
    return Problem("the file changed while it was read", where, "run again when it is whole")
