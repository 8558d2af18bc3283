"""What is wrong with a file is said by file, line, column and value; nothing is guessed or silently changed."""

import gzip
import io
import re
import struct
import tarfile
import zipfile
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from graftwork.data.sources import list_files, read_file
from graftwork.errors import DataError

GOOD = "id,text,label\n1,first review,good\n"

# name of the file, its bytes, what the message says
REFUSED = {
    "unclosed quote": (
        "reviews.csv",
        GOOD + '2,"never closed,bad\n3,third,bad\n',
        r"reviews\.csv:3: a quote is opened",
    ),
    "latin-1": (
        "reviews.csv",
        GOOD.encode() + b"2,caf\xe9,bad\n",
        r"reviews\.csv:3: byte 39 \(0xe9\) is not utf-8.*latin-1",
    ),
    "UTF-16": ("reviews.csv", GOOD.encode("utf-16"), r"reviews\.csv: the file is UTF-16"),
    "UTF-16 without a mark": ("reviews.csv", GOOD.encode("utf-16-le"), r"reviews\.csv: the file is UTF-16"),
    "duplicate header": (
        "reviews.csv",
        "id,text,text\n1,a,b\n",
        r"reviews\.csv:1: column 'text' is in the header more",
    ),
    "no such column": (
        "reviews.csv",
        "id,body,label\n1,a,b\n",
        r"reviews\.csv: no column 'text'; there are id, body, label",
    ),
    "empty": ("reviews.csv", "", r"reviews\.csv: nothing landed: the file is empty"),
    "header only": ("reviews.csv", "id,text,label\n", r"reviews\.csv: nothing landed: the file has no rows"),
    "empty JSON lines": ("reviews.jsonl", "", r"reviews\.jsonl: nothing landed"),
    "huge cell": ("reviews.csv", GOOD + f"2,{'x' * 1_100_000},bad\n", r"reviews\.csv:3: a cell is longer than 1048576"),
    "huge line": (
        "reviews.jsonl",
        b'{"text": "' + b"x" * (17 << 20),
        r"reviews\.jsonl:1: the line is longer than 16 MiB",
    ),
    "torn last line": (
        "reviews.jsonl",
        '{"text": "a", "label": "good"}\n{"text": "b", "la',
        r"reviews\.jsonl:2: the file ends within this line",
    ),
    "not Parquet": ("reviews.parquet", b"PAR1 and no more", r"reviews\.parquet: not a whole Parquet file"),
}

