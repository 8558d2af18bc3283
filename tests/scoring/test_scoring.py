"""Batch prediction: every row and cell as it came, the model's own probabilities, and whole files only."""

import csv
import json
import shutil
import stat
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from tiny import SIDE, write_image_project, write_served

from graftwork.data import chunks
from graftwork.data.chunks import open_folder, open_table, read_chunks
from graftwork.data.export import WRITERS
from graftwork.errors import DataError, RecipeError
from graftwork.models.serving.config import PixelConfig, ServingConfig
from graftwork.models.serving.model import ServingModel, load
from graftwork.scoring import check_output, score_rows

ROWS = [
    ("007", "a good film", "NA"),
    ("9007199254740993", '=2+3, -@ "dull"', ""),
    ("n/a", "NA", "  spaces kept  "),
    ("4", "very long and bad", "ünïcödé 汉"),
]
NAMES = ("id", "text", "note")
NEW = ["label", "p_no", "p_yes"]


def write(path: Path, names: tuple[str, ...] = NAMES, rows: list[tuple[str, ...]] = ROWS) -> Path:
    """A file of text cells, in the format of its suffix; written without the code under test."""
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([names, *rows])
    elif path.suffix == ".tsv":
        path.write_text("".join("\t".join(row) + "\n" for row in [names, *rows]), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    else:
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        parquet.write_table(pyarrow.table(columns), path)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """What is in a file; read without the code under test."""
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    with path.open(encoding="utf-8", newline="") as stream:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in stream]
        if path.suffix == ".csv":
            return list(csv.DictReader(stream))
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.mark.parametrize("before", WRITERS)
@pytest.mark.parametrize("after", WRITERS)
def test_cells_are_kept_and_probabilities_are_the_models(
    before: str, after: str, served: ServingModel, tmp_path: Path
) -> None:
    """From any format into any: every column in order and exactly, then the label and what the model says."""
    data, output = write(tmp_path / f"data{before}"), tmp_path / f"out{after}"
    assert score_rows(served, open_table(data), output) == len(ROWS)
    found = read(output)
    assert list(found[0]) == [*NAMES, *NEW]
    assert [tuple(row[name] for name in NAMES) for row in found] == ROWS
    expected = served.probabilities([text for _, text, _ in ROWS])
    np.testing.assert_array_equal([[float(row["p_no"]), float(row["p_yes"])] for row in found], expected)
    assert [row["label"] for row in found] == [served.classes[index] for index in expected.argmax(axis=1)]


def test_parquet_keeps_its_types(served: ServingModel, tmp_path: Path) -> None:
    """A column that the model does not read may be of any type, and stays of it."""
    table = pyarrow.table({"day": [date(2024, 2, 29)], "tags": [["a", "b"]], "text": ["good"], "score": [float("nan")]})
    parquet.write_table(table, tmp_path / "data.parquet")
    file = open_table(tmp_path / "data.parquet")
    score_rows(served, file, tmp_path / "out.parquet")
    assert parquet.read_schema(tmp_path / "out.parquet").names == [*table.schema.names, *NEW]
    assert parquet.read_table(tmp_path / "out.parquet").select(table.schema.names).schema.equals(table.schema)
    with pytest.raises(DataError, match="JSON has no NaN"):
        score_rows(served, file, tmp_path / "out.jsonl")


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_lists_of_whatever_parquet_knows_become_json(suffix: str, served: ServingModel, tmp_path: Path) -> None:
    """In a column that the model does not read; dates in them as text."""
    table = pyarrow.table({"days": [[date(2024, 2, 29)], []], "text": ["good", "bad"]})
    parquet.write_table(table, tmp_path / "data.parquet")
    score_rows(served, open_table(tmp_path / "data.parquet"), tmp_path / f"out{suffix}")
    assert [json.loads(row["days"]) for row in read(tmp_path / f"out{suffix}")] == [["2024-02-29"], []]


def test_pairs_are_read_from_two_columns(served_pairs: ServingModel, tmp_path: Path) -> None:
    """In the model's order, not in the file's."""
    data = write(tmp_path / "data.csv", ("answer", "question"), [("a film", "very good"), ("the plot", "bad")])
    score_rows(served_pairs, open_table(data), tmp_path / "out.parquet")
    expected = served_pairs.probabilities([("very good", "a film"), ("bad", "the plot")])
    np.testing.assert_array_equal([row["p_yes"] for row in read(tmp_path / "out.parquet")], expected[:, 1])


