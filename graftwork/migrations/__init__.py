"""The migrations of the database's tables, run by Alembic from this folder: no alembic.ini, no working directory.

A migration that was released is never edited: a change of the tables is a new file in `versions/`, and the number in
`graftwork.database.REVISION`.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def upgrade(connection: Connection) -> None:
    """Bring the tables to the newest migration inside the connection's transaction; commits nothing itself.

    Raises alembic.util.CommandError if a newer Graftwork was here before.
    """
    command.upgrade(alembic_config(connection), "head")


def alembic_config(connection: Connection) -> Config:
    """What Alembic's commands need to work on this folder through an open connection."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
