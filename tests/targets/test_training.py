"""What stages make of numbers and of several labels: solved, gone on from, and refused where a policy can't judge."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, r2_score
from tiny import resolve_run, write_checkpoint, write_labels_project, write_number_project

from graftwork.checkpoints.retrieve import open_checkpoint, retrieve_checkpoint
from graftwork.data.manifest import load_rows, open_manifest, validate_data
from graftwork.errors import RecipeError
from graftwork.models.catalog import FAMILIES
from graftwork.models.serving.model import load
from graftwork.policy import Guard, Policy
from graftwork.recipe import load_recipe
from graftwork.settings import Settings
from graftwork.training.bundle import MODEL
from graftwork.training.engine import load_model, run_stages
from graftwork.training.plan import plan_run
from graftwork.workspace import Workspace

Write = Callable[[Path, Path], None]
SOLVED = "stages=[{name: probe, train: head, solver: lbfgs}]"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(Settings(home=tmp_path / "home"))


def make(folder: Path, write: Write) -> None:
    write_checkpoint(folder / "checkpoint")
    write(folder, folder / "checkpoint")


@pytest.mark.parametrize("write", [write_number_project, write_labels_project])
def test_a_head_is_solved_for_what_is_learnt(write: Write, tmp_path: Path, workspace: Workspace) -> None:
    """Its score is scikit-learn's of what the bundle says of the validation rows, and nearly all can be told so."""
    make(tmp_path, write)
    run = resolve_run(tmp_path, workspace, SOLVED)
    bundle = run_stages(run, workspace, lambda _: None, lambda: False)
    rows = load_rows(workspace.store, run.manifest, sides=("validation",))
    labels = run.plan.target.learning.as_array(rows["label"])
    values = load(workspace.store.root / bundle.key / MODEL, "cpu").probabilities(rows["text"].tolist())
    is_number = run.plan.target.is_number
    expected = r2_score(labels, values) if is_number else f1_score(labels, values > 0.5, average="micro")
    assert bundle.stages[0].best.validation_accuracy == pytest.approx(expected, abs=1e-4)
    assert expected > 0.9


def test_a_run_goes_on_from_numbers_in_another_scale(tmp_path: Path, workspace: Workspace) -> None:
    """When rows land the training rows' mean and deviation move; what the champion says of a text stays what it was."""
    make(tmp_path, write_number_project)
    bundle = run_stages(resolve_run(tmp_path, workspace, SOLVED), workspace, lambda _: None, lambda: False)
    texts = ["the long film was good and great", "the new movie was dull and bad"]
    before = load(workspace.store.root / bundle.key / MODEL, "cpu").probabilities(texts)
    with (tmp_path / "made.csv").open("a") as stream:
        stream.writelines(f"the old plot was {word} and {word},{500 + number}\n" for number, word in enumerate(texts))
        stream.writelines(f"the acting of number {number} was warm,{300 + number}\n" for number in range(60))
    run = resolve_run(tmp_path, workspace, SOLVED, "start.from=champion", before=bundle)
    assert run.plan.start.warm is not None
    assert run.plan.scale is not None
    mean, std = run.plan.scale
    assert std > 1.2 * np.std(load_rows(workspace.store, open_manifest(workspace.store, bundle.manifest))["label"])
    model = load_model(run.plan, open_checkpoint(workspace.store, run.lock), workspace.store, []).eval()
    encoder = load(workspace.store.root / bundle.key / MODEL, "cpu").encoder
    rows = encoder.encode(texts)
    with torch.inference_mode():
        after = model(*encoder.pad(rows, max(map(len, rows)))).double().numpy() * std + mean
    np.testing.assert_allclose(after, before, rtol=1e-4)


@pytest.mark.parametrize("policy", [Policy(), Policy(metric="mae", guards=(Guard(metric="log_loss", max_drop=0.1),))])
def test_a_policy_that_judges_by_what_is_not_measured_is_refused(
    policy: Policy, tmp_path: Path, workspace: Workspace
) -> None:
    """Before anything is trained, and it is said what there is."""
    make(tmp_path, write_number_project)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    lock = retrieve_checkpoint(recipe, workspace, FAMILIES)
    with pytest.raises(RecipeError, match=r"is not measured of regression.*mae, rmse, r2, spearman"):
        plan_run(recipe, validate_data(recipe, workspace), lock, policy, workspace.store)
