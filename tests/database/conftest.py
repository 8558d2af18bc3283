"""Databases to test on: a SQLite file a test, and one real PostgreSQL server for the session."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from graftwork.database import Database


@pytest.fixture
def postgres_url(postgres_url_of_server: str) -> Iterator[str]:
    """The URL of an empty database of its own."""
    administrator = create_engine(postgres_url_of_server, isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS graftwork_test WITH (FORCE)"))
        connection.execute(text("CREATE DATABASE graftwork_test"))
    yield make_url(postgres_url_of_server).set(database="graftwork_test").render_as_string(hide_password=False)
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
