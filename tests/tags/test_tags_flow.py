"""Tags of words through the whole chain, by several families: trained, stopped, judged, registered, predicting."""

import csv
import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file
from tiny import TAGS, facts, forget_trained, resolve_run, train_with_stops, write_checkpoint, write_tags_project
from torture import torture
from trained import Trained, train

from flows.console import how_read
from graftwork.data.manifest import load_rows
from graftwork.evaluation.predictions import open_predictions
from graftwork.export import export_version
from graftwork.models.serving.words import first_pieces
from graftwork.registry.client import reach_mlflow
from graftwork.registry.versions import ModelVersion
from graftwork.report import model_card, page
from graftwork.scoring import score_file
from graftwork.settings import Settings
from graftwork.training.engine import run_stages
from graftwork.training.plan import ResolvedRun
from graftwork.training.reading import measure_reading
from graftwork.workspace import Workspace

FAMILIES = ("bert", "gpt2", "deberta-v2")
HEAD = "{name: head, train: head, epochs: 1, learning_rate: 1e-2}"
TOP = '{name: top, train: [head, "top:1"], epochs: 4, learning_rate: 3e-3, head_multiplier: 3}'
LORA = "{name: lora, train: [head, lora], epochs: 1, learning_rate: 3e-3}"
STAGES = f"stages=[{HEAD}, {TOP}, {LORA}]"


# The others take their time, and are told by the same words.
PARAMETERS = [FAMILIES[0], *(pytest.param(name, marks=pytest.mark.e2e) for name in FAMILIES[1:])]


