"""What a power cut could leave of a folder, at every moment of a write.

    with recording(folder) as recorder: ...           # moments[0] is before the write, moments[-1] after it
    for cut in CUTS: restore(recorder.moments[i].left_by(cut), fresh)

The model of a disk is POSIX's, at its worst. The bytes of a file are on it from the moment the file was fsynced; a name
(made, moved, taken away) from the moment the folder that holds it was fsynced. Whatever was not, may have come there
all the same, in any order: names without the bytes they name, above all. So each moment is restored by each pair of

- names: `synced`, only what is certain; `all`, as any process saw them; `mixed`, each the one or the other by chance;
- bytes that were not fsynced: `gone` (the file as it was last fsynced, else empty), `zeros`, `torn` in half, `kept`.

A moment is noted before each call that changes a name or opens a file to write (Python's audit events) and around each
fsync. What a library writes without Python (safetensors, pyarrow) is seen at the next moment, as never fsynced. Files
are followed by inode, so that a rename moves their state along. A SQLite database is taken as committed: that a commit
is on the disk when it returns is SQLite's promise, with `synchronous = FULL`.
"""

import os
import random
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count, product
from pathlib import Path
from typing import Any, NamedTuple

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
ROOT = 0
Tree = dict[str, bytes | None]  # path to bytes; to None for a folder


class Cut(NamedTuple):
    """Which names and which unsynced bytes survive."""

    names: str
    unsynced: str


CUTS = [Cut(*pair) for pair in product(("synced", "all", "mixed"), ("gone", "zeros", "torn", "kept"))]


def restore(tree: Tree, target: Path) -> None:
    """Write the tree into a fresh folder."""
    for path, content in tree.items():
        if content is None:
            (target / path).mkdir(exist_ok=path == ".")
        else:
            (target / path).write_bytes(content)


@dataclass(frozen=True)
class Moment:
    """The folder as processes saw it, and what of it was certain; files and folders by number, the root's is 0.

    about: when it was noted. folders: their entries. files: their bytes.
    """

    about: str = field(compare=False)
    folders: Mapping[int, Mapping[str, int]]
    files: Mapping[int, bytes]
    synced_folders: Mapping[int, Mapping[str, int]]
    synced_files: Mapping[int, bytes]

    def left_by(self, cut: Cut, seed: int = 0) -> Tree:
        """The folder as the cut leaves it. seed: of the chance in `mixed`."""
        chance, tree = random.Random(seed), dict[str, bytes | None]()

        def walk(number: int, place: str) -> None:
            if number not in self.folders and number not in self.synced_folders:
                tree[place] = self._bytes(number, cut.unsynced)
                return
            tree[place] = None
            for name, entry in sorted(self._entries(number, cut.names, chance).items()):
                walk(entry, f"{place}/{name}")

        walk(ROOT, ".")
        return tree

    def _entries(self, folder: int, names: str, chance: random.Random) -> Mapping[str, int]:
        seen, synced = self.folders.get(folder, {}), self.synced_folders.get(folder, {})
        if names != "mixed":
            return seen if names == "all" and folder in self.folders else synced
        either = {name: chance.choice((seen, synced)).get(name) for name in sorted(seen.keys() | synced.keys())}
        return {name: number for name, number in either.items() if number is not None}

    def _bytes(self, file: int, unsynced: str) -> bytes:
        synced = self.synced_files.get(file, b"")
        seen = self.files.get(file, synced)
        if seen == synced or unsynced == "kept":
            return seen
        return {"gone": synced, "zeros": bytes(len(seen)), "torn": seen[: len(seen) // 2]}[unsynced]


@dataclass
class Recorder:
    """Follows one folder. writers: the functions of graftwork, `file:name`, under which something was written."""

    root: Path
    moments: list[Moment] = field(default_factory=list)
    writers: set[str] = field(default_factory=set)
    _folders: dict[int, dict[str, int]] = field(default_factory=dict)
    _files: dict[int, bytes] = field(default_factory=dict)
    _synced_folders: dict[int, dict[str, int]] = field(default_factory=dict)
    _synced_files: dict[int, bytes] = field(default_factory=dict)
    _numbers: dict[int, int] = field(default_factory=dict)  # by inode
    _next: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self._look()
        self._synced_folders |= self._folders
        self._synced_files |= self._files

    def note(self, about: str) -> None:
        """Take down how things stand, unless nothing changed since the last time."""
        self._look()
        synced = (dict(self._synced_folders), dict(self._synced_files))
        moment = Moment(about, self._folders, self._files, *synced)
        if not self.moments or moment != self.moments[-1]:
            self.moments.append(moment)

    def sync(self, descriptor: int) -> None:
        """That file or folder is on the disk now."""
        self.note("before an fsync")
        number = self._numbers.get(os.fstat(descriptor).st_ino)
        if number in self._folders:
            self._synced_folders[number] = self._folders[number]
        elif number in self._files:
            self._synced_files[number] = self._files[number]
        self.note("after an fsync")

    def _look(self) -> None:
        inodes: dict[int, int] = {}
        folders: dict[int, dict[str, int]] = {}
        files: dict[int, bytes] = {}

        def number_of(path: Path | os.DirEntry[str]) -> int:
            inode = path.stat().st_ino
            inodes[inode] = self._numbers[inode] if inode in self._numbers else next(self._next)
            return inodes[inode]

        def walk(folder: Path, number: int) -> None:
            folders[number] = {}
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith(("-wal", "-shm", "-journal", ".lock")):
                        continue
                    folders[number][entry.name] = below = number_of(entry)
                    if entry.is_dir():
                        walk(Path(entry.path), below)
                    else:
                        files[below] = self._read(Path(entry.path), below)

        walk(self.root, number_of(self.root))
        self._numbers, self._folders, self._files = inodes, folders, files  # an inode that is gone may come again

    def _read(self, file: Path, number: int) -> bytes:
        if file.suffix == ".db":
            with closing(sqlite3.connect(file)) as database:
                content = self._synced_files[number] = database.serialize()
            return content
        content = file.read_bytes()
        before = self._files.get(number)
        return before if before == content else content  # so that moments share what did not change


@contextmanager
def recording(root: Path) -> Iterator[Recorder]:
    """Records the folder until the block ends; the last moment is the one after it."""
    global _recorder
    assert _recorder is None, "one at a time"
    recorder, fsync = Recorder(root), os.fsync
    _hear_events()
    recorder.note("at the beginning")

    def heard_fsync(descriptor: Any) -> None:
        fsync(descriptor)
        recorder.sync(descriptor if isinstance(descriptor, int) else descriptor.fileno())

    os.fsync, _recorder = heard_fsync, recorder
    try:
        yield recorder
    finally:
        os.fsync, _recorder = fsync, None
    recorder.note("at the end")


_recorder: Recorder | None = None
_hears = False


def _hear_events() -> None:
    """An audit hook can't be taken back, so there is one for all recordings."""
    global _hears
    if not _hears:
        sys.addaudithook(_hear)
        _hears = True


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _recorder is None or event not in EVENTS or (event == "open" and not arguments[2] & WRITING):
        return
    _recorder.writers |= set(_callers())
    _recorder.note(f"before {event} {arguments[0]}")


def _callers() -> Iterator[str]:
    """The functions of graftwork that are under way, as `file:name`."""
    frame = sys._getframe(2)
    while frame is not None:
        _, inside, path = frame.f_code.co_filename.rpartition("/graftwork/")
        if inside:
            yield f"{path}:{frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
