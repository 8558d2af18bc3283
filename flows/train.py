"""The training of a run by itself, for a pool of machines that are good at it. Only the run's id travels there."""

from prefect import flow

from tasks import finetune
from tasks.attempts import ENDED, begin_attempt


@flow(name="train", flow_run_name="train-{run_id}", persist_result=False, **ENDED)
def train(
    run_id: str, restart: bool = False, accept_drift: tuple[str, ...] = (), time_limit_s: float | None = None
) -> None:
    """Train all stages of a run that was resolved elsewhere; what comes of it is in the store that both share.

    restart, accept_drift: as of `finetune`. time_limit_s: after so many seconds it saves and fails, to go on when it is
    started again.
    """
    begin_attempt()
    finetune.train_stages(run_id, restart, accept_drift, time_limit_s)
