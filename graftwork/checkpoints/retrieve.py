"""From a reference to verified files in the store, and the lock that says which.

Files are first copied aside, then checked there, so that what was checked is what is kept. A checkpoint that the store
holds under its lock was checked when it came in; from then on its digests are compared.
"""

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from graftwork.checkpoints.hub import download, list_commit, mirror_folder
from graftwork.checkpoints.licences import licence_of
from graftwork.checkpoints.lock import CheckpointLock, differences, list_files, lock_path, read_lock, write_lock
from graftwork.checkpoints.references import Reference, local_folder, package_metadata, parse_reference
from graftwork.checkpoints.safety import (
    POOLING,
    POOLING_KEYS,
    check_configs,
    check_weights,
    read_object,
    read_tensor_shapes,
    select_files,
)
from graftwork.checkpoints.tokenizer import Architectures, check_tokenizer
from graftwork.errors import CheckpointError, Problem, raise_if
from graftwork.fingerprint import digest, walk_files
from graftwork.recipe import Recipe
from graftwork.storage import Store, is_full, whole_file
from graftwork.workspace import Workspace

LOCK = "lock.json"  # of a candidate, in the store


def retrieve_checkpoint(recipe: Recipe, workspace: Workspace, architectures: Architectures) -> CheckpointLock:
    """The lock of the recipe's checkpoint, its verified files in the store under `lock.key`.

    The files must be those of the lockfile beside the recipe; where there is none yet, it is written. architectures:
    the values of `model_type` that can be trained. Raises CheckpointError, or ServiceUnavailable if the hub is away.
    """
    reference = parse_reference(recipe.checkpoint.source)
    if not reference.is_pinned:
        hint = f"run `graftwork lock {recipe.path.name}` to pin what it means today"
        raise CheckpointError(Problem("a branch or tag may mean something else tomorrow", str(reference), hint))
    lockfile = lock_path(recipe.path)
    locked = read_lock(lockfile)
    if locked and locked.source != str(reference):
        hint = f"run `graftwork lock {recipe.path.name}`"
        raise CheckpointError(Problem(f"it is for {locked.source}, the recipe names {reference}", str(lockfile), hint))
    if not (locked and _is_at_hand(locked, reference, recipe.root, workspace)):
        found = _take_in(reference, recipe.root, workspace, architectures, locked)
        if not locked:
            write_lock(lockfile, found)
        locked = found
    raise_if(_use_problems(locked, recipe.checkpoint.licences, architectures), CheckpointError)
    return locked


def retrieve_candidate(
    source: str, recipe: Recipe, workspace: Workspace, architectures: Architectures
) -> CheckpointLock:
    """The lock of a checkpoint that the recipe might name instead, its verified files in the store.

    What is in the store, and has not changed since, is not retrieved again; no lockfile is read or written. Raises
    CheckpointError, or ServiceUnavailable if the hub is away.
    """
    reference = parse_reference(source)
    if not reference.is_pinned:
        hint = "write the commit: hf://owner/name@<40 hex>"
        raise CheckpointError(Problem("a branch or tag may mean something else tomorrow", str(reference), hint))
    key = f"candidate/{digest(str(reference))}"
    known = workspace.store.open(key)
    lock = read_lock(known / LOCK) if known else None
    if not (lock and _is_at_hand(lock, reference, recipe.root, workspace)):
        lock = _take_in(reference, recipe.root, workspace, architectures)
        workspace.store.remove(key)
        with workspace.store.writing(key) as folder:
            write_lock(folder / LOCK, lock)
    raise_if(_use_problems(lock, recipe.checkpoint.licences, architectures), CheckpointError)
    return lock


def lock_checkpoint(recipe: Recipe, workspace: Workspace, architectures: Architectures) -> CheckpointLock:
    """Pin the recipe's checkpoint as it is now: a new lockfile, and a branch in the recipe becomes its commit.

    Nothing is written if the checkpoint can't be used. The recipe is changed in that one word.
    """
    written = parse_reference(recipe.checkpoint.source)
    reference = written if written.is_pinned else replace(written, revision=list_commit(written).commit)
    lock = _take_in(reference, recipe.root, workspace, architectures)
    raise_if(_use_problems(lock, recipe.checkpoint.licences, architectures), CheckpointError)
    if reference != written:
        _rewrite(recipe.path, recipe.checkpoint.source, str(reference))
    write_lock(lock_path(recipe.path), lock)
    return lock


def open_checkpoint(store: Store, lock: CheckpointLock) -> Path:
    """The verified folder of a locked checkpoint. Raises CheckpointError if the store does not hold it whole."""
    folder = store.open(lock.key)
    if folder is None:
        raise CheckpointError(Problem("not in the store any more", lock.source, "run again to retrieve it"))
    return folder


