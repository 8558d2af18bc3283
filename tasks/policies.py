"""What is retried, how often, and when; the same for every task, so that it is said once."""

from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from graftwork.errors import GraftworkError, ServiceUnavailable

TRANSIENT = (ServiceUnavailable, ConnectionError, TimeoutError)
MINUTE_S = 60
# A server that is started again, or moved to another host, is away for a minute or so.
PATIENCE_S = [2.0, 8.0, 20.0, 45.0]


def is_transient(_task: "Task[..., Any]", _run: TaskRun, state: State[Any]) -> bool:
    """True if trying again may help: a service was away. A bad recipe, bad data or our own bug stays what it is."""
    try:
        state.result()
    except GraftworkError as error:
        return isinstance(error, TRANSIENT)
    except TRANSIENT:
        return True
    except Exception:  # noqa: BLE001 - whatever a task may raise
        return False
    return False


# Reuse is the store's business: Prefect's cache would persist results of its own, as pickles.
RETRIED: dict[str, Any] = {
    "retries": len(PATIENCE_S),
    "retry_delay_seconds": PATIENCE_S,
    "retry_jitter_factor": 0.2,
    "retry_condition_fn": is_transient,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}
