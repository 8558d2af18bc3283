"""What a task is retried on, on a real Prefect server."""

from collections.abc import Iterator

import pytest
from prefect import flow, task
from prefect.testing.utilities import prefect_test_harness

from graftwork.errors import DataError, RecipeError, ServiceUnavailable
from tasks.policies import RETRIED

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """A Prefect server for these tests, with a database of its own."""
    with prefect_test_harness():
        yield


class Step:
    """A step that fails with `error` the first `times` it is tried."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.times, self.tries = error, times, 0

    def __call__(self) -> str:
        self.tries += 1
        if self.tries <= self.times:
            raise self.error
        return "done"


def run_as_task(step: Step) -> str:
    """The step as a task under our policy, without its waits, in a flow."""
    retried = task(lambda: step(), name="step", **RETRIED).with_options(retry_delay_seconds=0, retry_jitter_factor=0)
    return flow(lambda: retried(), name="flow")()


@pytest.mark.parametrize("error", [ServiceUnavailable("away"), ConnectionResetError("reset"), TimeoutError("slow")])
def test_a_service_that_is_away_is_tried_again(error):
    """A service that fails twice and then answers costs two retries."""
    step = Step(error, times=2)
    assert run_as_task(step) == "done"
    assert step.tries == 3


def test_a_service_that_stays_away_is_given_up():
    """After as many retries as the policy has, the error is the caller's."""
    step = Step(ServiceUnavailable("away"), times=100)
    with pytest.raises(ServiceUnavailable):
        run_as_task(step)
    assert step.tries == 1 + RETRIED["retries"]


@pytest.mark.parametrize("error", [RecipeError("unknown key"), DataError("no rows"), ValueError("a bug of ours")])
def test_a_mistake_is_not_tried_again(error):
    """What trying again can't mend is raised at the first time, as itself."""
    step = Step(error, times=1)
    with pytest.raises(type(error)):
        run_as_task(step)
    assert step.tries == 1