def _is_at_hand(lock: CheckpointLock, reference: Reference, root: Path, workspace: Workspace) -> bool:
    """True if the store holds it and, where the source can change under our feet, the source is still the same."""
    if reference.scheme != "hf":
        folder = local_folder(reference, root)
        if list_files(folder, _selected(folder, reference)) != lock.files:
            return False
    return workspace.store.open(lock.key) is not None


def _take_in(
    reference: Reference,
    root: Path,
    workspace: Workspace,
    architectures: Architectures,
    locked: CheckpointLock | None = None,
) -> CheckpointLock:
    """Gather, check, compare with the lock if there is one, and publish."""
    with _gathered(reference, root, workspace) as folder:
        found = _inspect(folder, reference, architectures)
        if locked:
            raise_if(differences(locked, found), CheckpointError)
        workspace.store.publish(found.key, folder)
    return found


@contextmanager
def _gathered(reference: Reference, root: Path, workspace: Workspace) -> Iterator[Path]:
    """A folder of our own with the files of the reference that are taken, and nothing else."""
    with workspace.store.staging() as folder:
        try:
            _gather(reference, root, workspace.settings.mirror, folder)
        except OSError as error:
            if is_full(error):
                raise
            raise CheckpointError(Problem(f"can't be copied: {error.strerror}", str(error.filename))) from error
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub library's notes on its downloads
        yield folder


def _gather(reference: Reference, root: Path, mirror: Path | None, into: Path) -> None:
    if reference.scheme == "hf" and mirror is None:
        listing = list_commit(reference)
        for name in select_files(listing.files, str(reference)):
            download(reference, name, listing.files[name], into)
        return
    source = mirror_folder(mirror, reference) if mirror and reference.scheme == "hf" else local_folder(reference, root)
    for name in _selected(source, reference):
        (into / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, into / name, follow_symlinks=False)


def _selected(folder: Path, reference: Reference) -> tuple[str, ...]:
    """The files of a folder that are taken; none may be a link, or lie behind one."""
    names = select_files([path.relative_to(folder).as_posix() for path in folder.rglob("*")], str(reference))
    links = [name for name in (*names, str(Path(POOLING).parent)) if (folder / name).is_symlink()]
    hint = "copy the folder with its links resolved (cp -rL)"
    raise_if(
        (Problem("a symbolic link is not followed", f"{reference}: {name}", hint) for name in links), CheckpointError
    )
    return names


def _inspect(folder: Path, reference: Reference, architectures: Architectures) -> CheckpointLock:
    """The lock of gathered files, or every reason not to load them."""
    where = str(reference)
    said = str(read_object(folder / "config.json").get("model_type"))
    family = architectures.get(said)
    problems = [*check_configs(folder, where, architectures), *check_weights(folder, where)]
    if family is not None and family.table:
        problems += check_tokenizer(folder, where, family)
    raise_if(problems, CheckpointError)
    version, stated = package_metadata(reference) if reference.scheme == "pkg" else (reference.revision, None)
    return CheckpointLock(
        source=str(reference),
        revision=version,
        licence=licence_of(folder) or (stated.lower() if stated else None),
        architecture=architectures[said].tower or said,
        pooling=_pooling(folder),
        dtypes=tuple(sorted({dtype for _, dtype in read_tensor_shapes(folder).values()})),
        files=list_files(folder, tuple(path.relative_to(folder).as_posix() for path in walk_files(folder))),
    )


def _pooling(folder: Path) -> str | None:
    """How sentence-transformers pools this encoder, where it says so and we can do the same."""
    config = read_object(folder / POOLING) if (folder / POOLING).is_file() else {}
    modes = [mode for mode, key in POOLING_KEYS.items() if config.get(f"pooling_mode_{key}")]
    return modes[0] if len(modes) == 1 else None


def _use_problems(lock: CheckpointLock, licences: Collection[str], architectures: Architectures) -> Iterator[Problem]:
    allowed = {licence.lower() for licence in licences}
    if lock.licence is None:
        hint = "state it as `license:` in the front matter of its README.md"
        yield Problem("no licence is stated", lock.source, hint)
    elif lock.licence not in allowed:
        hint = "add it to checkpoint.licences if you may use it"
        yield Problem(f"its licence is {lock.licence}, allowed are {', '.join(sorted(allowed))}", lock.source, hint)
    if lock.architecture not in architectures:
        yield Problem(f"architecture {lock.architecture!r} is not supported", lock.source)


def _rewrite(recipe: Path, before: str, after: str) -> None:
    """Put the pinned reference where the unpinned one stands, and leave everything else as it was written."""
    text = recipe.read_text(encoding="utf-8")
    if text.count(before) != 1:
        raise CheckpointError(Problem(f"write it yourself: checkpoint.source: {after!r}", str(recipe)))
    with whole_file(recipe) as aside:
        aside.write_text(text.replace(before, after), encoding="utf-8")
