"""Makes each write on a full disk, then with a little more room, until it succeeds; says how it failed before.

    python tests/support/fulldisk.py ROOM CHECKPOINT

ROOM is a small file system mounted for this. Standard output is one JSON object for each write: its name, `failures`,
and `is_same_end`, whether it went on afterwards as if nothing had happened.
"""

import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from writes import WRITES, Place, Reading, WritePoint, make_place

from graftwork.errors import GraftworkError

KIB = 1 << 10
LEFT_KIB = (0, 8, 32, 128, 512)  # of room, when a write begins; then all of it


@dataclass(frozen=True)
class Failure:
    """A write that failed. is_torn: something reads neither as before the write nor as after it."""

    left: int
    error: str
    exit_code: int
    problems: list[str]
    is_torn: bool


def fill(ballast: Path, left: int) -> None:
    """Take all of the disk's room but so much."""
    ballast.unlink(missing_ok=True)
    disk = os.statvfs(ballast.parent)
    with ballast.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, disk.f_bavail * disk.f_frsize - left)


def try_write(point: WritePoint, room: Path, checkpoint: Path) -> tuple[list[Failure], bool]:
    """How the write failed with ever more room, and whether what comes in the end is what always comes."""
    expected = make_place(room / "expected", checkpoint)
    point.before(expected)
    before, failures = point.read(expected), list[Failure]()
    expected.workspace.database.engine.dispose()
    place = Place(shutil.copytree(expected.folder, room / "place"))
    point.write(expected)
    after = point.read(expected)
    for left in LEFT_KIB:
        fill(room / "ballast", left * KIB)
        try:
            point.write(place)
        except GraftworkError as error:
            (room / "ballast").unlink()
            is_torn = not _is_either(point.read(place), before, after)
            failures.append(Failure(left, type(error).__name__, error.exit_code, [*map(str, error.problems)], is_torn))
        else:
            break
    (room / "ballast").unlink(missing_ok=True)
    is_same_end = point.go_on(place) == point.go_on(expected)
    for each in (expected, place):
        each.workspace.database.engine.dispose()
        shutil.rmtree(each.folder)
    return failures, is_same_end


def _is_either(found: Reading, before: Reading, after: Reading) -> bool:
    parts = found.keys() | before.keys() | after.keys()
    return all(found.get(part) in (before.get(part), after.get(part)) for part in parts)


def main(room: str, checkpoint: str) -> None:
    for name, point in WRITES.items():
        failures, is_same_end = try_write(point, Path(room), Path(checkpoint))
        print(json.dumps({"name": name, "failures": [*map(asdict, failures)], "is_same_end": is_same_end}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
