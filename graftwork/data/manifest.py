"""The dataset manifest: which rows were accepted from which files, and on which side each one is.

Manifests of one recipe form a lineage: each inherits the sides of its parent. The same input again is a look-up that
imports neither pandas nor pandera. Not here: how a manifest is made (validation).
"""

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import Row, insert, select
from sqlalchemy.exc import IntegrityError

from graftwork.data.contracts import Contract, read_contract
from graftwork.data.quarantine import QUARANTINE, quarantine_error
from graftwork.data.remote import RemoteFolder
from graftwork.data.sources import LandedFile, list_files
from graftwork.database import Database, manifests, now
from graftwork.errors import DataError, Problem, raise_if
from graftwork.fingerprint import digest, from_json, without_defaults
from graftwork.recipe import PLACES, Recipe, kin_of
from graftwork.storage import Store, make_folder, whole_file
from graftwork.targets.catalog import CLASSIFICATION
from graftwork.targets.target import Numbers
from graftwork.workspace import Workspace

if TYPE_CHECKING:
    import pandas

# Raised by hand when the same files would give other rows or other sides.
VALIDATION_VERSION = 1


@dataclass(frozen=True)
class RowCounts:
    """read = kept + quarantined + duplicates; not_taken: what a limited run did not look at, and not in `read`."""

    read: int
    kept: int
    quarantined: int
    duplicates: int
    not_taken: int = 0


@dataclass(frozen=True)
class SourceFile:
    """A file that rows came from. path: below its source. problem: why nothing could be read from it, or None."""

    source: str
    path: str
    sha256: str
    size: int
    counts: RowCounts
    problem: str | None = None


@dataclass(frozen=True)
class AuxiliaryRows:
    """Accepted rows to learn from that are on no side. classes: none where rows have no label; `target` is None then.

    withheld: of those in quarantine, rows that would have told of rows that are judged. numbers: of numeric labels.
    """

    name: str
    rows_digest: str
    sources: tuple[SourceFile, ...]
    counts: RowCounts
    withheld: int
    classes: tuple[str, ...] = ()
    target: str | None = None
    numbers: Numbers | None = None

    @property
    def file(self) -> str:
        """Where its rows lie in the folder of the manifest."""
        return f"auxiliary-{self.name}.parquet"


@dataclass(frozen=True)
class DatasetManifest:
    """Accepted data. parent: digest of the manifest whose sides it inherits. sides: rows of each class on each side.

    classes: of a target without, one name for its number. Where a row may be of several, `rows` tells the rows of each
    side. numbers: what is known of a side's numbers, where labels are such. target: what is learnt, as in TARGETS.
    media: store keys of what holds the pictures or sounds that rows refer to. auxiliary: rows beside them.
    """

    SCHEMA: ClassVar[int] = 1
    lineage: str
    input_digest: str
    rows_digest: str
    holdout_digest: str
    parent: str | None
    sources: tuple[SourceFile, ...]
    counts: RowCounts
    classes: tuple[str, ...]
    sides: dict[str, dict[str, int]]
    media: tuple[str, ...] = ()
    target: str = CLASSIFICATION.name
    rows: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, Numbers] = field(default_factory=dict)
    auxiliary: tuple[AuxiliaryRows, ...] = ()

    @property
    def digest(self) -> str:
        """What names it everywhere."""
        return digest(without_defaults(DatasetManifest, vars(self)))

    @property
    def side_rows(self) -> dict[str, int]:
        """Rows of each side."""
        return self.rows or {side: sum(by_class.values()) for side, by_class in self.sides.items()}

    @property
    def every_source(self) -> tuple[SourceFile, ...]:
        """The files of all rows, of auxiliary ones, too."""
        return (*self.sources, *(file for each in self.auxiliary for file in each.sources))

    @property
    def key(self) -> str:
        """Where it lies in the store: rows.parquet, memory.parquet, quarantine.csv, duplicates.csv, manifest.json.

        Beside them a file for each set of auxiliary rows.
        """
        return f"dataset/{self.digest}"


