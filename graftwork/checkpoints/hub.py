"""Checkpoints on the Hugging Face hub: what a commit holds, its files, and the folder that mirrors it offline.

The address is HF_ENDPOINT's where that is set. With a mirror, nothing else is asked.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from graftwork.checkpoints.references import Reference
from graftwork.errors import CheckpointError, Problem, ServiceUnavailable, shorten
from graftwork.fingerprint import file_digest

TIMEOUT_S = 20


@dataclass(frozen=True)
class HubListing:
    """A commit's files: name -> the sha256 the hub states, None for files too small to have one."""

    commit: str
    files: dict[str, str | None]


def mirror_folder(mirror: Path, reference: Reference) -> Path:
    """The mirrored files of a pinned reference. Raises CheckpointError if they are not there: a mirror is exclusive."""
    folder = mirror.joinpath(*reference.place.split("/"), str(reference.revision))
    if not folder.is_dir():
        raise CheckpointError(Problem(f"not in the mirror: there is no {folder}", str(reference)))
    return folder


def list_commit(reference: Reference) -> HubListing:
    """The commit a reference means now, and its files. Raises CheckpointError, or ServiceUnavailable to try again."""
    from huggingface_hub import HfApi

    with _explained(reference):
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        found = api.model_info(reference.place, revision=reference.revision, files_metadata=True, timeout=TIMEOUT_S)
        files = {file.rfilename: file.lfs.sha256 if file.lfs else None for file in found.siblings or ()}
        return HubListing(str(found.sha), files)


def download(reference: Reference, name: str, expected: str | None, folder: Path) -> None:
    """One file of a pinned reference into the folder, compared with the sha256 the hub states."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    with _explained(reference):
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        api.hf_hub_download(reference.place, name, revision=reference.revision, local_dir=folder)
    if expected and file_digest(folder / name) != expected:
        raise ServiceUnavailable(Problem("what arrived is not what the hub lists (sha256)", f"{reference}: {name}"))


@contextmanager
def _explained(reference: Reference) -> Iterator[None]:
    """The library's many errors as the two a caller can act on: the reference is wrong, or the hub is away."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        hint = "accept its terms on the hub, then set HF_TOKEN"
        raise CheckpointError(Problem("its owner asks to be asked first", str(reference), hint)) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError) as error:
        hint = "check owner, name and revision; a private one needs HF_TOKEN"
        raise CheckpointError(Problem("the hub does not know it", str(reference), hint)) from error
    except errors.OfflineModeIsEnabled as error:
        hint = "unset it, or set GRAFTWORK_MIRROR to a folder that holds the checkpoint"
        raise CheckpointError(Problem("HF_HUB_OFFLINE is set", str(reference), hint)) from error
    except (errors.HTTPError, OSError) as error:
        raise ServiceUnavailable(Problem(f"the hub does not answer: {shorten(error)}", str(reference))) from error
