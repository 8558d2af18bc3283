"""Where things live: everything a team sets by environment to leave the embedded defaults.

Not here: what a run is to do (the recipe) or when it may be promoted (the policy).
"""

import os
import re
import sys
from functools import cached_property
from itertools import starmap
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field, PositiveInt, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from graftwork.errors import Problem, RecipeError
from graftwork.storage import make_folder

HOME_NAME = ".graftwork"
DATABASE = "graftwork.db"  # below it, where no other is named
PREFIX = "GRAFTWORK_"
# How often threads that wait for each other look before they sleep. OpenMP's own 300,000 times made training on two
# cores seven times slower while others used them, too; sleeping at once made it half as fast while nobody did.
PATIENT_THREADS = {"GOMP_SPINCOUNT": "30000"}


CACHE_BYTES = 20 << 30


class Settings(BaseSettings):
    """Read from GRAFTWORK_* and the servers' own variables; an unset one means the embedded default below `home`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore")

    home: Path = Field(default_factory=lambda: find_home(Path.cwd()))
    store: Path | None = None
    db: str | None = None
    mirror: Path | None = Field(default=None, description="Folder of mirrored hub checkpoints for air-gapped runs.")
    processes: PositiveInt | Literal["auto"] = Field(
        default=1, description="Processes that train a run; auto: a GPU each."
    )
    save_share: float = Field(default=0.02, gt=0, description="Share of the training time that saving state may take.")
    lease_seconds: float = Field(default=60.0, gt=0, description="A run whose process shows no life so long is free.")
    cache_bytes: int = Field(
        default=CACHE_BYTES, ge=0, description="Room for activations of frozen parts, in the store."
    )
    adopted_python: Path = Field(
        default=Path(sys.executable), description="The interpreter that runs models which were made elsewhere."
    )
    adopted_seconds: float = Field(
        default=3600.0, gt=0, description="A model that was made elsewhere may take so long for 100,000 rows."
    )
    mlflow_pages: str | None = Field(default=None, description="The MLflow server as browsers reach it, for links.")
    tracking_uri: str | None = Field(default=None, validation_alias="MLFLOW_TRACKING_URI")
    prefect_api_url: str | None = Field(default=None, validation_alias="PREFECT_API_URL")

    @classmethod
    def read(cls) -> "Settings":
        """The settings that the environment asks for. Raises RecipeError with each variable that can't be read."""
        try:
            return cls()
        except ValidationError as error:
            wrong: dict[str, list[ErrorDetails]] = {}
            for each in error.errors():
                wrong.setdefault(str(each["loc"][0]), []).append(each)
            raise RecipeError(*starmap(_unreadable, wrong.items())) from error

    @cached_property
    def store_root(self) -> Path:
        """Raises RecipeError for a URL: taken for a path, it would be a folder named `s3:` somewhere."""
        if self.store is not None and re.match(r"[a-z0-9+.-]+:/", str(self.store), re.IGNORECASE):
            raise RecipeError(Problem("only a folder can be the store, not a URL", "GRAFTWORK_STORE"))
        return self.store or self.home / "store"

    @property
    def mirrors(self) -> Path:
        """What was fetched of landing folders that are elsewhere."""
        return self.home / "mirrors"

    @cached_property
    def database_url(self) -> str:
        return self.db or f"sqlite:///{self.home / DATABASE}"

    @cached_property
    def mlflow_uri(self) -> str:
        return self.tracking_uri or f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def is_mlflow_embedded(self) -> bool:
        return self.tracking_uri is None

    @property
    def is_prefect_embedded(self) -> bool:
        return self.prefect_api_url is None


def _unreadable(name: str, errors: list[ErrorDetails]) -> Problem:
    """What is wrong with a variable; a field of two kinds has an error for each."""
    expected = ", or ".join(each["msg"].lower() for each in errors)
    return Problem(f"{expected}; found {errors[0]['input']!r}", f"{PREFIX}{name.upper()}")


def find_home(start: Path) -> Path:
    """The `.graftwork` folder of the nearest folder upward that has one, else the one that `start` would get."""
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / HOME_NAME).is_dir():
            return folder / HOME_NAME
    return start / HOME_NAME


def use_home(project: Path) -> Path:
    """Make the project's `.graftwork` the home of this process and its children; GRAFTWORK_HOME goes before."""
    home = Path(os.environ.get("GRAFTWORK_HOME") or project / HOME_NAME)
    os.environ["GRAFTWORK_HOME"] = str(home)
    try:
        make_folder(home)
    except OSError as error:
        raise RecipeError(f"{home}: can't be made: {error.strerror}") from error
    return home


def hide_password(url: str) -> str:
    """The URL without its credentials, for logs and reports."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
