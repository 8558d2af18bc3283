"""A run on a tiny checkpoint and made-up reviews, resolved and ready to be trained."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from graftwork.checkpoints.retrieve import retrieve_checkpoint
from graftwork.data.manifest import validate_data
from graftwork.models.catalog import FAMILIES
from graftwork.policy import Policy
from graftwork.recipe import load_recipe
from graftwork.settings import Settings
from graftwork.training.plan import ResolvedRun, plan_run
from graftwork.workspace import Workspace

RECIPE = """
name: tiny
problem_type: text-classification
data:
  sources: [{{name: made, path: made.csv}}]
  label: {{from: label, classes: ["no", "yes"]}}
  split: {{holdout: 0.2, validation: 0.2, seed: 1, by: [group]}}
input: {{text: text, max_tokens: 16}}
checkpoint: {{source: "file://{checkpoint}", licences: [apache-2.0]}}
train: {{batch_tokens: 64, precision: float32}}
stages:
  - {{name: head, train: [head], epochs: 1, learning_rate: 1e-2}}
  - {{name: top, train: [head, "top:1"], epochs: 2, learning_rate: 1e-3}}
policy: policy.yaml
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A fresh home, also for the processes that are started."""
    monkeypatch.setenv("GRAFTWORK_HOME", str(tmp_path / "home"))
    return Workspace.open(Settings(home=tmp_path / "home"))


@pytest.fixture
def resolve(tmp_path: Path, workspace: Workspace, tiny_checkpoint: Path) -> Callable[..., ResolvedRun]:
    """Resolves the tiny recipe, with `--set` overrides, into a run that is in the store."""
    words = "good great bright clever warm long short old new dark cold dull weak bad".split()
    lines = [
        f"the {a} film was {b} and {c},{'yes' if (i + j + k) % 2 else 'no'}"
        for (i, a), (j, b), (k, c) in product(enumerate(words[:6]), enumerate(words), enumerate(words[:2]))
    ]
    (tmp_path / "made.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    (tmp_path / "policy.yaml").write_text("minimum_rows: 10\n")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(checkpoint=tiny_checkpoint))

    def resolve(*overrides: str) -> ResolvedRun:
        recipe = load_recipe(tmp_path / "recipe.yaml", overrides)
        manifest = validate_data(recipe, workspace)
        lock = retrieve_checkpoint(recipe, workspace, FAMILIES)
        return plan_run(recipe, manifest, lock, Policy(), workspace.store)

    return resolve
