"""What the Prefect server has to be like to be left alone: settings, deployments, workers, automations."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import prefect
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType, WorkerStatus
from prefect.client.schemas.responses import DeploymentResponse

from flows.deploy import TAG, find_notification_block, read_automations
from graftwork.health import Finding

CLOCKS_S = 10.0
MEMORY = "memory"


def examine_server() -> Iterator[Finding]:
    """Everything that can be seen of the Prefect server that the settings name, which answers."""
    with get_client(sync_client=True) as client:
        version = client.request("GET", "/admin/version")
        yield _version(version.json())
        yield _clock(version)
        yield from _settings(client.request("GET", "/admin/settings").json())
        with_tag = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
        deployments = client.read_deployments(deployment_filter=with_tag)
        if not deployments:
            yield Finding("deployments", "note", "there are none of ours", "`graftwork deploy RECIPE …` makes them")
            return
        yield Finding("deployments", "good", f"{len(deployments)} of ours")
        yield from _workers(client, deployments)
        yield _schedules(client, deployments)
        yield from _automations(client)


def _version(found: str) -> Finding:
    if found != prefect.__version__:
        told = f"the server is {found}, this is {prefect.__version__}"
        return Finding("Prefect", "bad", told, "install the same version on both sides")
    return Finding("Prefect", "good", f"version {found} on both sides")


def _clock(answer: httpx.Response) -> Finding:
    """Leases and schedules are a matter of seconds, on whosever clock."""
    ahead = (datetime.now(UTC) - parsedate_to_datetime(answer.headers["date"])).total_seconds()
    if abs(ahead) > CLOCKS_S:
        told = f"this machine's is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's"
        return Finding("clock", "bad", told, "have both follow a time server")
    return Finding("clock", "good", "as the server's")


def _settings(found: Mapping[str, Any]) -> Iterator[Finding]:
    server = found.get("server") or {}
    storage = str((server.get("concurrency") or {}).get("lease_storage", ""))
    if storage.endswith(MEMORY):
        hint = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect.server.concurrency.lease_storage.filesystem there"
        yield Finding("slots", "bad", "kept in memory: a restart of the server loses them for ever", hint)
    else:
        yield Finding("slots", "good", "survive a restart of the server")
    if server.get("analytics_enabled"):
        hint = "PREFECT_SERVER_ANALYTICS_ENABLED=false there"
        yield Finding("telemetry", "note", "the server reports its use to its makers", hint)
    else:
        yield Finding("telemetry", "good", "off")


def _workers(client: SyncPrefectClient, deployments: list[DeploymentResponse]) -> Iterator[Finding]:
    for pool in sorted({each.work_pool_name for each in deployments if each.work_pool_name}):
        workers = client.read_workers_for_work_pool(pool)
        online = [worker.name for worker in workers if worker.status == WorkerStatus.ONLINE]
        if online:
            yield Finding(f"pool {pool}", "good", f"{len(online)} workers: {', '.join(sorted(online))}")
        else:
            hint = f"prefect worker start --pool {pool}"
            yield Finding(f"pool {pool}", "bad", "nobody works there: its runs wait", hint)


def _schedules(client: SyncPrefectClient, deployments: list[DeploymentResponse]) -> Finding:
    """A scheduler that does not run is told nowhere: nothing happens."""
    on_schedule = [each for each in deployments if any(schedule.active for schedule in each.schedules)]
    waiting = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[each.id for each in on_schedule]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED, StateType.RUNNING])),
    )
    if on_schedule and not client.read_flow_runs(flow_run_filter=waiting, limit=1):
        told = f"{len(on_schedule)} deployments have a schedule, and no run is planned"
        hint = "look into the server's log; its SQLAlchemy has to be below 2.1, and it needs a minute after a start"
        return Finding("schedules", "bad", told, hint)
    return Finding("schedules", "good", f"{len(on_schedule)} active")


def _automations(client: SyncPrefectClient) -> Iterator[Finding]:
    wanted = read_automations()
    missing = [
        each for each in wanted if not any(known.enabled for known in client.read_automations_by_name(each["name"]))
    ]
    needed = [each["name"] for each in missing if "block" not in each]
    if needed:
        told = f"missing or switched off: {', '.join(needed)}"
        yield Finding("automations", "bad", told, "`graftwork deploy RECIPE …` makes them")
    else:
        yield Finding("automations", "good", "all there")
    blocks = [each["block"] for each in wanted if "block" in each]
    if len(missing) > len(needed) or not all(find_notification_block(client, name) for name in blocks):
        hint = "make a notification block named graftwork on the Prefect page, and deploy again: docs/operations.md"
        yield Finding("notifications", "note", "nobody is told what is promoted, waits or fails", hint)
    else:
        yield Finding("notifications", "good", "by the block graftwork")
