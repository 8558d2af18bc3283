"""Deployments of recipes on a Prefect server, and its automations: made, or brought up to date, by their names.

For each recipe there is `finetune/<name>`, and for each pool that recipes want training in `train/<pool>`; `watch/all`
looks at what has landed for all of them, `watch/landed` at what was handed in, `monitor/all` audits the ledger, and
`promote/by-hand`, `rollback/by-hand` and `decide/by-hand` are forms for people.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import WorkPool
from prefect.client.schemas.schedules import SCHEDULE_TYPES, CronSchedule, IntervalSchedule
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectAlreadyExists
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker
from ruamel.yaml import YAML

from flows.finetune import finetune
from flows.monitor import monitor
from flows.promote import decide, promote, rollback
from flows.train import train
from flows.watch import watch
from graftwork.errors import Problem, RecipeError, raise_if
from graftwork.recipe import Recipe, load_recipe

TAG = "graftwork"
POOL = "cpu"
# So many flows that fine-tune run at once, each with some 700 MB beside what it trains; a team may set another limit.
QUEUE, AT_ONCE = "finetune", 4
LOOK_EVERY_S, WATCH_EVERY = 15.0, timedelta(minutes=10)
AUDIT_EVERY = timedelta(hours=1)
FIRST_AFTER = timedelta(seconds=10)
# Of each run's process. Heartbeats show that its host lives.
JOB = {
    "env": {
        "PREFECT_LOGGING_EXTRA_LOGGERS": "graftwork",
        "PREFECT_LOGGING_ROOT_LEVEL": "INFO",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    },
}
# And where workers start processes: in the worker's folder, so that a worker that is killed does not take them with it.
PROCESS_JOB = {"working_dir": ".", "stream_output": False}


@dataclass(frozen=True)
class Deployment:
    """A flow with its parameters, in a pool, and when it runs by itself. limit: of runs at once. queue: of the pool."""

    flow: Flow[..., Any]
    name: str
    description: str
    parameters: dict[str, Any] = field(default_factory=dict)
    schedules: dict[str, SCHEDULE_TYPES] = field(default_factory=dict)
    pool: str = POOL
    limit: int | None = None
    queue: str | None = None

    @property
    def full_name(self) -> str:
        return f"{self.flow.name}/{self.name}"


@dataclass(frozen=True)
class Deployed:
    """What the server knows now: names of deployments, of pools, of automations."""

    deployments: tuple[str, ...]
    pools: tuple[str, ...]
    automations: tuple[str, ...]


def deploy(paths: Sequence[Path]) -> Deployed:
    """Deploy recipes of one project; what was deployed before under the same names is replaced.

    Raises RecipeError if a recipe is wrong, if two have one name, or if they are not of one project.
    """
    recipes = [load_recipe(path) for path in paths]
    _check(recipes)
    wanted = list(deployments_of(recipes))
    with get_client(sync_client=True) as client:
        pools = {name: _make_pool(client, name) for name in sorted({each.pool for each in wanted})}
        _make_queue(client)
        ids = {each.full_name: _deploy(client, each, pools[each.pool]) for each in wanted}
        automations = [name for each in read_automations() if (name := _automate(client, each, ids)) is not None]
    return Deployed(tuple(ids), tuple(pools), tuple(automations))


def deployments_of(recipes: Sequence[Recipe]) -> Iterator[Deployment]:
    """What there is to be deployed for the recipes of a project."""
    paths = [recipe.path.relative_to(recipe.root).as_posix() for recipe in recipes]
    for recipe, path in zip(recipes, paths, strict=True):
        pool = recipe.resources.pool
        yield Deployment(
            flow=finetune,
            name=recipe.name,
            description=f"Fine-tune, judge, register and promote what {path} describes.",
            parameters={"recipe": path, "trained_by": pool and f"{train.name}/{pool}"},
            schedules=_schedules(recipe),
            limit=1,
            queue=QUEUE,
        )
    for pool in dict.fromkeys(recipe.resources.pool for recipe in recipes):
        if pool is not None:
            yield Deployment(flow=train, name=pool, description="Train runs that were resolved elsewhere.", pool=pool)
    looks = int(WATCH_EVERY.total_seconds() / LOOK_EVERY_S) - 2  # it is over before the next one begins
    yield Deployment(
        flow=watch,
        name="all",
        description="Look at what has landed, again and again, and start the trainings that it asks for.",
        parameters={"recipes": paths, "looks": looks, "every_s": LOOK_EVERY_S},
        schedules={"always": _soon(WATCH_EVERY)},
        limit=1,
    )
    yield Deployment(
        flow=watch,
        name="landed",
        description="Look once at what was handed in, without waiting whether more comes.",
        parameters={"recipes": paths, "is_whole": True},
    )
    yield Deployment(
        flow=monitor,
        name="all",
        description="Compare the ledger with itself and with the registry.",
        schedules={"hourly": _soon(AUDIT_EVERY)},
    )
    for by_hand in (promote, rollback, decide):
        yield Deployment(flow=by_hand, name="by-hand", description=(by_hand.description or "").partition("\n")[0])


def read_automations() -> list[dict[str, Any]]:
    """The automations of deployments/automations.yaml. `block`: a notification block without which one is not made."""
    text = (resources.files("deployments") / "automations.yaml").read_text(encoding="utf-8")
    described: list[dict[str, Any]] = YAML(typ="safe").load(text)
    return described


def _check(recipes: Sequence[Recipe]) -> None:
    names = [recipe.name for recipe in recipes]
    problems = [
        Problem(f"another recipe is named {recipe.name!r}, too", str(recipe.path), "give one of them another name")
        for recipe in recipes
        if names.count(recipe.name) > 1
    ]
    problems += [
        Problem(f"it is of another project than {recipes[0].path}", str(recipe.path), "deploy it by itself")
        for recipe in recipes
        if recipe.root != recipes[0].root
    ]
    raise_if(problems, RecipeError)


def _soon(interval: timedelta) -> IntervalSchedule:
    """A schedule whose first run does not wait for the interval to pass."""
    return IntervalSchedule(interval=interval, anchor_date=datetime.now(UTC) + FIRST_AFTER)


def _schedules(recipe: Recipe) -> dict[str, SCHEDULE_TYPES]:
    schedule = recipe.retrain.schedule
    if schedule is None:
        return {}
    if schedule.cron is not None:
        return {"recipe": CronSchedule(cron=schedule.cron, timezone=schedule.timezone)}
    assert schedule.interval is not None
    return {"recipe": IntervalSchedule(interval=schedule.interval)}


def _make_pool(client: SyncPrefectClient, name: str) -> WorkPool:
    """The pool; one that is there already stays as the team made it, of whatever type."""
    wanted = WorkPoolCreate(
        name=name, type=ProcessWorker.type, base_job_template=ProcessWorker.get_default_base_job_template()
    )
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(wanted)
    return client.read_work_pool(name)


def _make_queue(client: SyncPrefectClient) -> None:
    """The queue that flows which fine-tune wait in; one that is there already keeps its limit."""
    with suppress(ObjectAlreadyExists):
        client.create_work_queue(
            QUEUE, work_pool_name=POOL, concurrency_limit=AT_ONCE, description="Recipes that are trained and judged."
        )


def _deploy(client: SyncPrefectClient, wanted: Deployment, pool: WorkPool) -> str:
    """The id. Made anew with the same name, a deployment keeps its id and its runs."""
    function: Callable[..., Any] = wanted.flow.fn
    entrypoint = f"{function.__module__}:{function.__name__}"
    made = client.create_deployment(
        flow_id=client.create_flow_from_name(wanted.flow.name),
        name=wanted.name,
        description=wanted.description,
        entrypoint=entrypoint,
        parameters=wanted.parameters,
        parameter_openapi_schema=parameter_schema(wanted.flow.fn).model_dump_for_openapi(),
        enforce_parameter_schema=True,
        schedules=[DeploymentScheduleCreate(schedule=what, slug=slug) for slug, what in wanted.schedules.items()],
        concurrency_limit=wanted.limit,
        work_pool_name=wanted.pool,
        work_queue_name=wanted.queue,
        job_variables=PROCESS_JOB | JOB if pool.type == ProcessWorker.type else JOB,
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": "."}}],
        tags=[TAG],
    )
    return str(made)


def find_notification_block(client: SyncPrefectClient, name: str) -> str | None:
    """The id of the block of that name by which somebody can be told something, whatever its type."""
    wanted = {
        "block_documents": {"name": {"any_": [name]}, "is_anonymous": {"eq_": False}},
        "block_schemas": {"block_capabilities": {"all_": ["notify"]}},
    }
    found = client.request("POST", "/block_documents/filter", json=wanted).json()
    return str(found[0]["id"]) if found else None


def _automate(client: SyncPrefectClient, described: dict[str, Any], ids: dict[str, str]) -> str | None:
    """The name of the automation, which is now as it is described; None if the block it needs is not there."""
    block = described.get("block")
    block_id = block and find_notification_block(client, block)
    actions = [
        action
        | ({"deployment_id": ids[action["deployment"]]} if "deployment" in action else {})
        | ({"block_document_id": block_id} if block_id else {})
        for action in described["actions"]
    ]
    for known in client.read_automations_by_name(described["name"]):
        client.delete_automation(known.id)
    if block and not block_id:
        return None
    wanted = AutomationCore.model_validate(described | {"actions": actions})
    client.create_automation(wanted)
    return wanted.name
