"""Every family through the whole chain: validated, trained, killed, judged, registered, predicting, served, exported.

One set of tests for all of them; a family that is added is tried without a word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from projects import ROOT
from safetensors.torch import load_file
from tiny import resolve_run, write_family_project
from torture import torture

from graftwork.checkpoints.retrieve import open_checkpoint
from graftwork.evaluation.baselines import FrozenEncoder
from graftwork.evaluation.evaluation import evaluate
from graftwork.export import export_version, extract_body
from graftwork.models.catalog import FAMILIES, family_of
from graftwork.models.serving.config import WEIGHTS
from graftwork.models.serving.model import load
from graftwork.policy import Policy
from graftwork.promotion.gate import judge
from graftwork.registry.client import reach_mlflow
from graftwork.registry.contenders import candidate, references
from graftwork.registry.registration import register_model
from graftwork.registry.tracking import log_training
from graftwork.scoring import score_file
from graftwork.settings import Settings
from graftwork.training.bundle import MODEL, ServingBundle
from graftwork.training.engine import load_model, run_stages
from graftwork.training.plan import ResolvedRun
from graftwork.workspace import Workspace

pytestmark = pytest.mark.e2e

KILLS = 2 * len(FAMILIES)


@dataclass(frozen=True)
class Trained:
    """A project whose model, of some family, is trained: the head, then the top block, too."""

    folder: Path
    workspace: Workspace
    run: ResolvedRun
    bundle: ServingBundle

    def weights(self, key: str) -> dict[str, torch.Tensor]:
        """Those that a stage left."""
        return load_file(self.workspace.store.root / key / WEIGHTS)


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp(request.param)
    write_family_project(folder, request.param)
    workspace = Workspace.open(Settings(home=folder / "home"))
    run = resolve_run(folder, workspace)
    return Trained(folder, workspace, run, run_stages(run, workspace, lambda event: None, lambda: False))


def test_what_is_frozen_stays_and_what_is_trained_moves(trained: Trained) -> None:
    """Tensor by tensor, to the bit, from the checkpoint over both stages."""
    family = family_of(trained.run.lock.architecture)
    before = {
        f"body.{family.name_of(name)}": tensor
        for path in open_checkpoint(trained.workspace.store, trained.run.lock).glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }
    head, top = (trained.weights(stage.key) for stage in trained.bundle.stages)
    assert {stage.name: set(stage.rates) for stage in trained.run.plan.stages} == {
        "head": {"head"},
        "top": {"block.2", *(["neck"] if family.neck else []), "head"} if family.blocks else {"embeddings", "head"},
    }
    for group in trained.run.plan.groups:
        names = [name for name in top if name.startswith(group.prefixes)]
        moved_first = [name for name in names if not _equal(name, before, head)]
        moved_then = [name for name in names if not _equal(name, head, top)]
        assert names
        assert moved_first == ([] if group.name != "head" else names)
        if group.name in trained.run.plan.stages[1].rates:
            assert moved_then, group.name
        else:
            assert moved_then == [], group.name


def _equal(name: str, before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> bool:
    return name in before and torch.equal(before[name], after[name])


def test_it_is_judged_registered_served_and_exported(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow, the batch prediction and the graph all give what the bundle gives, row by row."""
    import mlflow
    import pandas as pd

    workspace, bundle, run = trained.workspace, trained.bundle, trained.run
    evaluation = evaluate(
        workspace.store,
        candidate(workspace, bundle),
        references(workspace, bundle),
        run.manifest,
        encoder=FrozenEncoder(
            run.lock.key, run.plan.pooling, run.plan.max_tokens, run.plan.precision, run.plan.pixels, run.plan.sound
        ),
        baselines=("majority", "frozen-head"),
        samples=50,
    )
    verdict = judge(evaluation, Policy(minimum_rows=10, baselines=("majority",)), workspace.store, look=1)
    mlflow_run = log_training(workspace, run.run_id, run.plan, bundle.stages)
    version = register_model(workspace, mlflow_run, bundle, run.manifest, evaluation, verdict)

    (column,) = bundle.columns
    inputs = pd.read_csv(trained.folder / "made.csv")[column].tolist()
    if column == "file":
        inputs = [(trained.folder / name).read_bytes() for name in inputs]
    expected = load(workspace.store.root / bundle.key / MODEL).probabilities(inputs)
    output = trained.folder / "out.csv"
    score_file(workspace, "tiny/1", trained.folder / "made.csv", output, prefix="p_")
    columns = ["p_p_no", "p_p_yes"]
    np.testing.assert_allclose(pd.read_csv(output)[columns], expected, atol=1e-6)
    with reach_mlflow(workspace.settings):
        served = mlflow.pyfunc.load_model(version.uri)
        model = mlflow.MlflowClient().get_logged_model(version.model_id)
    assert model.model_type == f"{FAMILIES[run.lock.architecture].modality}-classification"
    np.testing.assert_allclose(served.predict(pd.DataFrame({column: inputs}))[["p_no", "p_yes"]], expected, atol=1e-6)
    exported = export_version(workspace, "tiny/1", trained.folder / "made.csv", trained.folder / "exported")
    assert exported.difference < 1e-5
    reads = "tokenizer.json" if column == "text" else "config.json"
    assert {"model.onnx", "serving.json", reads} <= {path.name for path in exported.folder.iterdir()}


def test_another_recipe_starts_from_its_body(trained: Trained) -> None:
    """Extracted after registration, it is a checkpoint like any other: retrieved, checked, planned, loaded."""
    done = extract_body(trained.workspace, "tiny/1", "mit", trained.folder / "body")
    changes = (f"checkpoint.source=file://{done.folder}", "checkpoint.licences=[mit]", "name=second")
    (trained.folder / "recipe.lock.json").unlink()  # of the first checkpoint
    run = resolve_run(trained.folder, trained.workspace, *changes)
    assert (run.lock.architecture, run.lock.licence) == (trained.run.lock.architecture, "mit")
    assert run.plan.pooling == trained.run.plan.pooling
    model = load_model(run.plan, open_checkpoint(trained.workspace.store, run.lock), trained.workspace.store, [])
    top = trained.weights(trained.bundle.stages[-1].key)
    found = model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in top.items() if name.startswith("body."))
    assert not torch.equal(found["head.1.weight"], top["head.1.weight"])


def test_killed_and_resumed_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Each family at least once, all stages trained, with its own process."""
    home, runs = tmp_path / "home", dict[str, ResolvedRun]()
    workspace = Workspace.open(Settings(home=home))
    for architecture in FAMILIES:
        folder = tmp_path / architecture
        write_family_project(folder, architecture)
        (folder / "recipe.yaml").write_text((folder / "recipe.yaml").read_text().replace("tiny", architecture))
        preset = "gradual" if FAMILIES[architecture].blocks else "full"
        runs[architecture] = resolve_run(folder, workspace, f"stages={{preset: {preset}, epochs: 2}}")
    tally = torture(runs, home, KILLS, seed=20261128)
    assert tally.killed.keys() == FAMILIES.keys()
    assert tally.different == []
    assert tally.torn == 0


def test_the_documents_say_what_is_checked() -> None:
    """The page of the families names this chain."""
    assert "tests/families" in (ROOT / "docs/families.md").read_text(encoding="utf-8")