def validate_data(recipe: Recipe, workspace: Workspace) -> DatasetManifest:
    """The manifest of what the recipe's sources hold now: the stored one if this input was validated before.

    Raises DataError if a file can't be read, too many rows are set aside, or what is left can't be trained on.
    """
    lineage = recipe.name if recipe.limit_rows is None else f"{recipe.name}-limit-{recipe.limit_rows}"
    contract = None if recipe.data.contract is None else read_contract(recipe.root / recipe.data.contract)
    files = _list_files(recipe, workspace.settings.mirrors)
    input_digest = _input_digest(recipe, contract, files)
    while True:
        history = _history(workspace.database, lineage)
        place = next((i for i, past in enumerate(history) if past.input_digest == input_digest), len(history))
        manifest = _find(workspace.store, history[place].manifest_digest) if place < len(history) else None
        if manifest is not None:
            _check_tolerance(manifest, recipe, workspace)
            return manifest
        from graftwork.data.validation import make_manifest

        parent = open_manifest(workspace.store, history[place - 1].manifest_digest) if place else None
        manifest = make_manifest(recipe, workspace, lineage, input_digest, contract, files, parent)
        # If another process extended the lineage meanwhile, its manifest is the parent: look again.
        if place < len(history) or _record(workspace.database, lineage, place, manifest):
            return manifest


def open_manifest(store: Store, digest: str) -> DatasetManifest:
    """The manifest of that digest. Raises DataError if the store does not hold it whole."""
    manifest = _find(store, digest)
    if manifest is None:
        raise DataError(_lost(digest))
    return manifest


def load_rows(
    store: Store, manifest: DatasetManifest, sides: Collection[str] = ("train", "validation", "holdout")
) -> "pandas.DataFrame":
    """The rows on these sides, sorted by row_id.

    Columns: row_id, source, group (missing where the source has none), text, text_b (missing unless texts are pairs),
    label (index in `manifest.classes`, or as the target stores it), side, unit, file, line; where `text` names files,
    media (what holds them).
    """
    return _load(store, manifest, "rows.parquet", filters=[("side", "in", list(sides))])


def load_learnt(store: Store, manifest: DatasetManifest) -> "pandas.DataFrame":
    """All rows that a model of the manifest may have learnt from, or been chosen by: all but the holdout."""
    import pandas as pd

    beside = [load_auxiliary(store, manifest, each.name) for each in manifest.auxiliary]
    if manifest.media:  # known is a picture, whatever was said of it
        beside = [rows.assign(text_b=None) for rows in beside]
    return pd.concat([load_rows(store, manifest, sides=("train", "validation")), *beside], ignore_index=True)


def load_auxiliary(store: Store, manifest: DatasetManifest, name: str) -> "pandas.DataFrame":
    """The auxiliary rows of that name, in the columns of `load_rows`; UNLABELLED where they have no label."""
    return _load(store, manifest, next(each.file for each in manifest.auxiliary if each.name == name))


def _load(store: Store, manifest: DatasetManifest, file: str, filters: Any = None) -> "pandas.DataFrame":
    from pyarrow import parquet

    folder = store.open(manifest.key)
    if folder is None:
        raise DataError(_lost(manifest.digest))
    rows = parquet.read_table(folder / file, filters=filters).to_pandas()
    if not manifest.media:
        return rows
    from graftwork.data.media import open_packs

    kept = open_packs(store, manifest.media)
    return rows.assign(media=[kept[reference] for reference in rows["text"]])


def find_excess(manifest: DatasetManifest, tolerance: float) -> str | None:
    """What is over the tolerance, a share of all rows and of the bytes of all files; None if nothing is.

    It is asked of the rows that are on sides, and of each auxiliary set by itself.
    """
    rest = ((each.counts, each.sources, each.withheld, f"auxiliary {each.name!r}: ") for each in manifest.auxiliary)
    for counts, sources, withheld, of in ((manifest.counts, manifest.sources, 0, ""), *rest):
        rows, set_aside = counts.read + counts.not_taken, counts.quarantined - withheld
        if set_aside > tolerance * rows:
            return f"{of}{set_aside} of {rows} rows are set aside, {tolerance:.1%} are tolerated"
        # Nobody knows how many rows a file holds that can't be read.
        size = sum(file.size for file in sources)
        lost = sum(file.size for file in sources if file.problem)
        if lost > tolerance * size:
            return f"{of}files with {lost} of {size} bytes can't be read, {tolerance:.1%} are tolerated"
    return None


