import json
import shutil

import pytest

from graftwork.checkpoints.lock import lock_path
from graftwork.checkpoints.retrieve import lock_checkpoint, retrieve_checkpoint
from graftwork.errors import CheckpointError, ServiceUnavailable
from graftwork.models.catalog import FAMILIES
from graftwork.settings import Settings
from graftwork.workspace import Workspace

BERT = {"bert": FAMILIES["bert"]}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PINNED = f"hf://owner/tiny@{COMMIT}"


def test_a_commit_is_downloaded_once(hub, recipe_of, workspace):
    """A pinned commit is fetched, checked and locked; after that the hub is not asked again."""
    recipe = recipe_of(PINNED)
    lock = retrieve_checkpoint(recipe, workspace, BERT)
    assert (lock.source, lock.revision, lock.licence, lock.pooling) == (PINNED, COMMIT, "apache-2.0", "mean")
    folder = workspace.store.open(lock.key)
    assert (folder / "model.safetensors").read_bytes() == (hub.folder / "model.safetensors").read_bytes()
    assert not (folder / "notes.txt").exists()
    assert not [path for path in hub.requests if "notes" in path]
    hub.requests.clear()
    hub.status = 503
    assert retrieve_checkpoint(recipe, workspace, BERT) == lock
    assert hub.requests == []


@pytest.mark.parametrize("source", ["hf://owner/tiny", "hf://owner/tiny@main", "hf://owner/tiny@0123abc"])
def test_a_branch_is_refused_and_lock_pins_it(hub, recipe_of, workspace, source):
    """What is not a commit is refused with the command that pins it; that command writes recipe and lockfile."""
    recipe = recipe_of(source)
    with pytest.raises(CheckpointError, match=r"may mean something else tomorrow \(run `graftwork lock recipe.yaml`"):
        retrieve_checkpoint(recipe, workspace, BERT)
    assert hub.requests == []
    if source.endswith("0123abc"):
        with pytest.raises(CheckpointError, match="the hub does not know it"):
            lock_checkpoint(recipe, workspace, BERT)
        return
    before = recipe.path.read_text()
    lock = lock_checkpoint(recipe, workspace, BERT)
    assert lock.source == PINNED
    assert recipe.path.read_text() == before.replace(source, PINNED)
    assert retrieve_checkpoint(recipe_of(PINNED), workspace, BERT) == lock


def test_a_hub_that_is_away_is_worth_another_try(hub, recipe_of, workspace):
    """A server error is another kind of error than a wrong reference, and leaves nothing behind."""
    hub.status = 503
    with pytest.raises(ServiceUnavailable, match="the hub does not answer"):
        retrieve_checkpoint(recipe_of(PINNED), workspace, BERT)
    assert not lock_path(recipe_of(PINNED).path).exists()
    assert not [path for path in workspace.store.root.rglob("*") if path.is_file()]


def test_a_closed_port_is_worth_another_try(online, recipe_of, workspace):
    """Nobody listening is a service that is away."""
    with pytest.raises(ServiceUnavailable, match="the hub does not answer"):
        retrieve_checkpoint(recipe_of(PINNED), workspace, BERT)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "RepoNotFound", "the hub does not know it .*HF_TOKEN"),
        (404, "RevisionNotFound", "the hub does not know it"),
        (403, "GatedRepo", "its owner asks to be asked first"),
    ],
)
def test_a_reference_the_hub_refuses_is_the_users_to_mend(hub, recipe_of, workspace, status, code, message):
    """What no retry mends is not a ServiceUnavailable."""
    hub.status, hub.error_code = status, code
    with pytest.raises(CheckpointError, match=message):
        retrieve_checkpoint(recipe_of(PINNED), workspace, BERT)


def test_weights_that_only_unpickle_are_refused_before_the_download(hub, recipe_of, workspace):
    """A listing without safetensors is enough to refuse: not a byte of a weight is fetched."""
    (hub.folder / "model.safetensors").rename(hub.folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"its only weights are pytorch_model\.bin, and loading those runs code"):
        retrieve_checkpoint(recipe_of(PINNED), workspace, BERT)
    assert not [path for path in hub.requests if "/resolve/" in path]


def test_other_bytes_than_the_hub_lists_are_refused(hub, recipe_of, workspace):
    """Weights whose sha256 is not the listed one never reach the store, whole as they may look."""
    content = bytearray((hub.folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    hub.altered["model.safetensors"] = bytes(content)
    with pytest.raises(ServiceUnavailable, match=r"not what the hub lists \(sha256\)"):
        retrieve_checkpoint(recipe_of(PINNED), workspace, BERT)
    assert not (workspace.store.root / "checkpoint").exists()


def test_a_moved_commit_is_refused_by_the_lock(hub, recipe_of, workspace, tmp_path):
    """The same commit with other files is not the locked checkpoint, whoever serves it."""
    retrieve_checkpoint(recipe_of(PINNED), workspace, BERT)
    shutil.rmtree(workspace.store.root)
    (hub.folder / "vocab.txt").write_text((hub.folder / "vocab.txt").read_text().replace("good", "evil"))
    with pytest.raises(CheckpointError, match=r"vocab\.txt: altered: .* found, .* locked"):
        retrieve_checkpoint(recipe_of(PINNED), workspace, BERT)


def test_a_mirror_is_used_and_nothing_else(hub, recipe_of, workspace, tmp_path):
    """With a mirror the hub is never asked, neither for what the mirror holds nor for what it lacks."""
    mirrored = Workspace(
        Settings(home=tmp_path / "home", mirror=tmp_path / "mirror"), workspace.store, workspace.database
    )
    with pytest.raises(CheckpointError, match="not in the mirror"):
        retrieve_checkpoint(recipe_of(PINNED), mirrored, BERT)
    shutil.copytree(hub.folder, tmp_path / "mirror" / "owner" / "tiny" / COMMIT)
    lock = retrieve_checkpoint(recipe_of(PINNED), mirrored, BERT)
    assert hub.requests == []
    assert json.loads(lock_path(recipe_of(PINNED).path).read_text())["revision"] == COMMIT
    assert lock.source == PINNED
