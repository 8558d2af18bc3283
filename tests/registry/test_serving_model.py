"""The registered model as others use it: without Graftwork, without pickle, over HTTP."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import psutil
import pytest

from graftwork.data.manifest import DatasetManifest
from graftwork.evaluation.evaluation import Evaluation
from graftwork.models.serving.model import load
from graftwork.promotion.gate import Verdict
from graftwork.registry.client import reach_mlflow
from graftwork.registry.registration import register_model
from graftwork.registry.tracking import log_training
from graftwork.registry.versions import ModelVersion, fetch_bundle, list_models, move_alias
from graftwork.settings import Settings
from graftwork.training.bundle import MODEL, ServingBundle
from graftwork.training.plan import TrainingPlan
from graftwork.workspace import Workspace

TEXTS = ["a good film", "very bad", "good good"]
# Importing graftwork fails in this script, as it would where only the model's own requirements are installed.
SCRIPT = """
import sys
sys.modules["graftwork"] = None
import mlflow.pyfunc
import pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
print(model.predict(pd.DataFrame({"text": sys.argv[2:]})).to_json(orient="split"))
"""


@pytest.mark.e2e
def test_model_predicts_without_graftwork_and_without_pickle(
    workspace: Workspace, bundle: ServingBundle, register: Callable[[], ModelVersion]
) -> None:
    """Loaded by MLflow with pickle refused, it gives a label and the bundle's own probabilities for each row."""
    register()
    (card,) = (workspace.settings.home / "mlartifacts").rglob("MLmodel")
    environment = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-c", SCRIPT, str(card.parent), *TEXTS]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    expect_answer(json.loads(told.stdout), workspace, bundle)
    assert not list(card.parent.rglob("*.pyc"))


@pytest.mark.e2e
def test_model_answers_over_http(
    workspace: Workspace, bundle: ServingBundle, register: Callable[[], ModelVersion]
) -> None:
    """`mlflow models serve` answers with the bundle's own probabilities."""
    register()
    (card,) = (workspace.settings.home / "mlartifacts").rglob("MLmodel")
    command = ["models", "serve", "--env-manager", "local", "--model-uri", str(card.parent)]
    with mlflow_process(command, "/ping") as server:
        body = {"dataframe_split": {"columns": ["text"], "data": [[text] for text in TEXTS]}}
        request = urllib.request.Request(
            f"{server}/invocations",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            rows = json.load(answer)["predictions"]
    table = {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}
    expect_answer(table, workspace, bundle)


@pytest.mark.e2e
def test_tracking_server_takes_what_the_embedded_store_takes(
    tmp_path: Path,
    workspace: Workspace,
    bundle: ServingBundle,
    plan: TrainingPlan,
    manifest: DatasetManifest,
    evaluation: Evaluation,
    verdict: Verdict,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Runs, version, aliases and download go through a real MLflow server; registering again changes nothing."""
    database, artifacts = f"sqlite:///{tmp_path / 'server.db'}", str(tmp_path / "server")
    command = ["server", "--backend-store-uri", database, "--artifacts-destination", artifacts]
    with mlflow_process(command, "/health") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
        settings = Settings(home=workspace.settings.home)
        team = Workspace(settings, workspace.store, workspace.database)
        run = log_training(team, "run1", plan, bundle.stages)
        first = register_model(team, run, bundle, manifest, evaluation, verdict)
        assert register_model(team, run, bundle, manifest, evaluation, verdict) == first
        move_alias(team, first.name, "champion", first.version)
        (listed,) = list_models(team)
        assert (listed.aliases, listed.metrics) == (("champion",), {"accuracy": 0.85})
        with reach_mlflow(settings) as client:
            metrics = {metric.key: metric.value for metric in client.get_logged_model(first.model_id).metrics}
            assert metrics["holdout/accuracy"] == 0.85
        (workspace.settings.store_root / bundle.key).rename(tmp_path / "gone")
        fetched = fetch_bundle(team, first)
    assert (fetched / "model.safetensors").read_bytes() == (tmp_path / "gone/model/model.safetensors").read_bytes()


def expect_answer(table: dict, workspace: Workspace, bundle: ServingBundle) -> None:
    """The table holds what the bundle itself says of TEXTS."""
    stored = workspace.store.open(bundle.key)
    assert stored is not None
    expected = load(stored / MODEL, device="cpu").probabilities(TEXTS)
    assert table["columns"] == ["label", "p_negative", "p_positive"]
    assert [row[0] for row in table["data"]] == [bundle.classes[index] for index in expected.argmax(axis=1)]
    np.testing.assert_allclose(np.array([row[1:] for row in table["data"]], dtype=float), expected, atol=1e-6)


@contextmanager
def mlflow_process(command: list[str], health: str) -> Iterator[str]:
    """The URL of an MLflow server that is up until the block ends; its workers are ended with it."""
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment = os.environ | quiet | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    port = free_port()
    place = ["--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen([sys.executable, "-m", "mlflow", *command, *place], env=environment)
    try:
        wait_until_up(process, f"http://127.0.0.1:{port}{health}", deadline=monotonic() + 90)
        yield f"http://127.0.0.1:{port}"
    finally:
        for member in [*psutil.Process(process.pid).children(recursive=True), process]:
            member.terminate()
        process.wait(timeout=20)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_up(process: subprocess.Popen, url: str, deadline: float) -> None:
    """Return once the URL answers; fail if the process ends or the deadline passes first."""
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            assert process.poll() is None, f"ended with {process.returncode}"
            assert monotonic() < deadline, f"{url} does not answer"
            sleep(0.3)
