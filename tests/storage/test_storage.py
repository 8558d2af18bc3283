"""The store: whole or nothing, verified on the way out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from graftwork.storage import Store, StoreFull

KEY = "thing/abc123"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


def put(store: Store, key: str = KEY, **files: str) -> None:
    with store.writing(key) as folder:
        for name, text in files.items():
            (folder / "sub").mkdir(exist_ok=True)
            (folder / "sub" / name).write_text(text)


def test_what_was_published_is_found_and_opened(store: Store) -> None:
    """A key leads to its files; an unknown key leads nowhere."""
    assert not store.find(KEY)
    put(store, a="one")
    found = store.open(KEY)
    assert found is not None
    assert (found / "sub" / "a").read_text() == "one"
    assert store.open("thing/other") is None


def test_a_folder_under_the_key_of_another_is_never_opened(store: Store) -> None:
    """Whole in itself, but not what was asked for."""
    put(store, "thing/one", a="one")
    put(store, "thing/two", a="two")
    (store.root / "thing/one").rename(store.root / "thing/away")
    (store.root / "thing/two").rename(store.root / "thing/one")
    assert store.open("thing/one") is None


def test_a_disk_that_safetensors_finds_full_is_told_as_such(store: Store) -> None:
    """Its error is no OSError and has no number."""
    words = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(StoreFull, match="no room on the disk"), store.writing(KEY):
        raise SafetensorError(words)


def test_a_failed_write_leaves_nothing(store: Store) -> None:
    """An exception in the middle removes what was written so far."""
    with pytest.raises(KeyError), store.writing(KEY) as folder:
        (folder / "half").write_text("x")
        raise KeyError
    assert not store.find(KEY)
    assert list((store.root / "staging").iterdir()) == []


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "add", "manifest", "link"])
def test_an_altered_folder_is_never_opened(store: Store, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each kind of alteration is found, reported, and moved aside, so that the step runs again."""
    put(store, a="one", b="two")
    place = store.root / KEY
    victim = place / "sub" / "a"
    match harm:
        case "flip":
            victim.write_bytes(b"ond")
        case "truncate":
            victim.write_bytes(b"on")
        case "remove":
            victim.unlink()
        case "add":
            (place / "sub" / "c").write_text("three")
        case "manifest":
            (place / "MANIFEST.json").write_text("{")
        case "link":
            victim.unlink()
            victim.symlink_to("/etc/hostname")
    assert store.open(KEY) is None
    assert "is not what was stored" in caplog.text
    assert not store.find(KEY)
    put(store, a="one", b="two")
    assert store.open(KEY) is not None


def test_the_first_of_two_writers_wins(store: Store) -> None:
    """Two processes that made the same thing end with one whole folder."""
    with store.writing(KEY) as slow:
        (slow / "a").write_text("slow")
        put(store, a="fast")
    found = store.open(KEY)
    assert found is not None
    assert (found / "sub" / "a").read_text() == "fast"


@pytest.mark.parametrize("key", ["../escape/a", "thing/../../a", "thing", "thing/a/b", "/etc/passwd", "a.b/c"])
def test_a_key_never_leaves_the_store(store: Store, key: str) -> None:
    """Anything but <kind>/<digest> is refused."""
    with pytest.raises(ValueError, match="not a store key"):
        store.find(key)


@pytest.mark.parametrize("point", ["store.before_fsync", "store.before_rename", "store.after_rename"])
def test_a_killed_writer_leaves_all_or_nothing(store: Store, point: str) -> None:
    """SIGKILL at each marked point: the key opens whole or not at all, and the sweep removes the remains."""
    script = (
        "import sys; from pathlib import Path; from graftwork.storage import Store\n"
        "with Store(Path(sys.argv[1])).writing('thing/abc123') as f: (f / 'a').write_text('one')"
    )
    environment = os.environ | {"GRAFTWORK_FAULT": point}
    done = subprocess.run([sys.executable, "-c", script, str(store.root)], env=environment)
    assert done.returncode == -9
    assert (store.open(KEY) is not None) == (point == "store.after_rename")
    store.sweep()
    assert list((store.root / "staging").iterdir()) == []


def test_the_sweep_spares_a_living_writer(store: Store) -> None:
    """What this process is writing stays."""
    with store.writing(KEY) as folder:
        (folder / "a").write_text("one")
        assert store.sweep() == 0
    assert store.find(KEY)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_clear_error_and_changes_nothing(store: Store) -> None:
    """The error says what to do; the key stays free."""
    from graftwork.storage import StoreFull

    with pytest.raises(StoreFull, match="free some space"), store.writing(KEY) as folder:
        (folder / "a").write_text("one")
        with open("/dev/full", "w") as full:
            full.write("x" * 100_000)
    assert not store.find(KEY)
