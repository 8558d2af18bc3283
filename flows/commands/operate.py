"""What leaves a project alone: servers, deployments, landings, room on the disk."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.commands.shared import Json, prefect_of, project_of, say, tell
from graftwork.errors import AuditError, RecipeError, raise_if

if TYPE_CHECKING:
    pass


def up(
    *,
    prefect_port: Annotated[int, Parameter(help="Where the Prefect server and its pages listen.")] = 4200,
    mlflow_port: Annotated[int, Parameter(help="Where the MLflow server and its pages listen.")] = 5000,
    postgres: Annotated[
        str | None,
        Parameter(help="A PostgreSQL server, postgresql://USER@HOST, for all databases; by default they are files."),
    ] = None,
) -> None:
    """Run a Prefect server, an MLflow server and workers on this machine, until Ctrl-C.

    Everything is kept below .graftwork, and what all of them say in up.log there. What ends is started again. When all
    is up, it prints what other terminals have to be told.
    """
    from flows.postgres import databases_on
    from flows.stack import Ports, running
    from graftwork.settings import Settings, find_home, use_home

    use_home(find_home(Path.cwd()).parent)
    ports = Ports(prefect_port, mlflow_port)
    databases = {} if postgres is None else databases_on(postgres)
    told = {name: url.render_as_string(hide_password=False) for name, url in databases.items()}
    with running(Settings.read(), ports, told, show=say) as stack:
        say("up; in other terminals:")
        say(f"  export PREFECT_API_URL={ports.prefect_api} MLFLOW_TRACKING_URI={ports.mlflow_uri}")
        if databases:
            say(f"  export GRAFTWORK_DB='{databases['GRAFTWORK_DB']}'")  # a password in it is shown as ***
        stack.look_after()


def deploy(*recipes: Path, json: Json = False) -> None:
    """Deploy recipes on the Prefect server: their runs, the watch over what lands for them, the audit, and automations.

    Deploying again brings everything up to date. Workers of the pool `cpu` then run them: see docs/server.md.
    """
    if not recipes:
        raise RecipeError("name at least one recipe")
    with project_of(recipes[0]) as settings, prefect_of(settings):
        from flows.deploy import deploy

        done = deploy(recipes)
    lines = [*(f"deployed {name}" for name in done.deployments), *(f"automation {name}" for name in done.automations)]
    tell(json, asdict(done), *lines)


def doctor(*, json: Json = False) -> None:
    """Look for what is wrong with this machine's set-up, and with the Prefect server's if the settings name one.

    Libraries, folders, database, registry; the server's version, clock, settings and schedules, workers in each pool,
    automations. Exit code 8 if there is anything that will not work.
    """
    from graftwork.health import examine
    from graftwork.settings import Settings

    settings = Settings.read()
    found = list(examine(settings))
    if not settings.is_prefect_embedded:
        with prefect_of(settings):
            from flows.doctor import examine_server

            found += examine_server()
    bad = [each.problem for each in found if each.state == "bad"]
    if json or not bad:
        from flows.console import findings_table

        tell(json, [asdict(each) for each in found], findings_table(found))
    raise_if(bad, AuditError)


def prune(
    *,
    keep: Annotated[str, Parameter(help="What was touched since is kept: 12h, 30d.")] = "30d",
    remove: Annotated[bool, Parameter(negative="", help="Remove it; without this it is only listed.")] = False,
    json: Json = False,
) -> None:
    """List what of the store nothing needs any more, or remove it.

    Needed is what registered models, unfinished and recent runs, and the next data of a recipe go on from. Verdicts,
    evaluations, reports and decisions are evidence, and stay.
    """
    from flows import console
    from graftwork import api
    from graftwork.fields import duration_of

    found = api.prune(duration_of(keep, "--keep"), is_dry=not remove)
    tell(json, [vars(each) for each in found], console.leftovers_table(found, is_removed=remove))


def land(
    file: Path,
    *,
    recipe: Annotated[Path, Parameter(help="The recipe whose data it is.")],
    source: Annotated[str | None, Parameter(help="Which of its sources, if several are landing folders.")] = None,
    json: Json = False,
) -> None:
    """Hand a file in: copy it into the recipe's landing folder, whole or not at all, and say so on the Prefect server.

    A file that is dropped into the folder is found, too, after the recipe's quiet time; one that is handed in is looked
    at without waiting. Without a server the next `graftwork run` takes it.
    """
    from graftwork import api

    with project_of(recipe) as settings:
        done = api.land(recipe, file, source)
        if not settings.is_prefect_embedded:
            with prefect_of(settings):
                from tasks.events import tell_landed

                tell_landed(done)
    what = "has landed before" if done.was_there else "landed"
    tell(json, asdict(done), f"{done.place} {what}, for source {done.source} of {done.model}")
