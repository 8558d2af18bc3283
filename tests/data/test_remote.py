"""Landing folders in a bucket, on a real S3 API server: fetched once, told when they change, kept in their folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from data_projects import Project
from moto.server import ThreadedMotoServer

from graftwork.data.handover import hand_in
from graftwork.data.remote import RemoteFile, RemoteFolder
from graftwork.errors import DataError, RecipeError, ServiceUnavailable
from graftwork.monitoring.landing import RecipeSources

BUCKET, URL = "reviews", "s3://reviews/landing"
ROWS = "id,text,label\n1,a lamp by the river,good\n"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket, as somebody else writes to it. The environment says where it is, and with which key."""
    import boto3
    import s3fs

    said = {"ENDPOINT_URL": server, "ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "DEFAULT_REGION": "us-east-1"}
    for name, value in said.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = boto3.resource("s3").create_bucket(Bucket=BUCKET)
    yield bucket
    bucket.objects.delete()
    bucket.delete()


@pytest.fixture
def landing(project: Project, bucket: Any) -> Project:
    """A project whose one source is a folder in the bucket, with one good file in it."""
    project.data["sources"] = [{"name": "reviews", "url": URL}]
    rows = project.write_rows("made.csv").read_bytes()
    bucket.put_object(Key="landing/a.csv", Body=rows)
    return project


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_lies_in_a_bucket_is_data(landing: Project, bucket: Any) -> None:
    """Rows are where they came from; the same rows in a folder here are the same data."""
    manifest = landing.validate()
    assert manifest.counts.kept == 200
    elsewhere = landing.recipe().digest
    landing.data["sources"] = [{"name": "reviews", "path": "here"}]
    landing.write("here/a.csv", (landing.root / "made.csv").read_bytes())
    assert landing.validate() == manifest
    assert landing.recipe().digest == elsewhere


def test_a_bad_file_is_named_by_its_url(landing: Project, bucket: Any) -> None:
    landing.data["quarantine_tolerance"] = 0
    bucket.put_object(Key="landing/b.parquet", Body=b"id,text\n900,a lamp\n")
    with pytest.raises(DataError, match=f"{URL}/b.parquet"):
        landing.validate()


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is fetched. A fetch of `bad.csv` fails."""
    names: list[str] = []
    fetch = RemoteFolder._fetch

    def fetch_and_tell(self: RemoteFolder, file: RemoteFile, place: Path) -> None:
        names.append(file.name)
        if file.name == "bad.csv":
            raise ServiceUnavailable("it went away")
        fetch(self, file, place)

    monkeypatch.setattr(RemoteFolder, "_fetch", fetch_and_tell)
    return names


def test_a_file_is_fetched_once(landing: Project, bucket: Any, fetched: list[str]) -> None:
    """One that changes is fetched again, one that is taken away goes; so does what an index that is lost knew."""
    folder, below = RemoteFolder(URL), landing.root / "mirrors"
    bucket.put_object(Key="landing/deep/er/b.csv", Body=ROWS.encode())
    place = folder.mirror(below)
    assert (names(place), sorted(fetched)) == (["a.csv", "deep/er/b.csv"], ["a.csv", "deep/er/b.csv"])
    folder.mirror(below)
    bucket.put_object(Key="landing/deep/er/b.csv", Body=ROWS.replace("good", "evil").encode())
    bucket.Object("landing/a.csv").delete()
    assert names(folder.mirror(below)) == ["deep/er/b.csv"]
    assert "evil" in (place / "deep/er/b.csv").read_text()
    assert fetched[2:] == ["deep/er/b.csv"]
    bucket.Object("landing/deep/er/b.csv").delete()
    bucket.put_object(Key="landing/deep", Body=ROWS.encode())  # what was a folder is a file now
    assert names(folder.mirror(below)) == ["deep"]


def test_what_a_crash_leaves_is_no_data(bucket: Any, tmp_path: Path, fetched: list[str]) -> None:
    """A file that was fetched before the others failed, and is gone from the bucket by the next time."""
    for name in ("a.csv", "bad.csv", "z.csv"):
        bucket.put_object(Key=f"landing/{name}", Body=ROWS.encode())
    with pytest.raises(ServiceUnavailable):
        RemoteFolder(URL).mirror(tmp_path)
    for name in ("a.csv", "bad.csv", "z.csv"):
        bucket.Object(f"landing/{name}").delete()
    bucket.put_object(Key="landing/c.csv", Body=ROWS.encode())
    assert names(RemoteFolder(URL).mirror(tmp_path)) == ["c.csv"]


def test_a_file_that_is_lost_here_is_fetched_again(bucket: Any, tmp_path: Path) -> None:
    """Whatever the index says."""
    bucket.put_object(Key="landing/a.csv", Body=ROWS.encode())
    (RemoteFolder(URL).mirror(tmp_path) / "a.csv").unlink()
    assert (RemoteFolder(URL).mirror(tmp_path) / "a.csv").read_text() == ROWS


def test_a_file_that_changes_under_the_fetch_is_not_taken(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even one of the same length; the next time it is."""
    bucket.put_object(Key="landing/a.csv", Body=ROWS.encode())
    stale = RemoteFolder(URL).list()
    bucket.put_object(Key="landing/a.csv", Body=ROWS.replace("lamp", "dusk").encode())
    with monkeypatch.context() as before:
        before.setattr(RemoteFolder, "list", lambda _self: stale)
        with pytest.raises(ServiceUnavailable, match=f"{URL}/a.csv: it changed while it was fetched"):
            RemoteFolder(URL).mirror(tmp_path)
    assert "dusk" in (RemoteFolder(URL).mirror(tmp_path) / "a.csv").read_text()


def test_what_is_hidden_or_unfinished_is_left_out(bucket: Any, tmp_path: Path) -> None:
    for name in (
        "landing/.hidden.csv",
        "landing/.dir/a.csv",
        "landing/a.csv.part",
        "landing/a.csv.tmp",
        "landing/",
        "landing/x/",
    ):
        bucket.put_object(Key=name, Body=b"x")
    bucket.put_object(Key="landing-too/c.csv", Body=b"x")
    assert RemoteFolder(URL).list() == []
    assert names(RemoteFolder(URL).mirror(tmp_path)) == []


@pytest.mark.parametrize(
    "name", ["../out.csv", "x/../../out.csv", "a.csv/b.csv", "back\\slash.csv", "/b.csv", "x//b.csv", "x/./b.csv"]
)
def test_no_name_leads_out_of_the_folder(landing: Project, bucket: Any, name: str) -> None:
    """Nor can a file be a folder, too, or two names one file."""
    bucket.put_object(Key=f"landing/{name}", Body=ROWS.encode())
    with pytest.raises(DataError, match="can't be a file in a folder"):
        landing.validate()
    assert not list(landing.root.rglob("out.csv"))


def test_a_look_sees_every_change(landing: Project, bucket: Any) -> None:
    """Also of a file of the same length; looking fetches nothing."""
    sources = RecipeSources(landing.recipe(), landing.workspace)
    seen = [sources.list()]
    bucket.put_object(Key="landing/b.csv", Body=ROWS.encode())
    seen.append(sources.list())
    bucket.put_object(Key="landing/b.csv", Body=ROWS.replace("lamp", "dusk").encode())
    seen += [sources.list(), sources.list()]
    bucket.Object("landing/b.csv").delete()
    seen.append(sources.list())
    assert [seen.index(each) for each in seen] == [0, 1, 2, 2, 0]
    assert not landing.workspace.settings.mirrors.exists()


def test_a_file_is_handed_in(landing: Project, bucket: Any, tmp_path: Path) -> None:
    """Once; another of its name is refused, and nothing else is left in the bucket."""
    file = tmp_path / "new[1]*.csv"
    file.write_text(ROWS)
    first, again = hand_in(landing.recipe(), file), hand_in(landing.recipe(), file)
    assert (first.place, first.was_there, again.was_there) == (f"{URL}/{file.name}", False, True)
    file.write_text(ROWS * 2)
    with pytest.raises(DataError, match="another file of that name has landed"):
        hand_in(landing.recipe(), file)
    assert bucket.Object(f"landing/{file.name}").get()["Body"].read().decode() == ROWS
    assert sorted(each.key for each in bucket.objects.all()) == ["landing/a.csv", f"landing/{file.name}"]


def test_what_can_t_be_reached_is_told(landing: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """No bucket, no server, no package: whose fault it is, and what to do."""
    import s3fs

    with pytest.raises(DataError, match="s3://nobody/landing: there is no such place"):
        RemoteFolder("s3://nobody/landing").list()
    with pytest.raises(RecipeError, match="pip install 'gcsfs'"):
        RemoteFolder("gs://nobody/landing").list()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ServiceUnavailable, match=f"{URL}: it can't be reached"):
        RemoteFolder(URL).list()


def test_an_index_of_another_kind_is_not_believed(bucket: Any, tmp_path: Path) -> None:
    """Whatever is in it, everything is fetched again."""
    bucket.put_object(Key="landing/a.csv", Body=ROWS.encode())
    place = RemoteFolder(URL).mirror(tmp_path)
    for index in ("[]", "{}", json.dumps({"a.csv": 3}), json.dumps({"a.csv": [1, 2, 3]}), ""):
        (place.parent / "index.json").write_text(index)
        (place / "a.csv").write_text("torn")
        assert (RemoteFolder(URL).mirror(tmp_path) / "a.csv").read_text() == ROWS
