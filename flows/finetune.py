"""From one recipe to a judged, registered and promoted model. Read this first."""

import shlex
from pathlib import Path

from prefect import flow

from flows.summary import RunSummary
from graftwork.recipe import find_root, load_recipe
from graftwork.settings import use_home
from tasks.attempts import ENDED, begin_attempt
from tasks.evaluate import evaluate, judge
from tasks.events import tell_outcome
from tasks.finetune import find_resolved, plan_training, train_stages
from tasks.promote import promote
from tasks.register import register_model
from tasks.report import publish_report
from tasks.retrieve_checkpoint import retrieve_checkpoint
from tasks.train import train_elsewhere
from tasks.validate_data import accepted_data, validate_data


@flow(name="finetune", flow_run_name="finetune-{recipe}", persist_result=False, **ENDED)
def finetune(
    recipe: str,
    overrides: tuple[str, ...] = (),
    limit_rows: int | None = None,
    restart: bool = False,
    accept_drift: tuple[str, ...] = (),
    manifest: str | None = None,
    trained_by: str | None = None,
) -> RunSummary:
    """Validate, retrieve, plan, train, evaluate, judge, register, promote; what is unchanged is not done again.

    recipe: path of the recipe file. overrides: `key=value`, as after --set. limit_rows: a quick try on
    so many rows in all; it is judged, but neither registered nor promoted. restart: begin a stage that was left in its
    middle again. accept_drift: what of its environment may have changed since. manifest: digest of the accepted data to
    train on; by default what the sources hold now. trained_by: the deployment that has a pool for training, as
    `train/gpu`; by default it is done here. Started again, after a crash or a week, the same flow run works on what it
    resolved at first, whatever has changed since.
    """
    use_home(find_root(Path(recipe)))
    begin_attempt()
    run = find_resolved()
    if run is None:
        wanted = load_recipe(Path(recipe), overrides, limit_rows)
        data = validate_data(wanted) if manifest is None else accepted_data(manifest)
        run = plan_training(wanted, data, retrieve_checkpoint(wanted))
    if trained_by is None:
        bundle = train_stages(run.run_id, restart, accept_drift, run.time_limit_s)
    else:
        bundle = train_elsewhere(run.run_id, trained_by, restart, accept_drift, run.time_limit_s)
    evaluation = evaluate(run.run_id, bundle)
    verdict = judge(run.run_id, bundle, evaluation)
    if run.is_limited:
        return RunSummary(run, bundle, evaluation, verdict)
    version = register_model(run.run_id, bundle, evaluation, verdict)
    entry = promote(run.run_id, version, bundle, evaluation, verdict)
    tell_outcome(entry, verdict)
    command = shlex.join(["graftwork", "run", recipe, *(f"--set={override}" for override in overrides)])
    report = publish_report(run.run_id, bundle, evaluation, verdict, version, entry, command)
    return RunSummary(run, bundle, evaluation, verdict, version, entry, report)