@pytest.mark.parametrize("suffix", WRITERS)
def test_chunks_hold_every_row_once(
    suffix: str, served: ServingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rows than fit one chunk come out in order, and progress ends at all of them."""
    monkeypatch.setattr(chunks.read_chunks, "__defaults__", (7, ()))
    rows = [(str(n), f"good film {n}", "x") for n in range(50)]
    told: list[tuple[int, int]] = []
    file = open_table(write(tmp_path / f"data{suffix}", rows=rows))
    score_rows(served, file, tmp_path / f"out{suffix}", on_progress=lambda *done: told.append(done))
    assert [row["id"] for row in read(tmp_path / f"out{suffix}")] == [str(n) for n in range(50)]
    assert told == sorted(set(told))
    assert told[-1] == (50, 50)


def test_columns_that_clash_are_named_and_can_be_prefixed(served: ServingModel, tmp_path: Path) -> None:
    """A labelled file is not overwritten by its predictions."""
    file = open_table(write(tmp_path / "data.csv", ("label", "text", "p_no"), [("a", "good", "b")]))
    with pytest.raises(DataError, match=r"'label' already.*--prefix") as caught:
        score_rows(served, file, tmp_path / "out.csv")
    assert len(caught.value.problems) == 2
    score_rows(served, file, tmp_path / "out.csv", prefix="predicted_")
    (row,) = read(tmp_path / "out.csv")
    assert list(row) == ["label", "text", "p_no", "predicted_label", "predicted_p_no", "predicted_p_yes"]
    assert (row["label"], row["p_no"]) == ("a", "b")


def test_column_that_the_model_reads_is_named_when_missing(served: ServingModel, tmp_path: Path) -> None:
    """With the column that comes nearest."""
    with pytest.raises(DataError, match=r"reads a column 'text', which is not there .*'texts'"):
        score_rows(served, open_table(write(tmp_path / "data.csv", ("id", "texts", "note"))), tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("suffix", "content", "places"),
    [
        (".csv", "id,text\n1,good\n2,\n3,  \n4\n5,bad\n", ["3", "4", "5"]),
        (".csv", 'id,text\n1,"two\nlines"\n2,""\n', ["4"]),
        (".jsonl", '{"text": "a"}\n{"text": null}\n{"text": NaN}\n{"text": ["a"]}\n', ["2", "3", "4"]),
    ],
)
def test_rows_without_text_are_refused_by_line(
    suffix: str, content: str, places: list[str], served: ServingModel, tmp_path: Path
) -> None:
    """All of them together, before anything is predicted or written."""
    data = tmp_path / f"data{suffix}"
    data.write_text(content)
    with pytest.raises(DataError) as caught:
        score_rows(served, open_table(data), tmp_path / "out.csv")
    assert [problem.where.rpartition(":")[2] for problem in caught.value.problems] == places
    assert list(tmp_path.iterdir()) == [data]


def test_twenty_problems_are_enough(served: ServingModel, tmp_path: Path) -> None:
    """A file without any text does not fill the screen."""
    data = write(tmp_path / "data.csv", rows=[(str(n), " ", "") for n in range(100)])
    with pytest.raises(DataError) as caught:
        score_rows(served, open_table(data), tmp_path / "out.csv")
    assert len(caught.value.problems) == 20


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.csv", "id,text\n", "the file has no rows"),
        ("data.csv", 'id,text\n1,a\n2,"b', r"data\.csv:3: a quote is opened here and never closed"),
        ("data.jsonl", '{"text": "a"}\n{"text": "torn', r"data\.jsonl:2: the file ends within this line"),
        ("data.jsonl", '{"text": "a"}\n{"text": "b", "more": 1}\n', r"data\.jsonl:1: .*no key 'more'"),
    ],
)
def test_files_that_are_not_whole_are_refused(
    name: str, content: str, message: str, served: ServingModel, tmp_path: Path
) -> None:
    """In the words in which a run would tell it; no key of a line is dropped in silence."""
    data = tmp_path / name
    data.write_text(content)
    with pytest.raises(DataError, match=message):
        score_rows(served, open_table(data), tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == [data]


def test_earlier_output_stays_until_the_new_one_is_whole(served: ServingModel, tmp_path: Path) -> None:
    """A failure in the middle leaves the old file as it was and nothing beside it; then it is replaced."""
    data, output = write(tmp_path / "data.csv"), tmp_path / "out.tsv"
    output.write_text("old")
    broken = write(tmp_path / "broken.csv", rows=[*ROWS, ("5", "a tab\there", "")])
    with pytest.raises(DataError, match="TSV has no place for a tab"):
        score_rows(served, open_table(broken), output)
    assert output.read_text() == "old"
    score_rows(served, open_table(data), output)
    assert len(read(output)) == len(ROWS)
    assert {path.name for path in tmp_path.iterdir()} == {"data.csv", "broken.csv", "out.tsv"}
    assert stat.S_ISREG(output.lstat().st_mode)


def test_file_that_grows_while_it_is_read_is_refused(served: ServingModel, tmp_path: Path) -> None:
    """What was predicted would not be what is there."""
    data = write(tmp_path / "data.csv")

    def grow(*_: int) -> None:
        with data.open("a") as stream:
            stream.write("5,late,\n")

    with pytest.raises(DataError, match="changed while it was read"):
        score_rows(served, open_table(data), tmp_path / "out.csv", on_progress=grow)
    assert not (tmp_path / "out.csv").exists()


@pytest.fixture
def pictures(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> tuple[ServingModel, Path]:
    """A model that reads pictures, and a table of some."""
    (tmp_path / "model").mkdir()
    checkpoint = make_checkpoint("resnet")
    pixels = PixelConfig(SIDE, None, (0.5,) * 3, (0.5,) * 3)
    write_served(checkpoint, tmp_path / "model", ServingConfig(("no", "yes"), ("file",), "body", 4, pixels=pixels))
    write_image_project(tmp_path / "project", checkpoint)
    data = tmp_path / "project" / "data.csv"
    data.write_text("file\n" + "".join(f"pictures/no/{number:03}.png\n" for number in range(40)))
    return load(tmp_path / "model"), data


def test_pictures_are_predicted_beside_their_table(pictures: tuple[ServingModel, Path], tmp_path: Path) -> None:
    served, data = pictures
    assert score_rows(served, open_table(data), tmp_path / "out.parquet", at_once=7) == 40
    named = [data.parent / row["file"] for row in read(data)]
    expected = served.probabilities([path.read_bytes() for path in named])
    np.testing.assert_allclose([row["p_yes"] for row in read(tmp_path / "out.parquet")], expected[:, 1], atol=1e-6)


def test_a_folder_is_predicted_picture_by_picture(pictures: tuple[ServingModel, Path], tmp_path: Path) -> None:
    """Each by its path in the folder, which a table would have to name; what is no picture is passed over."""
    served, data = pictures
    folder = data.parent / "pictures"
    (folder / "notes.txt").write_text("none")
    assert score_rows(served, open_folder(folder, "image"), tmp_path / "out.csv", at_once=7) == 160
    found = read(tmp_path / "out.csv")
    assert [row["file"] for row in found] == sorted(f"{kind}/{n:03}.png" for kind in ("no", "yes") for n in range(80))
    expected = served.probabilities([(folder / row["file"]).read_bytes() for row in found])
    np.testing.assert_allclose([float(row["p_yes"]) for row in found], expected[:, 1], atol=1e-6)


def test_a_folder_may_be_named_from_where_one_is(
    pictures: tuple[ServingModel, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, data = pictures
    monkeypatch.chdir(data.parent)
    assert score_rows(served, open_folder(Path("pictures"), "image"), tmp_path / "out.csv") == 160


def test_a_damaged_table_of_pictures_is_told(pictures: tuple[ServingModel, Path], tmp_path: Path) -> None:
    """With its name, not as a fault of ours."""
    served, data = pictures
    table = tmp_path / "held.parquet"
    held = [(data.parent / row["file"]).read_bytes() for row in read(data)]
    parquet.write_table(pyarrow.table({"file": held}), table, write_page_checksum=True, compression="none")
    content = bytearray(table.read_bytes())
    content[2000] ^= 0xFF
    table.write_bytes(content)
    with pytest.raises(DataError, match=r"held\.parquet.*not a whole Parquet file"):
        score_rows(served, open_table(table), tmp_path / "out.csv")


def test_a_folder_that_grows_meanwhile_is_told(pictures: tuple[ServingModel, Path], tmp_path: Path) -> None:
    served, data = pictures
    folder = data.parent / "pictures"

    def grow(*_: int) -> None:
        shutil.copyfile(folder / "no/000.png", folder / "late.png")

    with pytest.raises(DataError, match="changed while it was read"):
        score_rows(served, open_folder(folder, "image"), tmp_path / "out.csv", on_progress=grow)


@pytest.mark.parametrize(("modality", "message"), [("text", "it is a folder"), ("audio", "no sounds")])
def test_a_folder_without_what_is_read_is_refused(
    pictures: tuple[ServingModel, Path], modality: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        open_folder(pictures[1].parent, modality)


@pytest.mark.parametrize("after", WRITERS)
def test_pictures_that_a_table_holds_are_predicted(
    pictures: tuple[ServingModel, Path], tmp_path: Path, after: str
) -> None:
    """They stay in the table where it can hold them; one that is damaged is told by its row."""
    served, data = pictures
    held = [(data.parent / row["file"]).read_bytes() for row in read(data)]
    files = [{"bytes": each, "path": None} for each in held]
    table, output = tmp_path / "held.parquet", tmp_path / f"out{after}"
    parquet.write_table(pyarrow.table({"id": range(40), "file": files}), table)
    assert score_rows(served, open_table(table), output, at_once=7) == 40
    found = read(output)
    assert ("file" in found[0]) == (after == ".parquet")
    expected = served.probabilities(held)
    np.testing.assert_allclose([float(row["p_yes"]) for row in found], expected[:, 1], atol=1e-6)
    files[3] = {"bytes": b"torn", "path": None}
    parquet.write_table(pyarrow.table({"id": range(40), "file": files}), table)
    with pytest.raises(DataError, match=r"held\.parquet:4: column 'file': the picture"):
        score_rows(served, open_table(table), output)


@pytest.mark.parametrize("cell", ["../secret.png", "{outside}/secret.png", "pictures/link.png"])
def test_a_picture_elsewhere_is_not_read(pictures: tuple[ServingModel, Path], tmp_path: Path, cell: str) -> None:
    """A table that somebody handed in is not to tell what lies on this machine."""
    served, data = pictures
    shutil.copyfile(data.parent / "pictures/no/000.png", tmp_path / "secret.png")
    (data.parent / "pictures/link.png").symlink_to(tmp_path / "secret.png")
    data.write_text(data.read_text() + cell.format(outside=tmp_path) + "\n")
    with pytest.raises(DataError, match=r"data\.csv:42: column 'file': .*: the path leaves the folder of the source"):
        score_rows(served, open_table(data), tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("change", ["gone", "damaged", "other"])
def test_a_picture_that_changes_meanwhile_is_told_by_its_row(
    pictures: tuple[ServingModel, Path], tmp_path: Path, change: str
) -> None:
    """An earlier output stays as it was, and nothing lies beside it."""
    served, data = pictures
    output, last = tmp_path / "out.csv", data.parent / "pictures/no/039.png"
    output.write_text("old")
    before = set(tmp_path.iterdir())

    def meddle(*_: int) -> None:
        if change == "gone":
            last.unlink(missing_ok=True)
        else:
            last.write_bytes(b"torn" if change == "damaged" else (last.parent / "000.png").read_bytes())

    told = "it can't be read: No such file" if change == "gone" else "it changed while it was read"
    with pytest.raises(DataError, match=rf"data\.csv:41: 039\.png: {told}"):
        score_rows(served, open_table(data), output, on_progress=meddle, at_once=7)
    assert output.read_text() == "old"
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "prepare", "message"),
    [
        ("out.xlsx", lambda path: None, "known are .csv, .tsv, .jsonl, .parquet"),
        ("none/out.csv", lambda path: None, "there is no folder"),
        ("out.csv", lambda path: path.mkdir(), "not a regular file"),
        ("out.csv", lambda path: path.symlink_to("elsewhere.csv"), "not a regular file"),
        ("data.csv", lambda path: None, "would replace the data"),
    ],
)
def test_output_that_would_destroy_something_is_refused(
    name: str, prepare: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    """Before the model is looked for."""
    data = write(tmp_path / "data.csv")
    prepare(tmp_path / name)
    with pytest.raises(RecipeError, match=message):
        check_output(tmp_path / name, data)


CELL = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5), st.sampled_from([".csv", ".jsonl", ".parquet"]))
def test_any_cell_is_written_and_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], suffix: str
) -> None:
    """By our own reader, whatever the characters: quotes, line ends of every kind, control characters."""
    path = tmp_path_factory.mktemp("any") / f"x{suffix}"
    table = pyarrow.table({name: list(cells) for name, cells in zip(("a", "b"), zip(*rows, strict=True), strict=True)})
    WRITERS[suffix](path, iter([table]))
    (chunk,) = read_chunks(open_table(path), ("a", "b"))
    assert not chunk.damaged
    assert list(zip(chunk.cells("a"), chunk.cells("b"), strict=True)) == rows
