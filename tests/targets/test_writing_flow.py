"""Texts that are written, through the whole chain: validated, learnt from nothing, judged, registered, predicting."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import resolve_run
from trained import Trained, train
from writers import write_writer, write_writer_project

from flows.console import how_read
from graftwork.data.manifest import load_rows
from graftwork.errors import DataError, RecipeError, RegistryError
from graftwork.export import export_version
from graftwork.recipe import load_recipe
from graftwork.registry.adoption import adopt
from graftwork.registry.client import reach_mlflow
from graftwork.registry.versions import ModelVersion
from graftwork.report import model_card, page
from graftwork.report.examples import SHOWN, find_examples
from graftwork.scoring import score_file
from graftwork.settings import Settings
from graftwork.training.bundle import MODEL
from graftwork.workspace import Workspace

ASKED = "stages=[{{name: all, train: all, epochs: {}, learning_rate: {}, body_dropout: false, schedule: cosine}}]"
# What each is trained by from nothing, and what it reads in the place of a text.
CASES = {
    ("t5", False): (ASKED.format(6, "5e-3"), "train.batch_tokens=64"),
    ("gpt2", False): (ASKED.format(8, "5e-3"), "train.batch_tokens=128", "input.prompt='{text} film'"),
    ("llama", True): (ASKED.format(8, "5e-3"), "train.batch_tokens=128"),
}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case[0])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    architecture, has_own_table = request.param
    folder = tmp_path_factory.mktemp(architecture)
    write_writer(folder / "checkpoint", architecture, has_own_table)
    write_writer_project(folder, folder / "checkpoint")
    return train(folder, *CASES[request.param])


@pytest.fixture(scope="module")
def version(trained: Trained) -> ModelVersion:
    """The model, registered."""
    return trained.register()


def test_it_learns_to_write_what_the_text_says(trained: Trained) -> None:
    """From nothing, two words of each text: better than the most frequent verdict, and that of the nearest text."""
    evaluation, verdict = trained.evaluate(), trained.judge()
    assert how_read(trained.run.plan) == "8 tokens written at most"
    assert trained.run.plan.target.name == evaluation.target == "generation"
    assert evaluation.baselines.keys() == {"majority", "tfidf"}
    assert {each.reference for each in verdict.comparisons} == {"majority", "tfidf"}
    assert verdict.outcome == "promote"
    assert evaluation.metrics["token_f1"].low > 0.9
    assert all(each.low <= each.value <= each.high for each in evaluation.metrics.values())
    assert (evaluation.classes, evaluation.confusion) == ((), ())
    assert [each.accuracy for each in evaluation.slices] == [evaluation.metrics["rouge_l"]]
    first, last = trained.bundle.stages[0].epochs[0], trained.bundle.stages[0].best
    assert last.validation_loss < 0.5 * first.validation_loss
    assert last.validation_accuracy > first.validation_accuracy


def test_registered_and_predicting_it_writes_the_same(trained: Trained, version: ModelVersion) -> None:
    """MLflow, with its signature enforced, and the batch prediction write what the bundle writes."""
    import mlflow

    texts = pd.read_csv(trained.folder / "made.csv")["text"].tolist()
    told: list[int] = []
    values = trained.served.probabilities(texts, told.append)
    assert (values.shape, told[-1]) == ((len(texts), 1), len(texts))
    output = trained.folder / "out.csv"
    score_file(trained.workspace, f"{trained.bundle.name}/1", trained.folder / "made.csv", output)
    with reach_mlflow(trained.workspace.settings):
        answered = mlflow.pyfunc.load_model(version.uri).predict(pd.DataFrame({"text": texts}))
        signature = mlflow.models.get_model_info(version.uri).signature
    assert [(each.name, str(each.type)) for each in signature.outputs] == [("written", "DataType.string")]
    assert list(answered) == ["written"]
    found = pd.read_csv(output, keep_default_na=False)
    assert list(found) == ["text", "verdict", "written"]
    assert found["written"].tolist() == answered["written"].tolist() == values[:, 0].tolist()


def test_a_report_shows_what_was_written(trained: Trained, version: ModelVersion) -> None:
    """A few rows of the holdout from the worst to the best, as text and nothing else, and the metrics of texts."""
    evaluation, run = trained.evaluate(), trained.run
    examples = find_examples(trained.workspace.store, evaluation, run.manifest)
    assert [each.score for each in examples] == sorted(each.score for each in examples)
    assert 1 <= len(examples) <= SHOWN
    rows = load_rows(trained.workspace.store, run.manifest, sides=("holdout",)).set_index("text")["label"]
    assert all(rows[each.read] == each.label for each in examples)
    values = trained.served.probabilities([each.read for each in examples])
    assert [each.written for each in examples] == values[:, 0].tolist()
    facts = replace(trained.tell(version), examples=examples)
    for shown in (page.render(facts), model_card.render(facts)):
        assert "ROUGE-L" in shown
        assert "classes" not in shown
        assert all(each.written in shown and each.read in shown for each in examples)


def test_what_it_can_not_be_made_into_is_said(trained: Trained, version: ModelVersion) -> None:
    """A graph writes nothing, and a writer that others made is not taken in."""
    name, folder = f"{trained.bundle.name}/{version.version}", trained.folder
    with pytest.raises(RegistryError, match="this model writes token by token"):
        export_version(trained.workspace, name, folder / "made.csv", folder / "exported")
    assert not (folder / "exported").exists()
    with pytest.raises(RecipeError, match="no model for text generation can be adopted"):
        adopt(trained.workspace, load_recipe(folder / "recipe.yaml"), name, "it is ours")


def test_rows_without_a_text_to_write_are_set_aside(tmp_path: Path) -> None:
    """Too many of them refuse the data; a few lie in quarantine, and white space around a label is no part of it."""
    write_writer(tmp_path / "checkpoint", "gpt2")
    write_writer_project(tmp_path, tmp_path / "checkpoint")
    header, *lines = (tmp_path / "made.csv").read_text().splitlines()
    few = [f"{line.partition(',')[0]},{'' if number < 5 else ' so it is '}" for number, line in enumerate(lines)]
    (tmp_path / "made.csv").write_text("\n".join([header, *few]) + "\n")
    workspace = Workspace.open(Settings(home=tmp_path / "home"))
    manifest = resolve_run(tmp_path, workspace).manifest
    assert (manifest.counts.quarantined, manifest.counts.kept) == (5, len(lines) - 5)
    assert set(load_rows(workspace.store, manifest)["label"]) == {"so it is"}
    assert sum(manifest.side_rows.values()) == len(lines) - 5
    (tmp_path / "made.csv").write_text("\n".join([header, *(f"{line.partition(',')[0]}," for line in lines)]) + "\n")
    with pytest.raises(DataError, match="are set aside"):
        resolve_run(tmp_path, workspace)


def test_a_bundle_writes_where_graftwork_is_not_installed(trained: Trained, tmp_path: Path) -> None:
    """Its own code loads it, and the texts are the same."""
    import importlib
    import shutil
    import sys

    from graftwork.registry.serving_model import import_code

    shutil.copytree(trained.workspace.store.root / trained.bundle.key / MODEL, tmp_path / "model")
    module = import_code(tmp_path / "model")
    texts = ["the long film was good and warm", "the new movie was weak and dull"]
    np.testing.assert_array_equal(
        module.load(tmp_path / "model").probabilities(texts), trained.served.probabilities(texts)
    )
    assert importlib.import_module(module.__name__) is sys.modules[module.__name__]
