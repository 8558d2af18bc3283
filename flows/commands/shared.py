"""What commands have in common: arguments that several take, the project they work in, and how they print."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from graftwork.errors import RecipeError

if TYPE_CHECKING:
    from graftwork.settings import Settings

Json = Annotated[bool, Parameter("--json", negative="", help="Print one JSON document instead of a table.")]
Set = Annotated[
    tuple[str, ...],
    Parameter("--set", negative="", help="KEY=VALUE in the recipe for this run, as in --set stages.0.epochs=1."),
]
LimitRows = Annotated[
    int | None,
    Parameter("--limit-rows", help="A quick try on this many rows; it neither registers nor promotes."),
]
Probe = Annotated[
    bool,
    Parameter(
        "--probe",
        negative="",
        help="Measure a few steps of each stage, too: how long the run will take and how much memory, and what fits.",
    ),
]
Restart = Annotated[
    bool,
    Parameter("--restart", negative="", help="Begin a stage that was left in its middle again, from its first step."),
]
AcceptDrift = Annotated[
    tuple[str, ...],
    Parameter(
        "--accept-drift",
        negative="",
        help="Go on although this field of the environment has changed; recorded on the model version.",
    ),
]
Served = Annotated[str, Parameter(help="MODEL@ALIAS or MODEL/VERSION; MODEL alone means its champion.")]
NewFolder = Annotated[Path, Parameter(("--output", "-o"), help="A folder that is not there yet.")]
Reason = Annotated[str, Parameter("--reason", help="Why, in a sentence: it goes into the ledger with your name.")]


@contextmanager
def project_of(recipe: Path) -> Iterator["Settings"]:
    """The settings of the recipe's project, and this process ready to compute; RecipeError if there is no such file."""
    from graftwork.recipe import find_root
    from graftwork.settings import PATIENT_THREADS, Settings, use_home

    os.environ.update(PATIENT_THREADS | os.environ)
    if not recipe.is_file():
        raise RecipeError(f"{recipe}: no such recipe; `graftwork init` writes one")
    use_home(find_root(recipe))
    yield Settings.read()


@contextmanager
def home_of(source: Path) -> Iterator[None]:
    """The workspace of the project that the recipe belongs to, where it is one."""
    from graftwork.vectors import RECIPES

    with project_of(source) if source.suffix in RECIPES else nullcontext():
        yield


@contextmanager
def prefect_of(settings: "Settings") -> Iterator[None]:
    """The Prefect server that the settings name, once it answers; RecipeError if they name none."""
    from flows.server import prefect_api, wait_until_ready

    if settings.is_prefect_embedded:
        raise RecipeError("PREFECT_API_URL: not set, and this needs a Prefect server: see docs/server.md")
    with prefect_api(settings):
        wait_until_ready()
        yield


def say(line: str) -> None:
    """A line, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def tell(as_json: bool, facts: Any, *lines: Any) -> None:
    """The facts as JSON on standard output, or the lines and tables for a person."""
    if as_json:
        sys.stdout.write(json.dumps(facts, indent=1, ensure_ascii=False, default=str) + "\n")
        return
    from flows.console import show

    show(*lines)
