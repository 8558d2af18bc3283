"""From one recipe to a judged, registered and promoted model. Read this first."""

import shlex
from pathlib import Path

from prefect import flow

from flows.summary import RunSummary
from graftwork.recipe import load_recipe
from graftwork.settings import use_home
from tasks.evaluate import evaluate, judge
from tasks.finetune import plan_training, train_stages
from tasks.promote import promote
from tasks.register import register_model
from tasks.report import publish_report
from tasks.retrieve_checkpoint import retrieve_checkpoint
from tasks.validate_data import validate_data


@flow(name="finetune", flow_run_name="finetune-{recipe}", persist_result=False, validate_parameters=True)
def finetune(
    recipe: str,
    overrides: tuple[str, ...] = (),
    limit_rows: int | None = None,
    restart: bool = False,
    accept_drift: tuple[str, ...] = (),
) -> RunSummary:
    """Validate, retrieve, plan, train, evaluate, judge, register, promote; what is unchanged is not done again.

    recipe: path of the recipe file. overrides: `key=value`, as after --set. limit_rows: a quick try on
    so many rows in all; it is judged, but neither registered nor promoted. restart: begin a stage that was left in its
    middle again. accept_drift: what of its environment may have changed since.
    """
    wanted = load_recipe(Path(recipe), overrides, limit_rows)
    use_home(wanted.root)
    manifest = validate_data(wanted)
    lock = retrieve_checkpoint(wanted)
    run = plan_training(wanted, manifest, lock)
    bundle = train_stages(run.run_id, restart, accept_drift)
    evaluation = evaluate(run.run_id, bundle)
    verdict = judge(run.run_id, bundle, evaluation)
    if run.is_limited:
        return RunSummary(run, bundle, evaluation, verdict)
    version = register_model(run.run_id, bundle, evaluation, verdict)
    entry = promote(version, bundle, evaluation, verdict)
    command = shlex.join(["graftwork", "run", recipe, *(f"--set={override}" for override in overrides)])
    report = publish_report(run.run_id, bundle, evaluation, verdict, version, entry, command)
    return RunSummary(run, bundle, evaluation, verdict, version, entry, report)
