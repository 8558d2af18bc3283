"""The database: the tables that several processes share, in SQLite by default or in PostgreSQL.

Columns are defined here and made by `graftwork/migrations`; what rows mean is said where they are written (claims,
ledger, manifests). Not here: MLflow's and Prefect's own databases.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError

from graftwork.errors import Problem, RecipeError, ServiceUnavailable
from graftwork.storage import is_full, make_folder

REVISION = "0002"  # the newest migration; a test compares it with Alembic's own view
BUSY_TIMEOUT_S = 30
MIGRATION_LOCK = 0x67726166  # any number that every Graftwork shares: "graf"

TABLES = MetaData()

ledger = Table(
    "ledger",
    TABLES,
    Column("model", String, primary_key=True),
    Column("alias", String, primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("from_version", Integer),
    Column("to_version", Integer, nullable=False),
    Column("bundle_digest", String, nullable=False),
    Column("recipe_digest", String, nullable=False),
    Column("manifest_digest", String, nullable=False),
    Column("rule", String, nullable=False),
    Column("actor", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence_digest", String),
    Column("policy_digest", String),
    Column("created_at", String, nullable=False),
    Column("previous_hash", String, nullable=False),
    Column("hash", String, nullable=False),
)
claims = Table(
    "claims",
    TABLES,
    Column("kind", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("outcome", Text),
    Column("created_at", String, nullable=False),
    Column("closed_at", String),
)
run_heads = Table(
    "run_heads",
    TABLES,
    Column("run_id", String, primary_key=True),
    Column("fence", Integer, nullable=False),
    Column("owner", String, nullable=False),
    Column("state_digest", String),
    Column("updated_at", String, nullable=False),
)
holdout_looks = Table(
    "holdout_looks",
    TABLES,
    Column("model", String, primary_key=True),
    Column("holdout_digest", String, primary_key=True),
    Column("look", Integer, primary_key=True, autoincrement=False),
    Column("bundle_digest", String, nullable=False),
    Column("evidence_digest", String, nullable=False),
    Column("created_at", String, nullable=False),
    UniqueConstraint("model", "holdout_digest", "bundle_digest", name="one_look_per_bundle"),
)
manifests = Table(
    "manifests",
    TABLES,
    Column("lineage", String, primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("input_digest", String, nullable=False),
    Column("manifest_digest", String, nullable=False),
    Column("created_at", String, nullable=False),
    UniqueConstraint("lineage", "input_digest", name="one_manifest_per_input"),
)

landings = Table(
    "landings",
    TABLES,
    Column("lineage", String, primary_key=True),
    Column("listing", String, nullable=False),
    Column("changed_at", String, nullable=False),
    Column("pending_since", String, nullable=False),
    Column("looked", String),
    Column("rows", Integer),
    Column("settled", String),
    Column("problem", Text),
)
retrainings = Table(
    "retrainings",
    TABLES,
    Column("lineage", String, primary_key=True),
    Column("manifest_digest", String, primary_key=True),
    Column("sequence", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("run", String),
    Column("created_at", String, nullable=False),
    Column("closed_at", String),
    UniqueConstraint("lineage", "sequence", name="one_retraining_at_a_time"),
)


class Database:
    """A migrated database; `open` makes it, `begin` is the only way in."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def open(cls, url: str) -> "Database":
        """The database at a SQLAlchemy URL, made or brought up to date first; safe when several processes open it.

        Raises RecipeError for a URL or a schema that this version can't use, ServiceUnavailable if nothing answers.
        """
        database = cls(_connectable(_parse(url)))
        with _named(database.engine), _alone(database.engine):
            if _revision(database.engine) != REVISION:
                _migrate(database.engine)
        return database

    @contextmanager
    def begin(self, locking: Table | None = None) -> Iterator[Connection]:
        """A connection in one transaction: committed if the block ends well, else rolled back.

        locking: the table of which this transaction is to be the only writer, so that what it read stays true until it
        writes. (SQLite has one writer for all tables, from the first line on.)
        """
        with _named(self.engine), self.engine.begin() as connection:
            if locking is not None and connection.dialect.name == "postgresql":
                connection.execute(text(f"LOCK TABLE {locking.name} IN SHARE ROW EXCLUSIVE MODE"))
            yield connection


def now() -> str:
    """The time as `timestamp` writes it."""
    return timestamp(datetime.now(UTC))


def timestamp(moment: datetime) -> str:
    """A time in UTC as ISO 8601 to the millisecond: it sorts and hashes the same in every database."""
    return moment.isoformat(timespec="milliseconds")


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError) as error:
        raise RecipeError(
            Problem("not a database URL", "GRAFTWORK_DB", "use sqlite:///path or postgresql+psycopg://user@host/name")
        ) from error
    if parsed.get_backend_name() == "sqlite" and not parsed.database:
        raise RecipeError(Problem("a SQLite database needs a file", "GRAFTWORK_DB", "write sqlite:///path"))
    return parsed


def _connectable(url: URL) -> Engine:
    try:
        if url.get_backend_name() != "sqlite":
            return create_engine(url, pool_pre_ping=True)
        make_folder(Path(url.database or "").parent)
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})
    except ModuleNotFoundError as error:
        hint = "pip install 'graftwork[postgres]'"
        raise RecipeError(Problem(f"the driver {error.name} is not installed", "GRAFTWORK_DB", hint)) from error
    except OSError as error:
        raise RecipeError(Problem(f"can't be made: {error.strerror}", str(url.database), "set GRAFTWORK_DB")) from error
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # sqlite3 would begin a transaction only at the first write, and its reads before that would be stale.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_mode = WAL")  # stays with the file: only the first connection changes anything


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def _named(engine: Engine) -> Iterator[None]:
    """Failures of the database itself, raised as what the person in front of it must act on."""
    try:
        yield
    except OperationalError as error:
        # An I/O error is how SQLite says that a full disk has no room for the index of its log.
        is_disk = is_full(error) or "disk I/O error" in str(error.orig)
        hint = "free some space on its disk" if is_disk else "start it, or correct GRAFTWORK_DB"
        raise ServiceUnavailable(Problem(f"the database does not work: {error.orig}", _name(engine), hint)) from error
    except DatabaseError as error:
        if "not a database" not in str(error.orig):
            raise
        hint = "restore it from a backup, or move it away to start anew"
        raise RecipeError(Problem(str(error.orig), _name(engine), hint)) from error


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """Keep other processes from opening a SQLite file meanwhile: WAL can't be switched on while another reads."""
    if engine.dialect.name != "sqlite":
        yield
        return
    from filelock import FileLock

    with FileLock(f"{engine.url.database}.lock"):
        yield


def _revision(engine: Engine) -> str | None:
    """The migration that the database is at, None if it is fresh; read without Alembic, whose import takes longer."""
    with engine.begin() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.scalar(text("SELECT version_num FROM alembic_version"))


def _migrate(engine: Engine) -> None:
    """Run the missing migrations in one transaction; a process that comes meanwhile waits, then finds none missing."""
    from alembic.util import CommandError

    from graftwork import migrations

    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        try:
            migrations.upgrade(connection)
        except CommandError as error:
            problem = f"this Graftwork knows the tables up to migration {REVISION}: {error}"
            hint = "use the Graftwork that made it, or a newer one"
            raise RecipeError(Problem(problem, _name(engine), hint)) from error


def _name(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=True)
