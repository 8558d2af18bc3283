"""Files that are handed in to a landing folder: there whole or not at all, and never in the place of another."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from graftwork.data.remote import RemoteFolder
from graftwork.data.sources import FORMATS
from graftwork.errors import DataError, Problem, RecipeError
from graftwork.fingerprint import file_digest
from graftwork.recipe import Recipe
from graftwork.sections.data import SourceSection
from graftwork.storage import make_folder, whole_file


@dataclass(frozen=True)
class HandedIn:
    """A file where it landed. recipe: its path in the project. place: its path or URL. was_there: so it was before."""

    model: str
    recipe: str
    source: str
    name: str
    place: str
    sha256: str
    was_there: bool


def hand_in(recipe: Recipe, file: Path, source: str | None = None) -> HandedIn:
    """Copy a file into the landing folder of one of the recipe's sources: the one named, or its only one.

    Raises RecipeError if there is no such folder, DataError if the file can't be taken or another has its name there.
    """
    chosen = _landing_source(recipe, source)
    if not file.is_file():
        raise DataError(Problem("there is no such file", str(file)))
    if chosen.format is None and file.suffix.lower() not in FORMATS:
        raise DataError(Problem("not a supported format", str(file), f"one of {', '.join(FORMATS)}"))
    sha256 = file_digest(file)
    if isinstance(chosen.place, Path):
        place = str(recipe.root / chosen.place / file.name)
        is_new = _copy(file, sha256, Path(place))
    else:
        place = f"{chosen.place}/{file.name}"
        is_new = RemoteFolder(chosen.place).put(file, sha256)
    path = recipe.path.relative_to(recipe.root).as_posix()
    return HandedIn(recipe.name, path, chosen.name, file.name, place, sha256, was_there=not is_new)


def _copy(file: Path, sha256: str, place: Path) -> bool:
    """True if it was not there yet."""
    if place.is_file():
        if file_digest(place) != sha256:
            raise DataError(Problem("another file of that name has landed", str(place), "give yours another name"))
        return False
    make_folder(place.parent)
    with whole_file(place) as aside:
        shutil.copyfile(file, aside)
    return True


def _landing_source(recipe: Recipe, name: str | None) -> SourceSection:
    folders = [each for each in recipe.sources if _is_folder(each, recipe.root)]
    found = [each for each in folders if name in (None, each.name)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(each.name for each in folders) or "none"
    problem = "no source with a landing folder is meant" if name is None else f"no source {name!r} is a landing folder"
    raise RecipeError(Problem(problem, str(recipe.path), f"those that are: {known}; say which with --source"))


def _is_folder(source: SourceSection, root: Path) -> bool:
    place = source.place
    return not isinstance(place, Path) or not place.suffix or (root / place).is_dir()
