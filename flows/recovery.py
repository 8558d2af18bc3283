"""Closes runs whose process died: nothing tells Prefect's server that a process was killed on this machine.

A run that the command line starts carries its owner as a tag, set in the call that creates it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect import tags
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Crashed

from graftwork.owners import is_alive, this_owner

OWNER = "owner:"
UNFINISHED = [StateType.PENDING, StateType.RUNNING]


@contextmanager
def owned() -> Iterator[None]:
    """Flow runs created in the block are this process's."""
    with tags(OWNER + this_owner()):
        yield


def close_dead_runs() -> int:
    """Mark as Crashed what Prefect believes to run but whose process on this machine has ended; how many there were."""
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED)))
        dead = [run for run in client.read_flow_runs(flow_run_filter=wanted) if _is_dead(run)]
        for run in dead:
            _close(client, run)
    return len(dead)


def _is_dead(run: FlowRun) -> bool:
    owners = [tag.removeprefix(OWNER) for tag in run.tags if tag.startswith(OWNER)]
    return bool(owners) and not is_alive(owners[0])


def _close(client: SyncPrefectClient, run: FlowRun) -> None:
    """The run and its tasks: a killed process leaves both as running."""
    crashed: State[None] = Crashed(message="Its process ended without a word: killed, or the machine went down.")
    unfinished = client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
        task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=UNFINISHED))),
    )
    for task_run in unfinished:
        client.set_task_run_state(task_run.id, crashed, force=True)
    client.set_flow_run_state(run.id, crashed, force=True)
