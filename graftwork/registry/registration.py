"""Registration: a serving bundle becomes exactly one model version, whoever asks and however often.

The bundle's digest is a tag of everything made here, and one process at a time holds the claim on it, so each step that
a killed process had done is found and not done again. Not here: what a version is later used for (versions.py).
"""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from graftwork.claims import claim, settle
from graftwork.errors import Problem, RegistryError, ServiceUnavailable
from graftwork.faults import fault
from graftwork.models.serving.config import ServingConfig
from graftwork.registry.client import experiment_of, reach_mlflow
from graftwork.registry.packaging import save_model
from graftwork.registry.tracking import MANIFEST, log_evaluation
from graftwork.registry.versions import BUNDLE, BUNDLE_KEY, ModelVersion, first_version
from graftwork.training.bundle import MODEL, ServingBundle
from graftwork.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

    from graftwork.data.manifest import DatasetManifest
    from graftwork.evaluation.evaluation import Evaluation
    from graftwork.promotion.gate import Verdict

EVALUATION, VERDICT = "graftwork.evaluation", "graftwork.verdict"
POLL_S = 0.5
WAIT_S = 120  # for another process that registers the same bundle: an upload of some hundred MB


def register_model(
    workspace: Workspace,
    mlflow_run: str,
    bundle: ServingBundle,
    manifest: "DatasetManifest",
    evaluation: "Evaluation",
    verdict: "Verdict",
) -> ModelVersion:
    """The one version of this bundle, with the evaluation's metrics on it; calling it again changes nothing.

    mlflow_run: what `log_training` gave; it is FINISHED afterwards.
    Raises ServiceUnavailable if MLflow is away or another process is still registering the bundle.
    """
    with reach_mlflow(workspace.settings) as client:
        found = first_version(client, bundle.name, bundle.digest)
        if found is None:
            key = _claim_version(workspace, client, bundle)
            # Whoever held the claim before may have made the version, and died before saying so.
            found = first_version(client, bundle.name, bundle.digest)
            if found is None:
                model = _log_model(workspace, client, mlflow_run, bundle)
                fault("registry.after_log_model")
                log_evaluation(client, mlflow_run, model.model_id, manifest, evaluation)
                found = _create_version(
                    client, mlflow_run, model, bundle, _tags(bundle, manifest, verdict), verdict.reason
                )
                fault("registry.after_create_version")
            settle(workspace.database, "version", key, str(found.version))
        client.set_terminated(mlflow_run)
        return found


def create_model(client: "MlflowClient", name: str) -> None:
    """A registered model of that name, if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def record_verdict(workspace: Workspace, version: ModelVersion, verdict: "Verdict") -> None:
    """Write the newest verdict on a version that was judged again, over the one it was registered with."""
    with reach_mlflow(workspace.settings) as client:
        number = str(version.version)
        client.set_model_version_tag(version.name, number, VERDICT, verdict.outcome)
        client.set_model_version_tag(version.name, number, EVALUATION, verdict.evaluation)
        client.update_model_version(version.name, number, description=verdict.reason)


def _claim_version(workspace: Workspace, client: "MlflowClient", bundle: ServingBundle) -> str:
    """The key of the claim on this bundle, once it is this process's or the bundle is registered."""
    key = f"{bundle.name}/{bundle.digest}"
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        held = claim(workspace.database, "version", key)
        if held.won or first_version(client, bundle.name, bundle.digest) is not None:
            return key
        if held.outcome is None:
            time.sleep(POLL_S)
        else:
            key = f"{key}/{held.outcome}"  # that version was deleted by hand: register the bundle anew
    raise ServiceUnavailable(
        Problem(f"{held.owner} has been registering this bundle for {WAIT_S} s", bundle.name, "try again later")
    )


def _log_model(workspace: Workspace, client: "MlflowClient", mlflow_run: str, bundle: ServingBundle) -> "LoggedModel":
    """The bundle as an MLflow model: one that is there is taken, and one whose upload was cut off is uploaded again."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    experiment = experiment_of(client, workspace.settings, bundle.name)
    found = client.search_logged_models([experiment], f"tags.`{BUNDLE}` = '{bundle.digest}'")
    # The status can't be part of the filter: MLflow then finds nothing, silently.
    model = next((model for model in found if model.status == LoggedModelStatus.READY), None)
    if model is not None:
        return model
    stored = workspace.store.open(bundle.key)
    if stored is None:
        raise RegistryError(Problem("the bundle is not in the store any more", bundle.key, "run the recipe again"))
    if found:
        model = found[0]
    else:
        tags = {BUNDLE: bundle.digest, BUNDLE_KEY: bundle.key}
        model = client.create_logged_model(experiment, bundle.name, mlflow_run, tags, model_type=_problem_type(stored))
        client.log_outputs(mlflow_run, [LoggedModelOutput(model.model_id, step=0)])
        fault("registry.after_create_logged_model")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save_model(stored, bundle, folder, mlflow_run=mlflow_run, model_id=model.model_id)
        client.log_model_artifacts(model.model_id, str(folder))
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _problem_type(stored: Path) -> str:
    config = ServingConfig.read(stored / MODEL)
    return f"{config.modality}-{config.target}"


def _create_version(
    client: "MlflowClient",
    mlflow_run: str,
    model: "LoggedModel",
    bundle: ServingBundle,
    tags: Mapping[str, str],
    description: str,
) -> ModelVersion:
    """A version that points to the logged model; if someone was quicker all the same, theirs."""
    create_model(client, bundle.name)
    client.create_model_version(
        bundle.name,
        source=f"models:/{model.model_id}",
        run_id=mlflow_run,
        model_id=model.model_id,
        tags=dict(tags),
        description=description,
    )
    found = first_version(client, bundle.name, bundle.digest)
    assert found is not None
    return found


def _tags(bundle: ServingBundle, manifest: "DatasetManifest", verdict: "Verdict") -> dict[str, str]:
    drift = {"graftwork.drift": "; ".join(bundle.drift)} if bundle.drift else {}
    warm = bundle.start.warm
    start = {"graftwork.start": str(warm.version), "graftwork.generation": str(warm.generation)} if warm else {}
    return (
        drift
        | start
        | {
            BUNDLE: bundle.digest,
            BUNDLE_KEY: bundle.key,
            "graftwork.recipe": bundle.recipe_digest,
            MANIFEST: manifest.digest,
            "graftwork.checkpoint": bundle.checkpoint,
            EVALUATION: verdict.evaluation,
            VERDICT: verdict.outcome,
        }
    )
