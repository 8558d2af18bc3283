"""What a folder of pictures or sounds tells about the recipe it needs: what they are, their classes, their names."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from graftwork.data.media import check_readable
from graftwork.data.sources import MEDIA, stamp_files
from graftwork.data.survey import MOST_CLASSES
from graftwork.errors import DataError, Problem
from graftwork.sections.data import NOUNS

SEPARATORS = ("_", "-")
MEASURED_FILES = 1000  # whose lengths are looked at


@dataclass(frozen=True)
class FolderSurvey:
    """What was seen of a folder.

    modality: image or audio. classes: files of each folder, in order. group: what separates the part of a file's name
    that several files share, whose rows may hang together. seconds: length that 95 % of the sounds do not exceed.
    """

    modality: str
    classes: dict[str, int]
    group: str | None
    seconds: float | None

    @property
    def rows(self) -> int:
        return sum(self.classes.values())

    def __str__(self) -> str:
        return f"{self.rows:,} {NOUNS[self.modality]} in {len(self.classes)} folders"


def survey_folder(folder: Path) -> FolderSurvey:
    """Look at the names of a folder's files, and of sounds at their lengths.

    Raises DataError if it has no files that can be read, of pictures and sounds both, or not a folder for each class.
    """
    names = [PurePosixPath(Path(stamp[1]).relative_to(folder)) for stamp in stamp_files("", folder, Path())]
    by_kind = {kind: [name for name in names if name.suffix.lower() in suffixes] for kind, suffixes in MEDIA.items()}
    found = [kind for kind, members in by_kind.items() if members]
    if len(found) != 1:
        known = "; ".join(f"{NOUNS[kind]}: {', '.join(sorted(suffixes))}" for kind, suffixes in MEDIA.items())
        problem = "both pictures and sounds are in it" if found else "neither pictures nor sounds are in it"
        raise DataError(Problem(problem, str(folder), known))
    (modality,) = found
    check_readable(modality)
    files = by_kind[modality]
    counts = Counter(name.parent.name for name in files)
    if not 1 < len(counts) <= MOST_CLASSES or "" in counts:
        hint = "put the files of each class into a folder of its name, or a table beside them that says more of each"
        problem = f"its files lie in {len(counts):,} folders, expected 2 to {MOST_CLASSES}, one for each class"
        raise DataError(Problem(problem, str(folder), hint))
    seconds = _long_seconds([folder / name for name in files]) if modality == "audio" else None
    return FolderSurvey(modality, dict(sorted(counts.items())), _separator(files), seconds)


def _separator(files: Sequence[PurePosixPath]) -> str | None:
    """What ends the part of a name that files of several classes share, as those of one speaker; None if none does."""
    for separator in SEPARATORS:
        folders: dict[str, set[str]] = {}
        for file in (file for file in files if separator in file.stem):
            folders.setdefault(file.name.partition(separator)[0], set()).add(file.parent.name)
        if len(folders) > 1 and any(len(classes) > 1 for classes in folders.values()):
            return separator
    return None


def _long_seconds(paths: Sequence[Path]) -> float | None:
    """The length that 95 % of the sounds do not exceed; None if no header tells."""
    lengths = sorted(_lengths(paths[:: -(-len(paths) // MEASURED_FILES)]))
    return lengths[math.ceil(0.95 * len(lengths)) - 1] if lengths else None


def _lengths(paths: Sequence[Path]) -> Iterator[float]:
    import soundfile

    for path in paths:
        try:
            info = soundfile.info(str(path))
        except soundfile.SoundFileError:
            continue  # what can't be read is told when the data is validated
        yield info.frames / info.samplerate
