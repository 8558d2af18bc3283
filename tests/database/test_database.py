"""Opening, migrating and sharing the database."""

import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock
from sqlalchemy import insert, select, text

from graftwork.database import REVISION, TABLES, Database, claims, ledger, now
from graftwork.errors import RecipeError, ServiceUnavailable
from graftwork.migrations import alembic_config

OPEN_ON_CALL = """
import sys
from graftwork.database import Database
import alembic.command
print("ready", flush=True)
for url in sys.stdin:
    with Database.open(url.strip()).begin() as connection:
        print(connection.exec_driver_sql("SELECT count(*) FROM ledger").scalar(), flush=True)
"""
OPENERS = 4
ENTRY = {
    "model": "m",
    "alias": "champion",
    "sequence": 1,
    "to_version": 1,
    "bundle_digest": "b",
    "recipe_digest": "r",
    "manifest_digest": "d",
    "rule": "by hand",
    "actor": "a",
    "reason": "because",
    "created_at": now(),
    "previous_hash": "",
    "hash": "h",
}


def test_migrations_make_the_tables_that_the_code_uses(database: Database) -> None:
    """Alembic finds no difference between the migrated database and the tables as they are defined."""
    with database.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), TABLES) == []
        assert ScriptDirectory.from_config(alembic_config(connection)).get_heads() == [REVISION]


@pytest.mark.parametrize(("kind", "rounds"), [("sqlite", 4), ("postgres", 1)])
def test_processes_that_open_a_fresh_database_together_all_succeed(
    kind: str, rounds: int, request: pytest.FixtureRequest
) -> None:
    """Four processes meet at one fresh database at the same moment, round after round; each finds its tables."""
    url, command = request.getfixturevalue(f"{kind}_url"), [sys.executable, "-c", OPEN_ON_CALL]
    openers = [subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) for _ in range(OPENERS)]
    assert [opener.stdout.readline() for opener in openers] == ["ready\n"] * OPENERS
    for number in range(rounds):
        for opener in openers:
            opener.stdin.write(f"{url}{number or ''}\n")
            opener.stdin.flush()
        assert [opener.stdout.readline() for opener in openers] == ["0\n"] * OPENERS
    for opener in openers:
        opener.communicate()


def test_a_sqlite_file_is_set_up_by_one_process_at_a_time(sqlite_url: str, tmp_path: Path) -> None:
    """While another process holds the lock beside the file, an open waits and does not touch it."""
    command = [sys.executable, "-c", OPEN_ON_CALL]
    with FileLock(tmp_path / "graftwork.db.lock"):
        opener = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True)
        assert opener.stdout.readline() == "ready\n"
        opener.stdin.write(f"{sqlite_url}\n")
        opener.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            opener.wait(0.5)
        assert not (tmp_path / "graftwork.db").exists()
    assert opener.communicate()[0] == "0\n"


def test_an_open_at_the_newest_migration_needs_no_alembic(sqlite_url: str) -> None:
    """A second open reads one row; it does not pay for Alembic's import."""
    Database.open(sqlite_url)
    check = f"import sys; from graftwork.database import Database; Database.open({sqlite_url!r}); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split()
    assert "sqlalchemy" in modules
    assert "alembic" not in modules


@pytest.mark.parametrize("statement", ["UPDATE ledger SET reason = 'none'", "DELETE FROM ledger"])
def test_the_database_refuses_to_change_the_ledger(database: Database, statement: str) -> None:
    """An entry can be added; UPDATE and DELETE are refused by a trigger and leave it as it was."""
    with database.begin() as connection:
        connection.execute(insert(ledger).values(ENTRY))
    with pytest.raises(Exception, match="append-only"), database.begin() as connection:
        connection.execute(text(statement))
    with database.begin() as connection:
        assert connection.execute(select(ledger.c.reason)).scalars().all() == ["because"]


def test_a_block_that_fails_leaves_nothing(database: Database) -> None:
    """A transaction whose block raises is rolled back as a whole."""
    row = {"kind": "k", "key": "1", "owner": "o", "created_at": now()}
    with pytest.raises(ZeroDivisionError), database.begin() as connection:
        connection.execute(insert(claims).values(row))
        raise ZeroDivisionError
    with database.begin() as connection:
        assert connection.execute(select(claims)).all() == []


def test_a_schema_of_a_newer_graftwork_is_refused(sqlite_url: str) -> None:
    """A migration number that is not ours is named and nothing is changed."""
    with Database.open(sqlite_url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(RecipeError, match=r"9999.*newer"):
        Database.open(sqlite_url)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    """A damaged file is refused with its path and stays as it is."""
    damaged = tmp_path / "graftwork.db"
    damaged.write_bytes(b"not a database, surely" * 100)
    with pytest.raises(RecipeError, match=r"graftwork\.db.*backup"):
        Database.open(f"sqlite:///{damaged}")
    assert damaged.read_bytes().startswith(b"not a database")


def test_a_server_that_is_away_is_a_transient_error_without_its_password() -> None:
    """Nobody listens on the port: worth another try, and the URL is shown without the secret."""
    with pytest.raises(ServiceUnavailable) as caught:
        Database.open("postgresql+psycopg://ann:hunter2@127.0.0.1:9/graftwork?connect_timeout=2")
    assert "127.0.0.1:9" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "nonsense", "sqlite://", "nosuch://host/name"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    """What can't be a database names the setting to correct."""
    with pytest.raises(RecipeError, match="GRAFTWORK_DB"):
        Database.open(url)