@pytest.fixture(scope="module", params=PARAMETERS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp(request.param)
    write_checkpoint(folder / "checkpoint", request.param)
    write_tags_project(folder, folder / "checkpoint")
    return train(folder, STAGES)


@pytest.fixture(scope="module")
def version(trained: Trained) -> ModelVersion:
    """The model, registered."""
    return trained.register()


def test_what_is_learnt_beats_what_reads_nothing(trained: Trained) -> None:
    """By entities, word by word, on rows that are counted as rows."""
    evaluation, verdict = trained.evaluate(), trained.judge()
    rows = load_rows(trained.workspace.store, trained.run.manifest, sides=("holdout",))
    words = sum(len(text.split()) for text in rows["text"])
    (compared,) = verdict.comparisons
    assert (verdict.outcome, compared.mid_p) == ("promote", None)
    assert evaluation.rows == compared.rows == evaluation.slices[0].rows == len(rows)
    assert evaluation.groups == compared.groups == len(rows)
    assert sum(each.support for each in evaluation.classes) == words
    assert len(open_predictions(trained.workspace.store, evaluation.predictions["candidate"])) == words
    assert all(each.keys() == evaluation.metrics.keys() for each in evaluation.baselines.values())
    assert evaluation.baselines["word-features"]["entity_f1"].value > 0.9


def test_a_word_that_is_cut_is_wrong(trained: Trained) -> None:
    """Whatever its tag is; of the others nothing is lost."""
    evaluation = trained.evaluate()
    found = open_predictions(trained.workspace.store, evaluation.predictions["candidate"])
    values = found.filter(regex=r"^p_\d+$").to_numpy()
    rows = load_rows(trained.workspace.store, trained.run.manifest, sides=("holdout",))
    cut = sum(int((places < 0).sum()) for places in first_pieces(trained.served.encoder, list(rows["text"])))
    assert (values.sum(axis=1) == 0).sum() == cut > 0
    assert evaluation.metrics["word_accuracy"].value <= 1 - cut / len(found)
    reading = measure_reading(trained.workspace.store, trained.run)
    assert reading is not None
    assert (reading.sides["holdout"].unread, reading.sides["holdout"].words) == (cut, len(found))


def test_what_is_frozen_stays(trained: Trained) -> None:
    """The body through the first stage; all below the top block through the second; then adapters change each block."""
    head, top, lora = (_weights(trained, stage) for stage in range(3))
    moved = {name.split(".")[0] for name in head if not torch.equal(head[name], top[name])}
    assert moved == {"body", "head"}
    (block,) = (group for group in trained.run.plan.groups if group.name == "block.2")
    below = [name for name in head if not name.startswith((*block.prefixes, "head."))]
    assert all(torch.equal(head[name], top[name]) or _is_neck(trained, name) for name in below)
    assert any(not torch.equal(top[name], lora[name]) for name in top if name.startswith("body."))


def _is_neck(trained: Trained, name: str) -> bool:
    return any(name.startswith(group.prefixes) for group in trained.run.plan.groups if group.name == "neck")


def test_stages_run_on_kept_states(trained: Trained) -> None:
    """A frozen body gives each token's state once, since no pooled one would do."""
    head, top, _ = trained.run.plan.stages
    assert (head.is_pooled, head.is_cut, top.is_cut) == (False, True, True)


def test_stopped_anywhere_it_ends_with_the_same_bits(trained: Trained) -> None:
    """Stopped in the middle of each stage and gone on with, weights and metrics are those of an unbroken run."""
    forget_trained(trained.run, trained.workspace)
    again = train_with_stops(trained.run, trained.workspace, 5, 40, 60)
    assert facts(again) == facts(trained.bundle)


def test_kept_states_change_nothing(trained: Trained) -> None:
    """Without the cache the same model is learnt, but for rounding."""
    run = resolve_run(trained.folder, trained.workspace, STAGES, "train.prefix_cache=false")
    bundle = run_stages(run, trained.workspace, lambda _: None, lambda: False)
    assert not any(stage.is_cut for stage in run.plan.stages)
    for ours, theirs in zip(trained.bundle.stages[:1], bundle.stages[:1], strict=True):
        assert ours.best.validation_loss == pytest.approx(theirs.best.validation_loss, rel=1e-3)


def test_registered_and_predicting_it_gives_the_same(trained: Trained, version: ModelVersion) -> None:
    """MLflow, and the batch prediction as CSV and JSON lines, tell what the bundle tells."""
    import mlflow
    from mlflow.pyfunc.scoring_server import predictions_to_json

    texts = pd.read_csv(trained.folder / "made.csv")["text"].tolist()
    expected = trained.served.answer(texts)
    name = f"{trained.bundle.name}/{version.version}"
    for suffix in ("csv", "jsonl", "parquet"):
        output = trained.folder / f"out.{suffix}"
        score_file(trained.workspace, name, trained.folder / "made.csv", output, prefix="found_")
        told = {column: [row[f"found_{column}"] for row in _read(output)] for column in expected}
        assert told["tags"] == expected["tags"]
        assert [[each["type"], each["start"]] for row in told["entities"] for each in row] == [
            [each["type"], each["start"]] for row in expected["entities"] for each in row
        ]
    _expect_the_same_of_lists(trained, name, texts, expected["tags"])
    with reach_mlflow(trained.workspace.settings):
        answered = mlflow.pyfunc.load_model(version.uri).predict(pd.DataFrame({"text": texts}))
        signature = mlflow.models.get_model_info(version.uri).signature.outputs.input_names()
    assert list(answered) == signature == ["tags", "scores", "entities"]
    assert answered["tags"].tolist() == expected["tags"]
    over_http = StringIO()
    predictions_to_json(answered, over_http)
    assert [row["tags"] for row in json.loads(over_http.getvalue())["predictions"]] == expected["tags"]
    for text, tags, entities in zip(texts, expected["tags"], expected["entities"], strict=True):
        assert len(tags) == len(text.split())
        assert set(tags) <= {*TAGS, None}
        assert all(text[each["start"] : each["end"]].split() for each in entities)
    _expect_report(trained, version)


def _expect_the_same_of_lists(trained: Trained, name: str, texts: list[str], tags: list[Any]) -> None:
    """Whether words come with blanks between or one by one."""
    rows = [{"text": text.split(), "tags": [0]} for text in texts]
    parquet.write_table(pyarrow.Table.from_pylist(rows), trained.folder / "lists.parquet")
    (trained.folder / "lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for suffix in ("parquet", "jsonl"):
        output = trained.folder / f"out-lists.{suffix}"
        score_file(trained.workspace, name, trained.folder / f"lists.{suffix}", output, prefix="found_")
        assert [row["found_tags"] for row in _read(output)] == tags


def _weights(trained: Trained, stage: int) -> dict[str, torch.Tensor]:
    """Those that a stage left."""
    return load_file(trained.workspace.store.root / trained.bundle.stages[stage].key / "model.safetensors")


def _read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as stream:
        return [
            {name: json.loads(cell) if name.startswith("found_") else cell for name, cell in row.items()}
            for row in csv.DictReader(stream)
        ]


def _expect_report(trained: Trained, version: ModelVersion) -> None:
    """The page and the card show the metrics of what was learnt, and each tag."""
    shown = trained.tell(version)
    for text in (page.render(shown), model_card.render(shown)):
        assert "entity F1" in text
        assert "B-VIEW" in text
    assert "words not read" in page.render(shown)
    assert "none pooling" not in page.render(shown)
    assert how_read(trained.run.plan) == "a state a word"
    assert "Brier" not in model_card.render(shown), "it was not measured"
    assert "a word that it does not read gets none" in model_card.render(shown)


@pytest.mark.e2e
def test_its_graph_gives_the_same(trained: Trained, version: ModelVersion) -> None:
    """What comes out of ONNX is each token's probabilities, for any number of rows of any length."""
    name = f"{trained.bundle.name}/{version.version}"
    exported = export_version(trained.workspace, name, trained.folder / "made.csv", trained.folder / "exported")
    assert exported.difference < 1e-4
    assert np.isfinite(exported.difference)


@pytest.mark.e2e
def test_killed_and_resumed_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Each family at least once, each attempt a process of its own."""
    home, runs = tmp_path / "home", dict[str, ResolvedRun]()
    workspace = Workspace.open(Settings(home=home))
    for architecture in FAMILIES:
        folder = tmp_path / architecture
        write_checkpoint(folder / "checkpoint", architecture)
        write_tags_project(folder, folder / "checkpoint")
        (folder / "recipe.yaml").write_text((folder / "recipe.yaml").read_text().replace("tiny-tags", architecture))
        runs[architecture] = resolve_run(folder, workspace, STAGES)
    tally = torture(runs, home, 2 * len(FAMILIES), seed=20261128)
    assert tally.killed.keys() == set(FAMILIES)
    assert (tally.different, tally.torn) == ([], 0)
