"""A head that is solved, and the head that a stage begins with."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from graftwork.data.manifest import load_rows
from graftwork.errors import Paused
from graftwork.evaluation.predictions import inputs_of
from graftwork.fingerprint import file_digest
from graftwork.models.serving.config import WEIGHTS
from graftwork.models.serving.model import load
from graftwork.training.bundle import MODEL, ServingBundle
from graftwork.training.engine import run_stages
from graftwork.training.head import start_head
from graftwork.training.plan import ResolvedRun
from graftwork.workspace import Workspace

Resolve = Callable[..., ResolvedRun]
SOLVED = "{name: probe, train: head, solver: lbfgs}"
HEAD = ("head.1.weight", "head.1.bias")


def train(run: ResolvedRun, workspace: Workspace, events: list[dict[str, Any]] | None = None) -> ServingBundle:
    return run_stages(run, workspace, ([] if events is None else events).append, lambda: False)


def head_after(bundle: ServingBundle, workspace: Workspace, stage: int) -> list[Tensor]:
    weights = load_file(workspace.store.root / bundle.stages[stage].key / WEIGHTS)
    return [weights[name] for name in HEAD]


def test_no_trained_head_beats_a_solved_one(resolve: Resolve, workspace: Workspace) -> None:
    """Without regularisation its loss is the lowest there is; one epoch is told, and the body stays as it was."""
    events: list[dict[str, Any]] = []
    run = resolve(f"stages=[{SOLVED[:-1]}, strength: 1000000.0}}]")
    solved = train(run, workspace, events)
    trained = train(resolve("stages=[{name: head, train: head, epochs: 40, learning_rate: 1e-2}]"), workspace)
    (result,) = solved.stages
    assert result.best.train_loss < min(epoch.train_loss for epoch in trained.stages[0].epochs)
    assert (len(result.epochs), result.best_epoch, result.steps) == (1, 1, ())
    assert [event["event"] for event in events] == ["stage", "prefix", "step", "epoch"]
    assert events[2].keys() == {"event", "stage", "step", "steps", "loss", "memory"}  # what a flow tells of any step
    frozen = load_file(workspace.store.root / run.lock.key / WEIGHTS)
    tensors = load_file(workspace.store.root / result.key / WEIGHTS)
    assert all(torch.equal(tensor, frozen[name[5:]]) for name, tensor in tensors.items() if name.startswith("body."))


def test_a_solved_head_is_the_same_again(resolve: Resolve, workspace: Workspace) -> None:
    """It is repeated after a kill, so it has to end with the same bits; also where nothing but vectors may be kept."""
    run = resolve(f"stages=[{SOLVED}]")
    file = workspace.store.root / train(run, workspace).stages[0].key / WEIGHTS
    before = file_digest(file)
    for key in (run.plan.stages[0].key, run.plan.bundle_key):
        workspace.store.remove(key)
    train(run, workspace)
    assert file_digest(file) == before
    assert resolve(f"stages=[{SOLVED}]", "train.prefix_cache=false").plan.stages == run.plan.stages


def test_it_stops_when_asked_to(resolve: Resolve, workspace: Workspace) -> None:
    """Between two strengths, with nothing left behind that would be in the way."""
    run, events = resolve(f"stages=[{SOLVED}]"), list[dict[str, Any]]()
    with pytest.raises(Paused, match="while stage 'probe' was solved"):
        run_stages(run, workspace, events.append, lambda: events[-1]["event"] == "step")
    assert train(run, workspace).stages[0].best_epoch == 1


def test_balanced_classes_are_solved_for(resolve: Resolve, workspace: Workspace) -> None:
    """Weights of classes reach the solver."""
    heads = [
        head_after(train(resolve(f"stages=[{SOLVED}]", f"stages.0.class_weights={kind}"), workspace), workspace, 0)
        for kind in ("none", "balanced")
    ]
    assert not torch.equal(heads[0][1], heads[1][1])


def test_a_stage_keeps_the_head_unless_it_is_told_otherwise(resolve: Resolve, workspace: Workspace) -> None:
    """At a rate that moves nothing, the head after a stage is the one it began with: kept, scaled, or drawn anew."""
    heads = {}
    for start in ("keep", "0.25", "fresh"):
        second = f"{{name: top, train: [head, top:1], epochs: 1, learning_rate: 1e-30, head_start: {start}}}"
        bundle = train(resolve(f"stages=[{SOLVED}, {second}]"), workspace)
        heads[start] = head_after(bundle, workspace, 1)
        solved = head_after(bundle, workspace, 0)
    assert all(torch.equal(*pair) for pair in zip(heads["keep"], solved, strict=True))
    assert all(torch.equal(part, 0.25 * whole) for part, whole in zip(heads["0.25"], solved, strict=True))
    assert heads["fresh"][0].std() == pytest.approx(1 / (3 * 32) ** 0.5, rel=0.3)  # torch's own for 32 inputs


def test_a_fresh_head_is_the_stage_s_own() -> None:
    """The same for the same seed and stage, another for another of either."""
    drawn = []
    for seed in ((7, 1), (7, 1), (7, 2), (8, 1)):
        head = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(4, 2))
        start_head(head, "fresh", seed)
        drawn.append(head[1].weight.detach())
    assert torch.equal(drawn[0], drawn[1])
    assert not any(torch.equal(drawn[0], other) for other in drawn[2:])


def test_a_named_strength_leaves_nothing_to_choose(resolve: Resolve, workspace: Workspace) -> None:
    """Scikit-learn's optimum at that strength, on standardised vectors; validation is measured and decides nothing."""
    events: list[dict[str, Any]] = []
    run = resolve("stages=[{name: probe, train: head, solver: lbfgs, strength: 0.5}]")
    bundle = train(run, workspace, events)
    assert [event["steps"] for event in events if event["event"] == "step"] == [1]
    served = load(workspace.store.root / bundle.key / MODEL)
    rows = load_rows(workspace.store, run.manifest, sides=("train",))
    vectors = StandardScaler().fit_transform(served.features(inputs_of(rows)))
    # It has one vector of weights for two classes, whose square is twice that of two opposite ones of half its length.
    oracle = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-7).fit(vectors, rows["label"])
    found = served.probabilities(inputs_of(rows))
    np.testing.assert_allclose(found, oracle.predict_proba(vectors), atol=1e-4)
