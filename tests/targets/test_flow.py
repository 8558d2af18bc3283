"""Numbers and several labels a row through the whole chain: validated, trained, judged, registered, predicting."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import (
    write_checkpoint,
    write_image_labels_project,
    write_image_number_project,
    write_labels_project,
    write_number_project,
)
from trained import Trained, train

from graftwork.data.manifest import load_rows
from graftwork.export import export_version
from graftwork.models.serving.config import CONFIG
from graftwork.registry.client import reach_mlflow
from graftwork.registry.versions import ModelVersion
from graftwork.report import model_card, page
from graftwork.scoring import score_file

PROJECTS: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "text-regression": ("bert", write_number_project),
    "text-multi-label": ("bert", write_labels_project),
    "image-regression": ("vit", write_image_number_project),
    "image-multi-label": ("vit", write_image_labels_project),
}
STAGES = "stages=[{name: all, train: all, epochs: 4, learning_rate: 1e-3, head_multiplier: 10}]"


@pytest.fixture(scope="module", params=PROJECTS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp(request.param)
    architecture, write = PROJECTS[request.param]
    write_checkpoint(folder / "checkpoint", architecture)
    write(folder, folder / "checkpoint")
    made = train(folder, STAGES)
    assert made.run.plan.problem_type == request.param
    return made


@pytest.fixture(scope="module")
def version(trained: Trained) -> ModelVersion:
    """The model, registered."""
    return trained.register()


def test_what_is_learnt_beats_what_reads_nothing(trained: Trained) -> None:
    """Judged by its own metric, the model is promoted over the training rows' mean, or their labels' shares."""
    verdict = trained.judge()
    (compared,) = verdict.comparisons
    assert (compared.reference, verdict.outcome) == ("majority", "promote")
    assert compared.difference.low > 0
    evaluation = trained.evaluate()
    assert evaluation.target == trained.run.manifest.target
    assert set(evaluation.metrics) == set(trained.run.plan.target.learning.metrics)
    assert all(each.keys() == evaluation.metrics.keys() for each in evaluation.baselines.values())


def test_registered_and_predicting_it_gives_the_same(trained: Trained, version: ModelVersion) -> None:
    """MLflow, with its signature enforced, and the batch prediction give what the bundle gives."""
    import mlflow

    workspace, bundle, run = trained.workspace, trained.bundle, trained.run
    (column,) = bundle.columns
    inputs = pd.read_csv(trained.folder / "made.csv")[column].tolist()
    if column == "file":
        inputs = [(trained.folder / name).read_bytes() for name in inputs]
    values = trained.served.probabilities(inputs)
    output = trained.folder / "out.csv"
    score_file(workspace, f"{bundle.name}/1", trained.folder / "made.csv", output, prefix="p_")
    found = pd.read_csv(output, keep_default_na=False)
    with reach_mlflow(workspace.settings):
        answered = mlflow.pyfunc.load_model(version.uri).predict(pd.DataFrame({column: inputs}))
        told = mlflow.models.get_model_info(version.uri).signature.outputs.input_names()
    assert list(answered) == told
    if run.plan.target.is_number:
        assert told == ["prediction"]
        np.testing.assert_allclose(found["p_prediction"], values[:, 0], rtol=1e-6)
        np.testing.assert_allclose(answered["prediction"], values[:, 0], rtol=1e-5)
    else:
        names = [f"p_{name}" for name in bundle.classes]
        assert told == ["labels", *names]
        np.testing.assert_allclose(found[[f"p_{name}" for name in names]], values, atol=1e-6)
        np.testing.assert_allclose(answered[names], values, atol=1e-6)
        expected = ["|".join(n for n, p in zip(bundle.classes, row, strict=True) if p > 0.5) for row in values]
        assert found["p_labels"].tolist() == answered["labels"].tolist() == expected
    expect_report(trained, version)


def expect_report(trained: Trained, version: ModelVersion) -> None:
    """The page and the card show the metrics of what was learnt, and none of what was not."""
    facts = trained.tell(version)
    for shown in (page.render(facts), model_card.render(facts)):
        assert "accuracy" not in shown
        for name in ("MAE", "R²") if trained.run.plan.target.is_number else ("micro F1", "exact match"):
            assert name in shown


@pytest.mark.e2e
def test_its_graph_gives_the_same(trained: Trained, version: ModelVersion) -> None:
    """What comes out of ONNX is as a bundle tells it: ratings in their own unit, independent probabilities."""
    exported = export_version(
        trained.workspace,
        f"{trained.bundle.name}/{version.version}",
        trained.folder / "made.csv",
        trained.folder / "exported",
    )
    assert exported.difference < 1e-4
    assert (exported.folder / CONFIG).exists()


def test_numbers_are_learnt_in_standard_deviations(trained: Trained) -> None:
    """Whatever the unit, the scale of what the head gives is the training rows'; served, it is undone."""
    if not trained.run.plan.target.is_number:
        assert trained.run.plan.scale is None
        return
    labels = load_rows(trained.workspace.store, trained.run.manifest, sides=("train",))["label"]
    assert trained.run.plan.scale == pytest.approx((labels.mean(), labels.std(ddof=0)))
    served = trained.served
    inputs = [b"0"] if served.modality == "image" else ["the long film was good and good"]
    if served.modality == "text":
        rows = served.encoder.encode(inputs)
        with torch.inference_mode():
            (raw,) = served.model(*served.encoder.pad(rows, len(rows[0])))
        mean, std = trained.run.plan.scale
        np.testing.assert_allclose(served.probabilities(inputs)[0], raw.double() * std + mean, rtol=1e-6)
