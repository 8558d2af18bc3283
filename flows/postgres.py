"""The databases of servers and runs on one PostgreSQL server, which a team runs already, or its cloud does."""

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError, ProgrammingError

from graftwork.errors import Problem, RecipeError, ServiceUnavailable

OPTION = "--postgres"
# The database, the variable that names it, and the driver of whoever connects.
DATABASES = {
    "prefect": ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "postgresql+asyncpg"),
    "mlflow": ("MLFLOW_BACKEND_STORE_URI", "postgresql+psycopg"),
    "graftwork": ("GRAFTWORK_DB", "postgresql+psycopg"),
}


def databases_on(server: str) -> dict[str, URL]:
    """The address of each of DATABASES on the server, by the variable that names it; what is missing is made.

    server: as postgresql://user:password@host:5432. Raises RecipeError if it is no such address or its user may not
    make databases, ServiceUnavailable if nobody answers there.
    """
    try:
        url = make_url(server)
    except ArgumentError as error:
        raise RecipeError(Problem("it is no address", OPTION, "postgresql://USER@HOST is one")) from error
    if url.get_backend_name() != "postgresql":
        raise RecipeError(Problem(f"{url.drivername} is not PostgreSQL", OPTION, "postgresql://USER@HOST is"))
    _make_missing(url.set(drivername="postgresql+psycopg", database=url.database or "postgres"))
    return {name: url.set(drivername=driver, database=made) for made, (name, driver) in DATABASES.items()}


def _make_missing(administrator: URL) -> None:
    try:
        engine = create_engine(administrator, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            known = set(connection.scalars(text("SELECT datname FROM pg_database")))
            for name in DATABASES.keys() - known:
                connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
    except ModuleNotFoundError as error:
        hint = "pip install 'graftwork[postgres]'"
        raise RecipeError(Problem(f"the driver {error.name} is not installed", OPTION, hint)) from error
    except ProgrammingError as error:
        hint = f"have the databases {', '.join(DATABASES)} made for it"
        raise RecipeError(Problem(str(error.orig).strip(), OPTION, hint)) from error
    except OperationalError as error:
        raise ServiceUnavailable(
            Problem(str(error.orig).strip(), OPTION, "start it, or correct the address")
        ) from error
