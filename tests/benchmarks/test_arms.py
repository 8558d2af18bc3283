"""What is compared is the same work: the arms on a tiny model, in this process."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from benchmarks import ours, peers, retraining
from benchmarks.bert import BASE, write_project
from benchmarks.cells import Cell, Job
from benchmarks.experiments import GPU_SETTINGS, THOROUGH
from benchmarks.workload import DEMO, Size, Workload, both_reviews
from graftwork.evaluation.predictions import probabilities_of
from graftwork.models.serving.text import TextEncoder
from graftwork.recipe import load_recipe


@pytest.fixture
def job(workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job in a fresh home."""
    monkeypatch.setenv("GRAFTWORK_HOME", str(tmp_path / "home"))
    return Job(Cell("made", 1), workload)


def test_what_is_measured_is_what_the_preset_says() -> None:
    """So that a figure is one of stages that a recipe can ask for by name."""
    measured, preset = (load_recipe(DEMO, overrides) for overrides in (THOROUGH, ["stages=thorough"]))
    assert measured.stages == preset.stages


def test_both_predict_the_same_with_the_same_weights(job: Job) -> None:
    """Then only how they do it differs. A head that says one class to all would hide a difference."""
    mine, theirs = ours.predict(job, "float32").predictions, peers.predict(job).predictions
    assert mine["row_id"].tolist() == theirs["row_id"].tolist()
    np.testing.assert_allclose(probabilities_of(mine), probabilities_of(theirs), atol=2e-4)
    assert set(probabilities_of(mine).argmax(axis=1)) == {0, 1}


def test_both_train_some_steps(job: Job) -> None:
    """As many as are asked for, and no operation is counted for padding."""
    for found in (ours.train_steps(job), peers.train_steps(job, peers.PLAIN)):
        values = found.values
        assert values["steps"] == job.workload.size.steps
        assert values["rows"] < values["tokens"] <= values["positions"]
        assert found.precision == "float32"


def test_rows_and_tokens_are_those_that_were_trained_on(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batches that the loop padded, one for each step."""
    padded, pad = [], TextEncoder.pad
    monkeypatch.setattr(TextEncoder, "pad", lambda self, rows, length: padded.append(rows) or pad(self, rows, length))
    values, size = ours.train_steps(job).values, job.workload.size
    assert len(padded) == size.warmup + size.steps
    counted = [len(row) for rows in padded[size.warmup :] for row in rows]
    assert (values["rows"], values["tokens"]) == (len(counted), sum(counted))


@pytest.mark.e2e
def test_a_landing_is_trained_from_the_model_before(job: Job) -> None:
    """The demo's recipe in a project of its own: a landing costs its own rows and some that are known."""
    values = retraining.retrain(replace(job, workload=both_reviews(Size.limited(400)))).values
    assert len(values["landings_s"]) == 1
    assert 0 < values["landing_rows"] < values["rows"] < 400
    assert values["judged"] > 30


def test_trainings_judge_the_same_holdout(job: Job) -> None:
    mine, theirs = ours.train_recipe(job), peers.train_tuned(job, peers.TUNED)
    truth = ["row_id", "label", "group"]
    assert mine.predictions[truth].equals(theirs.predictions[truth])
    assert mine.values["rows"] == theirs.values["rows"]
    assert 0 <= theirs.values["validation_accuracy"] <= 1
    assert mine.values["seconds"] > mine.values["saving_s"] >= 0


def test_the_made_up_project_can_be_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its recipe resolves, and its texts have 8 to 128 tokens, every word one."""
    monkeypatch.setenv("GRAFTWORK_HOME", str(tmp_path / "home"))
    tiny = BASE | {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    write_project(tmp_path / "made", tiny, rows=100)
    workload = Workload(tmp_path / "made/recipe.yaml", size=Size(warmup=1, steps=1))
    run = workload.resolve()
    assert [stage.cut for stage in run.plan.stages] == [0]
    assert sum(run.plan.rows.values()) == 100
    texts = [line.partition(",")[0] for line in (tmp_path / "made/made.csv").read_text().splitlines()[1:]]
    lengths = [len(ids) for ids in AutoTokenizer.from_pretrained(tmp_path / "made/checkpoint")(texts)["input_ids"]]
    assert lengths == [len(text.split()) + 2 for text in texts]
    assert min(lengths) >= 8
    assert max(lengths) <= 128
    job = Job(Cell("made", 1), workload)
    for found in (ours.train_steps(job), peers.train_steps(job, GPU_SETTINGS)):
        assert found.precision == "bfloat16"
        assert found.values["steps"] == 1
