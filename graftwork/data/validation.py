"""Making a manifest: read the sources, accept what is good, describe it, refuse it or publish it."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from graftwork.data.acceptance import (
    TRAIN,
    WITHHELD,
    Acceptance,
    ReadRows,
    accept_auxiliary,
    accept_rows,
    check_classes,
    check_numbers,
    without_caption,
)
from graftwork.data.contracts import Contract
from graftwork.data.leakage import near_duplicates
from graftwork.data.manifest import (
    AuxiliaryRows,
    DatasetManifest,
    RowCounts,
    SourceFile,
    find_excess,
    quarantine_report,
)
from graftwork.data.media import MediaReader, open_packs, publish_pack
from graftwork.data.quarantine import QUARANTINE, Rejected, quarantine_error, write_quarantine, write_report
from graftwork.data.row_sources import RowSource, files_of, read_rows
from graftwork.data.rows import Row
from graftwork.data.sources import MEDIA, LandedFile
from graftwork.data.splits import SIDES, Memory, Placed
from graftwork.data.tables import read_memory, rows_digest, write_memory, write_rows
from graftwork.errors import DataError, Problem, raise_if
from graftwork.fingerprint import to_json
from graftwork.recipe import Recipe, kin_of
from graftwork.sections.data import AuxiliarySection
from graftwork.storage import Store, make_folder, whole_file
from graftwork.targets.catalog import CLASSIFICATION, MULTI_LABEL, TARGETS, TOKENS
from graftwork.targets.labels import describe_numbers
from graftwork.targets.target import Numbers, Target
from graftwork.workspace import Workspace


def make_manifest(
    recipe: Recipe,
    workspace: Workspace,
    lineage: str,
    input_digest: str,
    contract: Contract | None,
    files: Sequence[LandedFile],
    parent: DatasetManifest | None,
) -> DatasetManifest:
    """Validate the files and publish what was accepted, with the reports of what was not.

    Raises DataError; the quarantine of data that is refused is kept outside the store.
    """
    modality, own = recipe.input.modality, files_of(recipe.data.sources, files)
    media = MediaReader(modality, own) if modality in MEDIA else None
    read = read_rows(RowSource.of(recipe), contract, own, media)
    memory = Memory() if parent is None else read_memory(workspace.store.root / parent.key / "memory.parquet")
    alike = partial(_find_alike, recipe.near_duplicate, media)
    accepted = _accept(recipe, read, memory, alike)
    accepted = dataclasses.replace(accepted, rejected=[*read.rejected, *accepted.rejected])
    sources = _count_files(own, read, accepted)
    beside = [
        _take_auxiliary(recipe, each, files_of(each.sources, files), media, accepted.placed, alike)
        for each in recipe.auxiliary
    ]
    manifest = DatasetManifest(
        lineage=lineage,
        input_digest=input_digest,
        rows_digest=rows_digest(accepted.placed),
        holdout_digest=rows_digest(item for item in accepted.placed if item.side == "holdout"),
        parent=parent.digest if parent else None,
        sources=sources,
        counts=_total([source.counts for source in sources]),
        classes=recipe.classes,
        sides=_count_sides(accepted.placed, recipe.classes, recipe.target),
        media=parent.media if parent else (),
        target=recipe.target.name,
        rows=_count_rows(accepted.placed) if recipe.target in (MULTI_LABEL, TOKENS) else {},
        numbers=_describe_sides(accepted.placed) if recipe.target.is_number else {},
        auxiliary=tuple(rows for rows, _ in beside),
    )
    rejected = [*accepted.rejected, *(each for _, found in beside for each in found.rejected)]
    _refuse_excess(manifest, rejected, recipe.data.quarantine_tolerance, workspace)
    _check_auxiliary(beside)
    check_classes(manifest.sides)
    check_numbers(manifest.numbers)
    if media is not None:
        wanted = {item.row.text for found in (accepted, *(found for _, found in beside)) for item in found.placed}
        manifest = dataclasses.replace(manifest, media=_keep_media(manifest, wanted, media, workspace.store))
        media.tell_conversions()
    _publish(manifest, accepted, rejected, {rows: found.placed for rows, found in beside}, memory, workspace.store)
    return manifest


def _take_auxiliary(
    recipe: Recipe,
    section: AuxiliarySection,
    files: Sequence[LandedFile],
    media: MediaReader | None,
    beside: Sequence[Placed],
    alike: Callable[[Sequence[Row]], list[tuple[int, int]]],
) -> tuple[AuxiliaryRows, Acceptance]:
    """The rows of an auxiliary set that may be learnt from."""
    target = recipe.learnt_of(section)
    columns, kin = recipe.columns_of(section), kin_of(recipe)
    source = RowSource(section.sources, columns, section.label, target, kin, section.caption)
    read = read_rows(source, None, files, media and MediaReader(media.modality, files, beside=media))
    conflicts = "mean" if target is not None and target.is_number else "quarantine"
    split = recipe.data.split
    accepted = accept_auxiliary(
        read.rows, beside, source.tell, split.by, alike, conflicts, source.kin, recipe.limit_rows
    )
    accepted = dataclasses.replace(accepted, rejected=[*read.rejected, *accepted.rejected])
    sources = _count_files(files, read, accepted)
    numbers = _describe_sides(accepted.placed).get(TRAIN) if target is not None and target.is_number else None
    rows = AuxiliaryRows(
        name=section.name,
        rows_digest=rows_digest(accepted.placed),
        sources=sources,
        counts=_total([each.counts for each in sources]),
        withheld=sum(each.reason == WITHHELD for each in accepted.rejected),
        classes=source.classes,
        target=None if target is None else target.name,
        numbers=numbers,
    )
    return rows, accepted


def _check_auxiliary(beside: Sequence[tuple[AuxiliaryRows, Acceptance]]) -> None:
    """Refuse auxiliary sets without rows, or of which all rows say the same."""
    problems = []
    for rows, accepted in beside:
        labels, where = {item.row.label for item in accepted.placed}, f"auxiliary {rows.name!r}"
        if not labels:
            why = f"{rows.withheld} belong to rows of the holdout or of validation" if rows.withheld else ""
            problems.append(Problem("no rows to learn from", where, why or "check its sources and what landed there"))
        elif rows.target is not None and len(labels) == 1:
            told = TARGETS[rows.target].tell(labels.pop(), rows.classes)
            problems.append(Problem(f"every row is labelled {told}", where, "check its `label:`"))
    raise_if(problems, DataError)


def _find_alike(threshold: float, media: MediaReader | None, rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Pairs of rows that are near duplicates: by their words, or by how they look or sound."""
    if media is not None:
        from graftwork.data.images import similar_images

        return similar_images([media.found[row.text].facts.likeness for row in rows], threshold)
    return near_duplicates([row.text if row.text_b is None else f"{row.text}\n{row.text_b}" for row in rows], threshold)


