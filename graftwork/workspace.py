"""A workspace: the settings, the store and the database that every step is given."""

from dataclasses import dataclass
from functools import cache

from graftwork.database import Database
from graftwork.settings import Settings
from graftwork.storage import Store


@dataclass(frozen=True)
class Workspace:
    """What a step needs of the place it runs in."""

    settings: Settings
    store: Store
    database: Database

    @classmethod
    def open(cls, settings: Settings | None = None) -> "Workspace":
        """The workspace that the settings (by default the environment's) name; its database is brought up to date."""
        return _open(settings or Settings.read())


@cache
def _open(settings: Settings) -> Workspace:
    return Workspace(settings, Store(settings.store_root), Database.open(settings.database_url))