def quarantine_report(workspace: Workspace, lineage: str, input_digest: str) -> Path:
    """Where the quarantine of refused data is kept for a person to look at."""
    return workspace.settings.home / "quarantine" / f"{lineage}-{input_digest[:12]}.csv"


def _list_files(recipe: Recipe, mirrors: Path) -> list[LandedFile]:
    files: list[LandedFile] = []
    problems: list[Problem] = []
    for source in recipe.sources:
        try:
            place = source.place
            path = place if isinstance(place, Path) else RemoteFolder(place).mirror(mirrors)
            files += list_files(source.name, path, recipe.root, source.format, source.url, recipe.input.modality)
        except DataError as error:
            problems += error.problems
    raise_if(problems, DataError)
    if not {file.source for file in files} & {source.name for source in recipe.data.sources}:
        raise DataError(Problem("nothing landed: no source has a file", str(recipe.path)))
    return files


def _input_digest(recipe: Recipe, contract: Contract | None, files: Sequence[LandedFile]) -> str:
    """Digest of all that decides the rows and their sides, apart from the parent."""
    left_out: dict[str, Any] = {"contract": True, "quarantine_tolerance": True} | PLACES
    target = {} if recipe.target is CLASSIFICATION else {"target": recipe.target.name}
    auxiliary = [each.model_dump(mode="json", exclude=PLACES, exclude_defaults=True) for each in recipe.auxiliary]
    return digest(
        target
        | ({"auxiliary": auxiliary, "kin": kin_of(recipe)} if auxiliary else {})
        | {
            "version": VALIDATION_VERSION,
            "data": recipe.told_data(left_out),
            "text": recipe.input.text or recipe.input.columns[0],
            "contract": None if contract is None else contract.schema,
            "files": [(file.source, file.name, file.sha256) for file in files],
        }
    )


def _find(store: Store, digest: str) -> DatasetManifest | None:
    folder = store.open(f"dataset/{digest}")
    return None if folder is None else from_json(DatasetManifest, (folder / "manifest.json").read_text("utf-8"))


def _check_tolerance(manifest: DatasetManifest, recipe: Recipe, workspace: Workspace) -> None:
    """Refuse a stored manifest that the recipe's tolerance, changed since, no longer allows."""
    excess = find_excess(manifest, recipe.data.quarantine_tolerance)
    if excess:
        report = quarantine_report(workspace, manifest.lineage, manifest.input_digest)
        make_folder(report.parent)
        with whole_file(report) as aside:
            shutil.copyfile(workspace.store.root / manifest.key / QUARANTINE, aside)
        raise quarantine_error(report, excess)


def _history(database: Database, lineage: str) -> Sequence[Row]:
    """The lineage's manifests, oldest first."""
    wanted = select(manifests).where(manifests.c.lineage == lineage).order_by(manifests.c.sequence)
    with database.begin() as connection:
        return connection.execute(wanted).all()


def _record(database: Database, lineage: str, sequence: int, manifest: DatasetManifest) -> bool:
    """Add the manifest to its lineage; False if another process took the place."""
    entry = {
        "lineage": lineage,
        "sequence": sequence,
        "input_digest": manifest.input_digest,
        "manifest_digest": manifest.digest,
        "created_at": now(),
    }
    try:
        with database.begin() as connection:
            connection.execute(insert(manifests).values(entry))
    except IntegrityError:
        return False
    return True


def _lost(digest: str) -> Problem:
    return Problem(
        f"dataset {digest[:12]} is not in the store, or was altered there",
        hint="restore the store from its backup; under another recipe name the data is split afresh",
    )