def _keep_media(manifest: DatasetManifest, used: set[str], media: MediaReader, store: Store) -> tuple[str, ...]:
    """The packs that hold the files of all accepted rows: those of the parent, and one with what is new."""
    wanted = used - open_packs(store, manifest.media).keys()
    if not wanted:
        return manifest.media
    return (*manifest.media, publish_pack(store, {name: media.found[name] for name in wanted}))


def _accept(
    recipe: Recipe, read: ReadRows, memory: Memory, alike: Callable[[Sequence[Row]], list[tuple[int, int]]]
) -> Acceptance:
    split = recipe.data.split
    return accept_rows(
        read.rows,
        memory,
        tell=lambda label: recipe.target.tell(label, recipe.classes),
        by=split.by,
        alike=alike,
        conflicts=recipe.conflicts,
        holdout=split.holdout,
        validation=split.validation,
        seed=split.seed,
        limit=recipe.limit_rows,
    )


def _count_files(files: Sequence[LandedFile], read: ReadRows, accepted: Acceptance) -> tuple[SourceFile, ...]:
    """Each file with its counts; that they add up is checked against what its reader gave."""
    kept = Counter((item.row.source, item.row.file) for item in accepted.placed)
    rejected = Counter((row.source, row.file) for row in accepted.rejected if row.line)
    duplicates = Counter((item.row.source, item.row.file) for item in accepted.duplicates)
    not_taken = Counter((row.source, row.file) for row in accepted.not_taken)
    counted = []
    for file in files:
        place = (file.source, file.name)
        taken = read.read[place] - not_taken[place]
        assert taken == kept[place] + rejected[place] + duplicates[place], f"{file.where}: rows were lost"
        counts = RowCounts(taken, kept[place], rejected[place], duplicates[place], not_taken[place])
        problem = read.unreadable.get(place)
        counted.append(SourceFile(file.source, file.name, file.sha256, file.size, counts, problem))
    return tuple(counted)


