"""A power cut at any moment of any write leaves what was there before, or what was written; see `powercut`."""

import ast
import random
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from powercut import CUTS, Cut, Moment, Recorder, Tree, recording, restore
from writes import WRITES, Place, make_place

import graftwork
from graftwork.database import Database

AS_SEEN = Cut("all", "kept")
GONE_ON_FROM = 3  # cuts of each write after which the product goes on to the end

# Calls that write, by the name of what is called; and how a file is opened to be written.
WRITERS = {"write_text", "write_bytes", "to_parquet", "write_table", "ParquetWriter", "save_file", "save_pretrained"}
WRITERS |= {"copyfile", "copytree", "copy", "copy2", "move", "mkdir", "makedirs", "rename", "symlink_to", "touch"}
MODES = set("wxa+")
# Functions that none of the recordings names, and why that is no gap.
NOT_RECORDED = {
    "checkpoints/unpickle.py:main": "a program, which writes into a folder of `whole_folder`",
    "convert.py:_write": "into a folder of `whole_folder`",
    "data/export.py:_write_json_lines": "into a path of `whole_file`, as _write_csv",
    "data/export.py:_write_parquet": "into a path of `whole_file`, as _write_csv",
    "data/export.py:_write_tsv": "into a path of `whole_file`, as _write_csv",
    "data/handover.py:_copy": "into a path of `whole_file`, as _write_csv",
    "data/remote.py:_write_index": "into a path of `whole_file`, as _write_csv",
    "data/tables.py:_write": "recorded, but pyarrow writes without Python",
    "export.py:write_papers": "into a folder of `whole_folder`",
    "export.py:export_version": "into a folder of `whole_folder`",
    "export.py:extract_body": "into a folder of `whole_folder`",
    "health.py:_folder": "a file that is tried out and removed",
    "models/adapters.py:keep": "into a folder of `Store.writing`, as _publish_stage",
    "models/word_vectors.py:write_word_vectors": "into a folder of `whole_folder`",
    "models/prefix.py:_shallow_copy": "copies a model, no file",
    "promotion/witness.py:see": "into a path of `whole_file`, as _write_csv",
    "registry/approvals.py:_keep": "a record, into a folder of `Store.writing`",
    "registry/client.py:_bootstrap": "MLflow's database, empty until it is in its place",
    "registry/packaging.py:save_model": "into a temporary folder, from which MLflow takes it",
    "registry/predictors.py:probabilities": "into a temporary folder, for the process of an adopted model",
    "registry/starts.py:resolve_start": "a record, into a folder of `Store.writing`",
    "registry/versions.py:_download": "into a folder of `Store.writing`",
    "registry/versions.py:download_adopted": "into a folder of `Store.staging` or `Store.writing`",
    "starter.py:_write": "a new file that its owner reads next; it never replaces another",
    "training/reading.py:measure_reading": "a record, into a folder of `Store.writing`",
    "training/estimate.py:keep_estimate": "a record, into a folder of `Store.writing`",
    "training/engine.py:_save_weights": "recorded, but safetensors writes without Python",
}


@pytest.fixture(scope="session")
def record(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Recorder]:
    """Records a write by its name, once."""

    @cache
    def record(name: str) -> Recorder:
        place = make_place(tmp_path_factory.mktemp("recorded") / "project", tiny_checkpoint)
        WRITES[name].before(place)
        with recording(place.folder) as recorder:
            WRITES[name].write(place)
        return recorder

    return record


@pytest.fixture
def restored(tmp_path: Path) -> Iterator[Callable[[Tree], Place]]:
    """Makes a place of a tree, of which there is one at a time."""

    def restored(tree: Tree) -> Place:
        shutil.rmtree(tmp_path / "left", ignore_errors=True)
        (tmp_path / "left").mkdir()
        restore(tree, tmp_path / "left")
        return Place(tmp_path / "left")

    yield restored


@pytest.mark.e2e
@pytest.mark.parametrize("name", WRITES)
def test_a_power_cut_tears_nothing(
    name: str, record: Callable[[str], Recorder], restored: Callable[[Tree], Place]
) -> None:
    """Each part reads as before the write or as after it; once the write has returned, as after it."""
    point, moments = WRITES[name], record(name).moments
    before, after = (point.read(restored(moments[index].left_by(AS_SEEN))) for index in (0, -1))
    assert before != after
    for index, moment in enumerate(moments):
        for cut, tree in _cuts(moment, index):
            found = point.read(restored(tree))
            for part in before.keys() | after.keys() | found.keys():
                legal = [before.get(part)] * (moment is not moments[-1]) + [after.get(part)]
                assert found.get(part) in legal, f"{part} by {cut}, {moment.about}"


@pytest.mark.e2e
@pytest.mark.parametrize("name", WRITES)
def test_after_a_power_cut_it_goes_on_as_ever(
    name: str, record: Callable[[str], Recorder], restored: Callable[[Tree], Place]
) -> None:
    """Whatever it finds, the product comes to the same end."""
    point, moments = WRITES[name], record(name).moments
    expected = point.go_on(restored(moments[0].left_by(AS_SEEN)))
    trees = [tree for index, moment in enumerate(moments) for _, tree in _cuts(moment, index)]
    for tree in random.Random(name).sample(trees, GONE_ON_FROM):
        assert point.go_on(restored(tree)) == expected


def test_every_function_that_writes_was_recorded(record: Callable[[str], Recorder]) -> None:
    """One that is new needs a write in `writes.WRITES` that reaches it, or a reason why a power cut can't hurt."""
    root = Path(graftwork.__file__).parent
    writers = {place for path in root.rglob("*.py") for place in _writers(path, path.relative_to(root).as_posix())}
    recorded = set().union(*(record(name).writers for name in WRITES))
    assert writers - recorded == NOT_RECORDED.keys()


def test_a_commit_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    """What makes SQLite keep its promise is not switched off: 2 is FULL, which also syncs the WAL at each commit."""
    with Database.open(f"sqlite:///{tmp_path / 'graftwork.db'}").begin() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def _cuts(moment: Moment, seed: int) -> list[tuple[Cut, Tree]]:
    """All cuts of a moment that leave something different."""
    found: dict[frozenset[Any], tuple[Cut, Tree]] = {}
    for cut in CUTS:
        tree = moment.left_by(cut, seed)
        found.setdefault(frozenset(tree.items()), (cut, tree))
    return list(found.values())


def _writers(path: Path, name: str) -> Iterator[str]:
    """The functions of a file in which a call writes, as `file:function`."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef) and any(map(_writes, ast.walk(node))):
            yield f"{name}:{node.name}"


def _writes(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    texts = {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    if called == "open":
        return any(isinstance(text, str) and len(text) < 4 and MODES & set(text) for text in texts)
    is_path = isinstance(node.func, ast.Attribute) and len(node.args) == 1 and not node.keywords
    return called in WRITERS or (called == "replace" and is_path)
