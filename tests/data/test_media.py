"""Pictures that land: each is a row by itself or named by a table, checked, kept, and found again."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import soundfile
from PIL import Image
from pyarrow import parquet
from tiny import write_audio_project, write_image_project, write_stripes

from graftwork.data.chunks import TableFile
from graftwork.data.manifest import DatasetManifest, load_rows, open_manifest, validate_data
from graftwork.data.media import MediaReader, NamedFile, RowFiles, open_packs, publish_pack
from graftwork.data.quarantine import BadRow
from graftwork.data.sources import LandedFile
from graftwork.errors import DataError
from graftwork.recipe import load_recipe
from graftwork.settings import Settings
from graftwork.workspace import Workspace


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_image_project(tmp_path, tmp_path / "checkpoint")
    return tmp_path


@pytest.fixture
def workspace(folder: Path) -> Workspace:
    return Workspace.open(Settings(home=folder / "home"))


@pytest.fixture
def validate(folder: Path, workspace: Workspace) -> Callable[..., DatasetManifest]:
    return lambda *overrides: validate_data(load_recipe(folder / "recipe.yaml", overrides), workspace)


def test_rows_hold_what_the_files_hold(
    folder: Path, workspace: Workspace, validate: Callable[..., DatasetManifest]
) -> None:
    """Byte for byte, also when the files are gone; the folder says the class."""
    manifest = validate()
    before = {f"{path.parent.name}/{path.name}": path.read_bytes() for path in (folder / "pictures").rglob("*.png")}
    shutil.rmtree(folder / "pictures")
    rows = load_rows(workspace.store, manifest)
    assert {name: bytes(kept) for name, kept in zip(rows["file"], rows["media"], strict=True)} == before
    assert {name.split("/")[0] for name in rows["file"][rows["label"] == 1]} == {"yes"}


def test_what_lands_later_is_kept_beside_what_was_there(
    folder: Path, workspace: Workspace, validate: Callable[..., DatasetManifest]
) -> None:
    """A second pack with the new pictures alone; sides stay; the same input again gives the same manifest."""
    first = validate()
    write_stripes(folder / "pictures", 5, first=80)
    second = validate()
    assert validate() == second == open_manifest(workspace.store, second.digest)
    assert second.media[: len(first.media)] == first.media and len(second.media) == 2
    assert second.counts.kept == first.counts.kept + 10
    before, after = (load_rows(workspace.store, each).set_index("file")["side"] for each in (first, second))
    assert (after[before.index] == before).all()
    sizes = [sum(path.stat().st_size for path in (workspace.store.root / key).iterdir()) for key in second.media]
    assert sizes[1] < sizes[0] / 4


def test_a_table_names_pictures_and_says_more_of_them(
    folder: Path, workspace: Workspace, validate: Callable[..., DatasetManifest]
) -> None:
    """Its paths lead from its own folder. A picture that no row names is no row, but another input."""
    (folder / "made.csv").rename(folder / "pictures" / "index.csv")
    table = (folder / "pictures" / "index.csv").read_text().replace("pictures/", "")
    (folder / "pictures" / "index.csv").write_text("\n".join(table.splitlines()[:-1]) + "\n")
    manifest = validate("data.label.from=label")
    assert manifest.counts.read == manifest.counts.kept == 159
    rows = load_rows(workspace.store, manifest)
    assert set(rows["file"]) == {"index.csv"}
    write_stripes(folder / "pictures", 1, first=500)
    assert validate("data.label.from=label").input_digest != manifest.input_digest


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("../secret.png", "the path leaves the folder of the source"),
        ("/etc/hostname", "the path leaves the folder of the source"),
        ("no/missing.png", "there is no such picture"),
        ("no", "not taken: expected a file that is whole"),
        ("pipe.png", "not taken: expected a file that is whole"),
        ("page.jpg", "HTML, expected an image: JPEG, PNG, WEBP, BMP, GIF or TIFF"),
        ("link.png", "the path leaves the folder of the source"),
    ],
)
def test_what_is_no_picture_is_set_aside(
    folder: Path, workspace: Workspace, validate: Callable[..., DatasetManifest], cell: str, reason: str
) -> None:
    """With its row, its path and why; the others are kept."""
    pictures = folder / "pictures"
    Image.new("RGB", (8, 8)).save(folder / "secret.png")
    os.mkfifo(pictures / "pipe.png")
    (pictures / "page.jpg").write_text("<html>no picture</html>")
    table = (folder / "made.csv").read_text().replace("pictures/", "")
    (pictures / "index.csv").write_text(f"{table}{cell},no\n")
    if cell == "link.png":
        (pictures / "sub").mkdir()
        (pictures / "sub" / cell).symlink_to(folder / "secret.png")
        (pictures / "index.csv").write_text(f"{table}sub/{cell},no\n")
        with pytest.raises(DataError, match="a symbolic link leaves the landing folder"):
            validate("data.label.from=label")
        return
    manifest = validate("data.label.from=label")
    assert (manifest.counts.kept, manifest.counts.quarantined) == (160, 1)
    report = (workspace.store.root / manifest.key / "quarantine.csv").read_text()
    assert f"made,index.csv,162,file,{reason}" in report.replace('"', "")


def test_a_damaged_picture_in_a_folder_is_set_aside(folder: Path, validate: Callable[..., DatasetManifest]) -> None:
    path = folder / "pictures" / "no" / "000.png"
    path.write_bytes(path.read_bytes()[:-40])
    manifest = validate()
    assert (manifest.counts.kept, manifest.counts.quarantined) == (159, 1)


def test_the_same_picture_twice_is_one_row_and_two_labels_are_none(
    folder: Path, validate: Callable[..., DatasetManifest]
) -> None:
    pictures = folder / "pictures"
    shutil.copyfile(pictures / "no" / "000.png", pictures / "no" / "again.png")
    shutil.copyfile(pictures / "no" / "001.png", pictures / "yes" / "again.png")
    counts = validate().counts
    assert (counts.kept, counts.duplicates, counts.quarantined) == (159, 1, 2)


@pytest.mark.parametrize("is_struct", [True, False], ids=["bytes and path", "bytes"])
def test_a_table_may_hold_the_pictures_themselves(
    folder: Path, workspace: Workspace, validate: Callable[..., DatasetManifest], is_struct: bool
) -> None:
    """As the datasets library writes them, or as plain bytes: the rows are those of the folder."""
    paths = sorted((folder / "pictures").rglob("*.png"))
    data: list[object] = [path.read_bytes() for path in paths]
    data[3] = None
    if is_struct:
        data = [{"bytes": each, "path": path.name} for each, path in zip(data, paths, strict=True)]
    table = pyarrow.table({"picture": data, "label": [path.parent.name for path in paths]})
    parquet.write_table(table, folder / "made.parquet", write_page_checksum=True)
    changes = ("data.sources.0.path=made.parquet", "input.image=picture", "data.label.from=label")
    held = validate("name=held", *changes)
    assert (held.counts.kept, held.counts.quarantined) == (159, 1)
    quarantine = (workspace.store.root / held.key / "quarantine.csv").read_text()
    assert "made.parquet,4,picture,the file is empty" in quarantine
    by_folder, by_table = (load_rows(workspace.store, each) for each in (validate(), held))
    assert set(by_table["text"]) < set(by_folder["text"])
    assert all(bytes(media).startswith(b"\x89PNG") for media in by_table["media"])


def test_copies_that_were_saved_anew_are_on_one_side(
    folder: Path, workspace: Workspace, validate: Callable[..., DatasetManifest]
) -> None:
    """As JPEG, and smaller: other bytes and other pixels of the same picture."""
    for number, path in enumerate(sorted((folder / "pictures").rglob("*.png"))):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((96, 64), Image.Resampling.BICUBIC)
        picture.save(path)
        picture.resize((72, 48)).save(path.with_suffix(".jpg"), quality=85)
    rows = load_rows(workspace.store, validate())
    sides = rows.assign(name=rows["file"].str.partition(".")[0]).groupby("name")["side"].nunique()
    assert len(sides) == 160 and (sides == 1).all()


def test_what_the_rules_changed_is_counted(
    folder: Path, validate: Callable[..., DatasetManifest], caplog: pytest.LogCaptureFixture
) -> None:
    """How many pictures were made what the model reads, by each rule."""
    paths = sorted((folder / "pictures" / "no").iterdir())[:5]
    for path in paths[:3]:
        Image.open(path).convert("P").save(path)
    for path in paths[3:]:
        Image.open(path).convert("RGB").convert("CMYK").save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    with caplog.at_level("INFO", "graftwork.data.media"):
        validate()
    told = [line for line in caplog.messages if "by rule" in line and "grey" not in line]
    assert told == ["2 of 160 files converted by rule: CMYK", "3 of 160 files converted by rule: palette"]


def test_the_rates_of_recordings_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the model's own is, which is not known yet."""
    write_audio_project(tmp_path, tmp_path / "checkpoint")
    other = sorted((tmp_path / "sounds" / "yes").iterdir())[0]
    samples, rate = soundfile.read(other)
    soundfile.write(other, samples, rate // 2)
    with caplog.at_level("INFO", "graftwork.data.media"):
        validate_data(load_recipe(tmp_path / "recipe.yaml"), Workspace.open(Settings(home=tmp_path / "home")))
    told = [line.split(";")[0] for line in caplog.messages if "Hz" in line]
    assert told == [f"1 of 160 files are at {rate // 2:,} Hz", f"159 of 160 files are at {rate:,} Hz"]


def test_a_picture_that_changes_meanwhile_is_refused(folder: Path, workspace: Workspace) -> None:
    """What was checked is what is kept."""
    from graftwork.data.sources import list_files

    (file, *others) = list_files("made", Path("pictures"), folder, modality="image")
    reader = MediaReader("image", [file, *others])
    reference = reader.take(file, file.name, "file")
    assert isinstance(reference, str)
    key = publish_pack(workspace.store, reader.found)
    packs = open_packs(workspace.store, [key])
    assert [bytes(packs[name]) for name in [reference]] == [file.path.read_bytes()]
    file.path.write_bytes(b"other")
    with pytest.raises(DataError, match="the file changed while it was read"):
        publish_pack(workspace.store, reader.found)
    with pytest.raises(DataError, match="the file changed while it was read"):
        reader.take(file, file.name, "file")


def test_a_pack_that_is_gone_is_told(workspace: Workspace, validate: Callable[..., DatasetManifest]) -> None:
    manifest = validate()
    workspace.store.remove(manifest.media[0])
    with pytest.raises(DataError, match="files of this data are not in the store"):
        load_rows(workspace.store, manifest)


def test_a_single_file_is_no_folder_of_pictures(validate: Callable[..., DatasetManifest]) -> None:
    with pytest.raises(DataError, match="pictures lie in a folder; this is a file"):
        validate("data.sources.0.path=made.csv")
    with pytest.raises(DataError, match="no column rating: a file by itself has file, folder and name"):
        validate("data.label.from=rating")


def test_predictions_read_with_the_same_care(folder: Path) -> None:
    """A pipe is not waited on, and what is no picture is told."""
    os.mkfifo(folder / "pipe.png")
    table = folder / "made.csv"
    bad = RowFiles("image", TableFile(table, "csv", ("file",)), "file").open(2, "pipe.png")
    assert (
        isinstance(bad, BadRow)
        and bad.reason == "the picture pipe.png: it can't be read: a device or a pipe, not a file"
    )
    assert isinstance(RowFiles("image", TableFile(table, "csv", ("file",)), "file").open(2, "made.csv"), BadRow)
    good = RowFiles("image", TableFile(table, "csv", ("file",)), "file").open(2, "pictures/no/000.png")
    assert isinstance(good, NamedFile) and bytes(good) == (folder / "pictures/no/000.png").read_bytes()


@pytest.mark.parametrize("cell", ["../secret.png", "link.png", "{outside}/secret.png", "circle.png", "no\0/000.png"])
def test_a_path_leads_nowhere_else(folder: Path, cell: str) -> None:
    """Up, by a link, absolute, in a circle, or to what is no name: told in the same words for data and predictions."""
    pictures = folder / "pictures"
    Image.new("RGB", (8, 8)).save(folder / "secret.png")
    (pictures / "link.png").symlink_to(folder / "secret.png")
    (pictures / "circle.png").symlink_to("circle.png")
    (pictures / "index.csv").write_text("file\n")
    cell = cell.format(outside=folder)
    predicted = RowFiles("image", TableFile(pictures / "index.csv", "csv", ("file",)), "file").open(2, cell)
    stat = (pictures / "index.csv").stat()
    landed = LandedFile("made", "index.csv", pictures / "index.csv", "here", "csv", True, stat.st_size, "", (0, 0, 0))
    taken = MediaReader("image", []).take(landed, cell, "file")
    assert isinstance(predicted, BadRow) and isinstance(taken, BadRow)
    assert predicted.reason.endswith(f": {taken.reason}")
    assert taken.reason in (
        "the path leaves the folder of the source",
        "its symbolic links lead in a circle",
        "no file can have such a name",
    )


def test_a_link_in_a_circle_is_refused_where_it_landed(folder: Path, validate: Callable[..., DatasetManifest]) -> None:
    (folder / "pictures" / "circle.png").symlink_to("circle.png")
    with pytest.raises(DataError, match=r"pictures/circle\.png: a symbolic link leaves the landing folder"):
        validate()


@pytest.mark.parametrize("change", ["gone", "damaged", "other"])
def test_a_picture_that_is_not_what_was_checked_is_told(folder: Path, change: str) -> None:
    """Never predicted on: with the row that names it."""
    opened = RowFiles("image", TableFile(folder / "made.csv", "csv", ("file",)), "file").open(2, "pictures/no/000.png")
    path = folder / "pictures/no/000.png"
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(b"torn" if change == "damaged" else (folder / "pictures/no/001.png").read_bytes())
    reason = "it can't be read: No such file" if change == "gone" else "it changed while it was read"
    with pytest.raises(DataError, match=rf"made\.csv:2: 000\.png: {reason}"):
        bytes(opened)


def test_another_likeness_is_another_input(validate: Callable[..., DatasetManifest]) -> None:
    """Also one that texts have by default; told or not, that of pictures gives the manifest it always gave."""
    default, low = validate(), validate("data.split.near_duplicate=0.8")
    assert default.input_digest != low.input_digest
    assert validate("data.split.near_duplicate=0.8") == low