def _total(counts: Sequence[RowCounts]) -> RowCounts:
    names = [field.name for field in dataclasses.fields(RowCounts)]
    return RowCounts(**{name: sum(getattr(count, name) for count in counts) for name in names})


def _count_sides(placed: Sequence[Placed], classes: Sequence[str], target: Target) -> dict[str, dict[str, int]]:
    rows = Counter((item.side, index) for item in placed for index in target.members(item.row.label))
    return {side: {name: rows[side, index] for index, name in enumerate(classes)} for side in SIDES}


def _count_rows(placed: Sequence[Placed]) -> dict[str, int]:
    rows = Counter(item.side for item in placed)
    return {side: rows[side] for side in SIDES}


def _describe_sides(placed: Sequence[Placed]) -> dict[str, Numbers]:
    numbers: dict[str, list[float]] = {side: [] for side in SIDES}
    for item in placed:
        assert isinstance(item.row.label, float)
        numbers[item.side].append(item.row.label)
    return {side: found for side, labels in numbers.items() if (found := describe_numbers(labels)) is not None}


def _refuse_excess(
    manifest: DatasetManifest, rejected: Sequence[Rejected], tolerance: float, workspace: Workspace
) -> None:
    excess = find_excess(manifest, tolerance)
    if excess is not None:
        report = quarantine_report(workspace, manifest.lineage, manifest.input_digest)
        make_folder(report.parent)
        with whole_file(report) as aside:
            write_quarantine(aside, rejected)
        raise quarantine_error(report, excess)


def _publish(
    manifest: DatasetManifest,
    accepted: Acceptance,
    rejected: Sequence[Rejected],
    beside: Mapping[AuxiliaryRows, Sequence[Placed]],
    memory: Memory,
    store: Store,
) -> None:
    duplicates = [
        (item.row.row_id, item.kept.row_id, item.row.source, item.row.file, item.row.line)
        for item in sorted(accepted.duplicates, key=lambda item: (item.row.source, item.row.file, item.row.line))
    ]
    with store.writing(manifest.key) as folder:
        write_rows(folder / "rows.parquet", accepted.placed, TARGETS[manifest.target].storage)
        learnt = [without_caption(item) if manifest.media else item for placed in beside.values() for item in placed]
        write_memory(folder / "memory.parquet", memory, accepted.placed, learnt)
        for each, placed in beside.items():
            write_rows(folder / each.file, placed, TARGETS[each.target or CLASSIFICATION.name].storage)
        write_quarantine(folder / QUARANTINE, rejected)
        write_report(folder / "duplicates.csv", ["row_id", "duplicate_of", "source", "file", "line"], duplicates)
        (folder / "manifest.json").write_text(to_json(manifest), encoding="utf-8")