# name of the file, its text, what the quarantine says of its bad row: line, column, reason
ASIDE = {
    "short row": ("r.csv", "2,too short\n", "3,,short row,"),
    "extra field": ("r.csv", "2,one,good,more\n", '3,,row with extra fields,"4 fields, expected 3"'),
    "text after a quote": ("r.csv", '2,"quoted" and more,good\n', "3,,damaged row,"),
    "NUL": ("r.csv", "2,a\0b,good\n", "3,text,breaks the rule that a text holds no NUL character,a\\x00b"),
    "blank": ("r.csv", "2,  ,good\n", "3,text,breaks the rule that a text is not blank,"),
    "no label": ("r.csv", "2,words,\n", "3,label,missing,"),
    "unknown label": ("r.csv", "2,words,ugly\n", "3,label,label outside the set,ugly"),
    "duplicate key": ("r.jsonl", '{"text": "b", "text": "c", "label": "bad"}', "key 'text' is there more than once"),
    "NaN": ("r.jsonl", '{"text": "b", "label": NaN}', "NaN is not a JSON number"),
    "Infinity": ("r.jsonl", '{"text": "b", "label": -Infinity}', "-Infinity is not a JSON number"),
    "deep": ("r.jsonl", '{"text": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    "long integer": ("r.jsonl", '{"text": "b", "label": ' + "7" * 5000 + "}", "a number of 5000 digits"),
    "missing key": ("r.jsonl", '{"label": "bad"}', "no key 'text'"),
    "an array": ("r.jsonl", '{"text": ["b"], "label": "bad"}', "'text' is an array"),
    "half a surrogate": ("r.jsonl", '{"text": "\\ud800", "label": "bad"}', "half of a surrogate pair"),
    "not JSON": ("r.jsonl", "text b", "not JSON"),
    "huge cell": (
        "r.jsonl",
        '{"text": "' + "x" * 1_100_000 + '", "label": "bad"}',
        "text,longer than 1048576 characters",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_the_recipe_names_is_refused_by_place(project, case):
    """A named file that is not whole stops the run, with its name, its line and what to do."""
    name, content, message = REFUSED[case]
    project.write(name, content)
    project.data["sources"][0]["path"] = name
    with pytest.raises(DataError, match=message):
        project.validate()


@pytest.mark.parametrize("case", REFUSED)
def test_a_landed_file_that_is_not_whole_is_set_aside(project, case):
    """In a landing folder the rest goes on, and the file stands in the quarantine with the same message."""
    name, content, message = REFUSED[case]
    project.land()
    project.data["quarantine_tolerance"] = 0.999
    project.write(f"landing/{name}", content)
    manifest = project.validate()
    assert manifest.counts.kept == 200
    [broken] = [file for file in manifest.sources if file.problem]
    assert broken.path == name and re.search(message, broken.problem)
    assert f"reviews,{name},0,,file that can't be read" in project.report(manifest)


def test_large_files_that_cannot_be_read_are_over_the_tolerance(project):
    """A file of unknown rows counts by its bytes, so that most of a landing can't vanish quietly."""
    project.land()
    project.write("landing/b.csv", GOOD.encode() + b"2,caf\xe9,bad\n" * 1000)
    with pytest.raises(DataError, match=r"files with .* bytes can't be read"):
        project.validate()


@pytest.mark.parametrize("case", ASIDE)
def test_a_bad_row_is_set_aside_with_its_reason(project, case):
    """The row stands in the quarantine with its line; every other row is kept."""
    name, bad, expected = ASIDE[case]
    project.land()
    project.write(f"landing/{name}", (GOOD if name == "r.csv" else '{"text": "a", "label": "good"}\n') + bad + "\n")
    manifest = project.validate()
    assert (manifest.counts.kept, manifest.counts.quarantined) == (201, 1)
    assert expected in project.report(manifest)
    assert max(map(len, project.report(manifest).splitlines())) < 200


def test_text_and_ids_are_kept_exactly(project):
    """What other readers turn into missing values or numbers stays text, spaces included; a mark at the start goes."""
    texts = ["NA", "None", "null", " leading and trailing ", "=1+1", "nan", "1e5", "007", 'say "x"']
    ids = ["007", str(2**53 + 1), "1e5", "NA", "00", "-1", "+1", "1.0", "é"]
    quoted = [text.replace('"', '""') for text in texts]
    rows = "".join(f'{i},"{t}",good\n' for i, t in zip(ids, quoted, strict=True))
    project.write("a.csv", b"\xef\xbb\xbf" + f"id,text,label\n{rows}".encode())
    project.write_rows("b.csv")
    project.data["sources"] = [{"name": n, "path": f"{n}.csv", "id": "id"} for n in "ab"]
    kept = project.rows(project.validate())
    assert {key: row["text"] for key, row in kept.items() if row["source"] == "a"} == {
        f"a/{i}": t for i, t in zip(ids, texts, strict=True)
    }


def test_json_numbers_keep_their_digits(project):
    """An id in JSON is the text it was written as, also beyond what a float can hold."""
    project.land()
    project.data["sources"].append({"name": "json", "path": "j.jsonl", "id": "id"})
    project.write("j.jsonl", f'{{"id": {2**53 + 1}, "text": "NA", "label": "good"}}\n')
    assert project.rows(project.validate())[f"json/{2**53 + 1}"]["text"] == "NA"


def test_exported_cells_are_no_formulas(project):
    """What a spreadsheet would run is marked as text in a report; in the data it stays as it is."""
    formulas = ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)"]
    project.write_rows("reviews.csv", extra="".join(f"x,some words,{cell}\n" for cell in formulas))
    report = project.report(project.validate())
    assert all(f",'{cell}\n" in report for cell in formulas)


def test_labels_outside_the_set_are_listed(project):
    """Over the tolerance the run ends, with the reason, the first rows and the place of the whole report."""
    project.write_rows("reviews.csv", extra="".join(f"{n},other {n},ugly{n}\n" for n in range(60)))
    with pytest.raises(DataError) as caught:
        project.validate()
    text = str(caught.value)
    assert "60 of 260 rows are set aside, 5.0% are tolerated; label: label outside the set: 60" in text
    assert "reviews/reviews.csv:202: label: label outside the set: ugly0" in text
    [report] = (project.root / ".graftwork" / "quarantine").iterdir()
    assert str(report) in text and report.read_text().count("\n") == 61
    assert not (project.workspace.store.root / "dataset").exists()


@pytest.mark.parametrize("labels", [("good", "good"), ("bad", "bad")])
def test_one_class_only_is_refused(project, labels):
    """A class that no row has ends the run before anything is trained."""
    project.write_rows("reviews.csv")
    content = (
        (project.root / "reviews.csv")
        .read_text()
        .replace("bad\n", labels[0] + "\n")
        .replace("good\n", labels[1] + "\n")
    )
    project.write("reviews.csv", content)
    with pytest.raises(DataError, match=r"side 'train': no rows of class .*no row at all is"):
        project.validate()


def test_a_tolerance_lowered_later_holds_for_stored_data(project):
    """Data that was accepted under a looser tolerance is refused under a stricter one."""
    project.write_rows("reviews.csv", extra="x,words,ugly\n")
    project.validate()
    project.data["quarantine_tolerance"] = 0.001
    with pytest.raises(DataError, match="1 of 201 rows are set aside"):
        project.validate()


def test_a_link_out_of_the_landing_folder_is_refused(project):
    """A landing can't pull in files from elsewhere."""
    project.land()
    outside = project.write("secret.csv", GOOD)
    (project.root / "landing" / "link.csv").symlink_to(outside)
    with pytest.raises(DataError, match=r"landing/link\.csv: a symbolic link leaves the landing folder"):
        project.validate()


def zipped(*names: str) -> bytes:
    """An archive of files with these names, each a hundred thousand times as large as it is there."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, GOOD * 100_000)
    return buffer.getvalue()


def tarred(name: str, kind: bytes) -> bytes:
    """An archive of one member of a kind, a link if it is one to the password file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    return buffer.getvalue()


ARCHIVES = {
    "bomb.zip": zipped("reviews.csv"),
    "out.zip": zipped("../out.csv", "/tmp/out.csv"),
    "nested.zip": zipped("inner.zip"),
    "link.tar.gz": tarred("out.csv", tarfile.SYMTYPE),
    "hard.tar.gz": tarred("out.csv", tarfile.LNKTYPE),
    "device.tar.gz": tarred("out.csv", tarfile.CHRTYPE),
    "reviews.csv.gz": gzip.compress(GOOD.encode() * 100_000),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_never_opened(project, name, caplog):
    """It is no supported format: what else has landed is taken, and the log says what was left out."""
    project.land()
    before = {path for path in project.root.rglob("*") if "landing" in path.parts}
    project.write(f"landing/{name}", ARCHIVES[name])
    assert project.validate().counts.kept == 200
    assert f"{name}: not a supported format, left out" in caplog.text
    after = {path for path in project.root.rglob("*") if "landing" in path.parts}
    assert {path.name for path in after - before} == {name}


def test_an_archive_under_another_name_is_no_text(project):
    """A recipe that names it, or a landing in which it is called a CSV file, is told that it is not text."""
    project.write("reviews.csv", ARCHIVES["bomb.zip"])
    project.data["sources"][0]["path"] = "reviews.csv"
    with pytest.raises(DataError, match=r"reviews\.csv"):
        project.validate()


def test_unfinished_and_hidden_files_are_not_landed_yet(project):
    """Names that writers use for what is not whole are passed over."""
    project.land()
    for name in ("b.csv.part", "b.csv.tmp", "b.csv.crdownload", ".b.csv", ".hidden/b.csv"):
        project.write(f"landing/{name}", GOOD)
    assert [file.path for file in project.validate().sources] == ["a.csv"]


def test_nothing_landed_is_said_so(project):
    """Without any file there is nothing to train on."""
    project.data["sources"][0]["path"] = "landing"
    with pytest.raises(DataError, match="nothing landed"):
        project.validate()


@pytest.mark.parametrize("change", ["grow", "replace"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, change: str):
    """Size, time and inode are compared before and after the read."""
    path = tmp_path / "a.csv"
    path.write_text(GOOD)
    [file] = list_files("reviews", Path("a.csv"), tmp_path)
    if change == "grow":
        path.write_text(GOOD + "2,more,bad\n")
    else:
        (tmp_path / "new").write_text(GOOD)
        (tmp_path / "new").rename(path)
    with pytest.raises(DataError, match=r"a\.csv: the file changed while it was read"):
        read_file(file, ["text"], exact=["text"])


def test_truncated_and_flipped_parquet_is_found(tmp_path: Path):
    """A shortened file can't be opened, and page checksums find a flipped bit in the data."""
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"text": [f"text number {n}" for n in range(500)]})
    parquet.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    whole = path.read_bytes()
    flipped = whole.replace(b"text number 250", b"text number 251")
    assert flipped != whole
    for broken in (whole[:-40], whole[: len(whole) // 2], flipped):
        path.write_bytes(broken)
        [file] = list_files("reviews", Path("a.parquet"), tmp_path)
        with pytest.raises(DataError, match=r"a\.parquet: not a whole Parquet file"):
            read_file(file, ["text"], exact=["text"])


def test_parquet_schema_drift_is_named(tmp_path: Path):
    """A shard whose text or id column is of another type is refused by file and column."""
    parquet.write_table(pyarrow.table({"text": [1.5]}), tmp_path / "b.parquet")
    [file] = list_files("reviews", Path("b.parquet"), tmp_path)
    with pytest.raises(DataError, match=r"b\.parquet: column 'text' is double, expected text or an integer"):
        read_file(file, ["text"], exact=["text"])


def test_a_file_of_many_rows_is_read_in_seconds(tmp_path: Path):
    """A hundred thousand rows keep their line numbers, also after a cell of several lines."""
    rows = "".join(f'{n},"line one\nline two",good\n' for n in range(100_000))
    (tmp_path / "big.csv").write_text("id,text,label\n" + rows)
    [file] = list_files("reviews", Path("big.csv"), tmp_path)
    read = read_file(file, ["id"], exact=["id"])
    assert len(read) == 100_000
    assert all(line == 2 + 2 * int(cells[0]) for line, cells in read)


def test_declared_but_impossible_row_groups_are_refused(tmp_path: Path, monkeypatch):
    """What a file says it holds is compared with the limit before it is read."""
    monkeypatch.setattr("graftwork.data.parquet.MAX_ROW_GROUP_BYTES", 1000)
    parquet.write_table(
        pyarrow.table({"text": [struct.pack("d", n).hex() for n in range(1000)]}), tmp_path / "c.parquet"
    )
    [file] = list_files("reviews", Path("c.parquet"), tmp_path)
    with pytest.raises(DataError, match="row group 0 declares"):
        read_file(file, ["text"], exact=["text"])
