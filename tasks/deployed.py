"""Runs of deployments, as the Prefect server knows them: started once for a key, and followed until they are over."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelled

from graftwork.errors import Problem, RecipeError

# A run that crashed is started again by an automation. On SQLite the server may lose the event that asks for that, and
# a worker reports a dead process a second time after some seconds: later than this, whoever looks does it.
RECOVERED_WITHIN = timedelta(seconds=20)
MOST_STARTS = 10

log = logging.getLogger("graftwork.tasks")


def start_once(deployment: str, key: str, parameters: Mapping[str, Any], is_child: bool = False) -> FlowRun:
    """The run of the deployment, `flow/deployment`, for this key: the server keeps one, whoever asks and however often.

    is_child: of the flow run that asks for it first. Raises RecipeError if there is no such deployment.
    """
    full_key = f"{deployment}:{key}"  # the server tells keys of one flow apart, not of one deployment
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[full_key]))
        known = client.read_flow_runs(flow_run_filter=wanted)
    if known:
        return known[0]  # `run_deployment` would give it, too, but draw another line to it in the parent's graph
    try:
        run = run_deployment(
            deployment, parameters=dict(parameters), idempotency_key=full_key, timeout=0, as_subflow=is_child
        )
    except ObjectNotFound as error:
        hint = "`graftwork deploy RECIPE` makes it"
        raise RecipeError(Problem("there is no such deployment", deployment, hint)) from error
    return cast("FlowRun", run)


def final_state(run: UUID) -> State[Any] | None:
    """The state that the flow run ended in, Cancelled if it was deleted; None while it goes on.

    One that crashed and was left so is started again. A server that is away tells nothing: None.
    """
    try:
        with get_client(sync_client=True) as client:
            found = client.read_flow_run(run)
            state = found.state
            if state is None or not state.is_final():
                return None
            if not state.is_crashed() or found.run_count >= MOST_STARTS:
                return state
            if datetime.now(UTC) - state.timestamp > RECOVERED_WITHIN:
                log.warning("run %s crashed and was left so: it is started again", run)
                client.set_flow_run_state(found.id, AwaitingRetry(), force=True)
    except ObjectNotFound:
        return Cancelled(message="it was deleted")
    except httpx.HTTPError as error:
        log.warning("the Prefect server does not answer (%s): it is asked again", error)
    return None
