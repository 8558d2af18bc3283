"""Pictures of accepted rows: checked where they landed, then kept in the store, so that a manifest stays whole.

A row names its picture by a reference. Each manifest adds a pack of the pictures that are new in it, as
`media/<digest>`, and lists those of its parents before it.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow

from graftwork.data.images import ImageFacts, inspect_image
from graftwork.data.quarantine import BadRow
from graftwork.data.sources import IMAGE, LandedFile
from graftwork.errors import DataError, Problem, shorten
from graftwork.fingerprint import folder_digest
from graftwork.storage import Store

KIND = "media"
PACK = "media.arrow"
SCHEMA = pyarrow.schema([("reference", pyarrow.string()), ("data", pyarrow.large_binary())])
BATCH_BYTES = 32 << 20
MAX_BYTES = 256 << 20  # of one encoded picture


@dataclass(frozen=True)
class LandedImage:
    """A picture as it was when it was checked. sha256: of its file."""

    path: Path
    where: str
    sha256: str
    facts: ImageFacts


@dataclass
class ImageReader:
    """Checks the pictures that rows name. found: by reference, one file for each."""

    found: dict[str, LandedImage] = field(default_factory=dict)

    def take(self, file: LandedFile, cell: str, column: str) -> str | BadRow:
        """The reference of the picture that a row names, or why it can't be trained on.

        file: that the row is in; the picture itself, or a table beside which its path leads.
        """
        path = file.path if file.kind == IMAGE else file.path.parent / cell
        if not path.resolve().is_relative_to(file.folder.resolve()):
            return BadRow(column, "the path leaves the folder of the source", cell)
        data = _read(path)
        if isinstance(data, str):
            return BadRow(column, data, cell)
        facts = inspect_image(data, column)
        if isinstance(facts, BadRow):
            return facts
        landed = LandedImage(path, f"{file.source}/{cell}", hashlib.sha256(data).hexdigest(), facts)
        return self.found.setdefault(facts.reference, landed).facts.reference


@dataclass(frozen=True)
class PictureFile:
    """An encoded picture in a file, read when its bytes are asked for."""

    path: Path

    def __bytes__(self) -> bytes:
        return self.path.read_bytes()


def find_picture_problem(table: Path, cell: str) -> str | None:
    """Why the picture that a cell of a table names can't be read, or None. Its path leads from the table's folder."""
    data = _read(table.parent / cell)
    facts = BadRow("", data, cell) if isinstance(data, str) else inspect_image(data, "")
    return f"the picture {shorten(cell)}: {facts.reason}" if isinstance(facts, BadRow) else None


def _read(path: Path) -> bytes | str:
    """The bytes of a picture's file, or why it is not read: one that is no file could be endless."""
    try:
        if not (path.is_file() or path.is_dir()) and path.exists():
            return "a device or a pipe is no picture"
        if path.stat().st_size > MAX_BYTES:
            return f"more than {MAX_BYTES >> 20} MiB"
        return path.read_bytes()
    except OSError as error:
        return f"the picture can't be read: {error.strerror}"
    except ValueError:
        return "no file can have such a name"


class StoredMedia:
    """An encoded picture in a pack, read when its bytes are asked for."""

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
            raise DataError(Problem("pictures of this data are not in the store, or were altered there", key, hint))
        table = pyarrow.ipc.open_file(pyarrow.memory_map(str(folder / PACK))).read_all()
        names, data = table.column("reference").to_pylist(), table.column("data")
        kept |= {name: StoredMedia(data, place) for place, name in enumerate(names)}
    return kept


def publish_pack(store: Store, images: Mapping[str, LandedImage]) -> str:
    """The key of a pack with these pictures, by reference. Raises DataError if one has changed since it was checked."""
    with store.staging() as folder:
        with pyarrow.ipc.new_file(str(folder / PACK), SCHEMA) as writer:
            for batch in _batches(images):
                writer.write_batch(pyarrow.record_batch([list(batch), list(batch.values())], schema=SCHEMA))
        key = f"{KIND}/{folder_digest(folder)}"
        store.publish(key, folder)
    return key


def _batches(images: Mapping[str, LandedImage]) -> Iterable[dict[str, bytes]]:
    batch: dict[str, bytes] = {}
    size = 0
    for reference in sorted(images):
        data = _read_again(images[reference])
        batch[reference] = data
        size += len(data)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = {}, 0
    if batch:
        yield batch


def _read_again(image: LandedImage) -> bytes:
    try:
        data = image.path.read_bytes()
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise DataError(Problem("the picture changed while it was read", image.where, "run again when it is whole"))
    return data
