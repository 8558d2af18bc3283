"""Evaluation and verdict as tasks."""

import logging

from prefect import task
from prefect.artifacts import create_markdown_artifact

from graftwork.evaluation import evaluation as evaluations
from graftwork.evaluation.baselines import FrozenEncoder
from graftwork.evaluation.evaluation import Evaluation
from graftwork.promotion import gate
from graftwork.promotion.gate import Verdict
from graftwork.promotion.ledger import Ledger
from graftwork.promotion.looks import take_look
from graftwork.registry.contenders import candidate, references
from graftwork.training.bundle import ServingBundle
from graftwork.training.plan import open_run
from graftwork.training.reading import measure_reading
from graftwork.workspace import Workspace
from tasks.narration import RowProgress, narrated
from tasks.policies import MINUTE_S, RETRIED

log = logging.getLogger("graftwork.tasks")


@task(task_run_name="evaluate run {run_id}", tags=["cpu"], timeout_seconds=120 * MINUTE_S, **RETRIED)
def evaluate(run_id: str, bundle: ServingBundle) -> Evaluation:
    """The bundle beside champion, anchor and baselines, on holdout rows that none of them was trained on."""
    workspace = Workspace.open()
    run = open_run(workspace.store, run_id)
    reading = measure_reading(workspace.store, run)
    for side, each in reading.sides.items() if reading else ():
        told = side, 100 * each.cut_share, run.plan.max_tokens, 100 * each.unknown_share
        log.info("%s: %.1f %% of the texts are cut at %d tokens, %.1f %% of their tokens are unknown", *told)
        if run.plan.writes is not None:
            log.info("%s: %d of the labels are cut at %d tokens", side, each.labels_cut, run.plan.writes)
        if each.words:
            log.info("%s: %d of %d words are not read, and told nothing", side, each.unread, each.words)
    with narrated("evaluation", workspace.store):
        return evaluations.evaluate(
            workspace.store,
            candidate(workspace, bundle),
            references(workspace, bundle),
            run.manifest,
            encoder=FrozenEncoder(
                checkpoint=run.lock.key,
                pooling=run.plan.pooling,
                max_tokens=run.plan.max_tokens,
                precision=run.plan.precision,
                pixels=run.plan.pixels,
                sound=run.plan.sound,
                prompts=run.plan.prompts,
            ),
            baselines=tuple(dict.fromkeys(run.evaluation.baselines + run.policy.baselines)),
            slices=run.evaluation.slices,
            samples=run.evaluation.bootstrap,
            cache_bytes=workspace.settings.cache_bytes,
            on_progress=RowProgress("evaluation"),
        )


@task(task_run_name="judge run {run_id}", tags=["cpu"], timeout_seconds=10 * MINUTE_S, **RETRIED)
def judge(run_id: str, bundle: ServingBundle, evaluation: Evaluation) -> Verdict:
    """Promote, keep or inconclusive, by the policy that the run resolved at its start; an artifact says why."""
    workspace = Workspace.open()
    run = open_run(workspace.store, run_id)
    look = (
        1
        if run.is_limited
        else take_look(workspace.database, bundle.name, evaluation.holdout_digest, bundle.digest, evaluation.digest)
    )
    is_revoked = Ledger.of(workspace).is_revoked(bundle.name, bundle.digest)
    verdict = gate.judge(evaluation, run.policy, workspace.store, look, is_revoked)
    log.info("verdict: %s. %s", verdict.outcome, verdict.reason)
    create_markdown_artifact(key="verdict", markdown=f"# {verdict.outcome}\n\n{verdict.reason}")
    return verdict
