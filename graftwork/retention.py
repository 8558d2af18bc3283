"""What of the store nothing needs any more: found first, removed when asked to.

Needed is what a kept run goes on from or can be made again from: its data, checkpoint, stages, model and saved state.
Kept are runs that are young, that a process works on, and those whose model is registered. Data is also kept that a
registered model was trained on, that the next manifest of a recipe inherits its sides from, and that waits for its
training; with it the pictures that it lists. Evidence is never removed: verdicts, evaluations, reports, requests and
decisions, which the ledger names.
What is frozen and kept for speed has a budget of its own (models/prefix_cache.py).
"""

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from graftwork.data.manifest import open_manifest
from graftwork.database import manifests, retrainings, run_heads
from graftwork.errors import GraftworkError
from graftwork.fingerprint import walk_files
from graftwork.owners import is_alive
from graftwork.registry.tracking import MANIFEST
from graftwork.registry.versions import BUNDLE, BUNDLE_KEY, list_models
from graftwork.storage import REJECTED, Store
from graftwork.training.bundle import FETCHED
from graftwork.training.lease import NOBODY
from graftwork.training.plan import ResolvedRun, open_run
from graftwork.workspace import Workspace

REMOVABLE = ("run", "dataset", "media", "checkpoint", "stage", "bundle", FETCHED, "state", "weights", "predictions")


@dataclass(frozen=True)
class Leftover:
    """Something that nothing needs. key: of the store, or a folder's path below it. size: bytes."""

    key: str
    size: int


@dataclass(frozen=True)
class Needed:
    """What is kept: keys of the store, and ids of runs, with which the names of their saved states begin."""

    keys: frozenset[str]
    runs: tuple[str, ...]

    def has(self, key: str) -> bool:
        """True if the key is needed, as itself or as the state of a run."""
        return key in self.keys or key.partition("/")[2].startswith(self.runs)


def find_leftovers(workspace: Workspace, keep: timedelta) -> tuple[Leftover, ...]:
    """What nothing needs and nobody has touched for so long, the largest first. Raises ServiceUnavailable."""
    store, before = workspace.store, time.time() - keep.total_seconds()
    needed = _needed(workspace, before)
    found = [
        Leftover(key, _size(store.root / key))
        for kind in REMOVABLE
        for key in store.keys(kind)
        if not needed.has(key) and _touched(store, key) < before
    ]
    rejected = [path for path in (store.root / REJECTED).glob("*") if path.stat().st_mtime < before]
    found += [Leftover(path.relative_to(store.root).as_posix(), _size(path)) for path in rejected]
    return tuple(sorted(found, key=lambda each: -each.size))


def remove_leftovers(workspace: Workspace, keep: timedelta) -> tuple[Leftover, ...]:
    """Remove them, and what killed processes left half-written; what was removed.

    A run may begin while they are looked for, and find one of them: what is removed was found twice.
    """
    store, seen = workspace.store, set(find_leftovers(workspace, keep))
    removed = tuple(each for each in find_leftovers(workspace, keep) if each in seen)
    for each in removed:
        if each.key.startswith(f"{REJECTED}/"):
            shutil.rmtree(store.root / each.key, ignore_errors=True)
        else:
            store.remove(each.key)
    store.sweep()
    return removed


def _needed(workspace: Workspace, before: float) -> Needed:
    store = workspace.store
    keys = set(_registered(workspace)) | set(_awaited(workspace))
    busy, runs = _busy(workspace), set[str]()
    for key in store.keys("run"):
        run = _opened(store, key)
        if run is None:
            continue
        if run.plan.bundle_key in keys or run.run_id in busy or _touched(store, key) >= before:
            runs.add(run.run_id)
            keys |= {key, *_keys_of(run)}
    kept = (key for key in store.keys("dataset") if key in keys or _touched(store, key) >= before)
    keys |= set(_pictures_of(store, kept))
    return Needed(frozenset(keys), tuple(runs))


def _keys_of(run: ResolvedRun) -> Iterator[str]:
    """What a run goes on from."""
    yield run.manifest.key
    yield from run.manifest.media
    yield run.lock.key
    yield run.plan.bundle_key
    yield from (stage.key for stage in run.plan.stages)
    warm = run.plan.start.warm
    if warm is not None:
        yield from (warm.key, f"{FETCHED}/{warm.bundle}", f"dataset/{warm.manifest}")
    for teacher in run.plan.start.teachers:
        yield from (teacher.key, f"{FETCHED}/{teacher.bundle}", f"dataset/{teacher.manifest}")


def _pictures_of(store: Store, datasets: Iterable[str]) -> Iterator[str]:
    """What holds the pictures that these data list; data that can't be read any more list none."""
    for key in datasets:
        with suppress(GraftworkError):
            yield from open_manifest(store, key.partition("/")[2]).media


def _registered(workspace: Workspace) -> Iterator[str]:
    """Bundles and data of all versions that the registry holds, whoever serves."""
    for listed in list_models(workspace, None):
        tags = listed.tags
        yield from (tags[BUNDLE_KEY], f"{FETCHED}/{tags[BUNDLE]}")
        if listed.version.adopted is None:
            yield f"dataset/{tags[MANIFEST]}"


def _awaited(workspace: Workspace) -> Iterator[str]:
    """Data that the next manifest of each recipe builds on, and data that is to be trained on."""
    newest: dict[str, str] = {}
    with workspace.database.begin() as connection:
        for row in connection.execute(select(manifests).order_by(manifests.c.sequence)):
            newest[row.lineage] = row.manifest_digest
        open_ones = select(retrainings.c.manifest_digest).where(retrainings.c.closed_at.is_(None))
        waiting = connection.scalars(open_ones).all()
    yield from (f"dataset/{digest}" for digest in (*newest.values(), *waiting))


def _busy(workspace: Workspace) -> set[str]:
    """Runs that a living process trains, or one of another machine, of which nothing is known."""
    with workspace.database.begin() as connection:
        heads = connection.execute(select(run_heads.c.run_id, run_heads.c.owner)).all()
    return {head.run_id for head in heads if head.owner != NOBODY and is_alive(head.owner)}


def _opened(store: Store, key: str) -> ResolvedRun | None:
    """The run, or None for a record that an earlier version wrote and this one can't read."""
    try:
        return open_run(store, key.partition("/")[2])
    except GraftworkError:
        return None


def _touched(store: Store, key: str) -> float:
    return (store.root / key).stat().st_mtime


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in walk_files(folder))
