"""Warm retraining: from the model before, on what is new and some of what is known, and as exact as any training."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from tiny import facts, land_reviews, train_until

from graftwork.data import replay
from graftwork.data.manifest import load_rows, open_manifest
from graftwork.errors import Paused, RecipeError, TrainingError
from graftwork.models.serving.config import WEIGHTS
from graftwork.models.serving.model import load
from graftwork.storage import Store
from graftwork.training import launch
from graftwork.training.bundle import ADAPTERS, MODEL, ServingBundle, find_bundle
from graftwork.training.engine import run_stages
from graftwork.training.plan import ResolvedRun
from graftwork.workspace import Workspace

CHAMPION = "start.from=champion"
Resolve = Callable[..., ResolvedRun]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small landing is one of fewer than ten rows."""
    monkeypatch.setattr(replay, "LEAST_REPLAYED", 10)


def count_rows(workspace: Workspace, bundle: ServingBundle, side: str) -> int:
    """How many rows of that side the bundle's data had."""
    return len(load_rows(workspace.store, open_manifest(workspace.store, bundle.manifest), sides=(side,)))


def weights(bundle: ServingBundle, workspace: Workspace) -> dict[str, Any]:
    return load_file(workspace.store.root / bundle.key / MODEL / WEIGHTS)


def test_it_goes_on_from_the_model_before(resolve: Resolve, workspace: Workspace, base: ServingBundle) -> None:
    """Only the last stage, from those weights: what it freezes is the model's to the bit. The bundle says so."""
    run = resolve(CHAMPION, "stages.1.train=head", before=base)
    bundle = train_until(run, workspace)
    assert [stage.stage for stage in bundle.stages] == ["top"]
    assert bundle.start == run.plan.start
    assert (bundle.start.generation, base.start.generation) == (1, 0)
    before, after = weights(base, workspace), weights(bundle, workspace)
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed == {"head.1.weight", "head.1.bias"}


def test_the_model_before_decides_the_result(resolve: Resolve, workspace: Workspace, base: ServingBundle) -> None:
    """Its digest, its data and the replay are in every key; who asked for it, and how often, is not."""
    plan, warm = resolve(CHAMPION, before=base).plan, resolve(CHAMPION, before=base).plan.start.warm
    assert warm is not None
    keys = {
        resolve(CHAMPION).plan.bundle_key,
        plan.bundle_key,
        resolve(CHAMPION, before=replace(base, digest="0" * 64)).plan.bundle_key,
        resolve(CHAMPION, "start.replay=0.5", before=base).plan.bundle_key,
    }
    assert len(keys) == 4
    assert resolve(CHAMPION, before=replace(base, start=plan.start)).plan.stages == plan.stages


def test_it_is_the_same_recipe_warm_or_not(resolve: Resolve, base: ServingBundle) -> None:
    """So a retraining is judged as one, whichever weights it started from."""
    assert resolve(CHAMPION, before=base).plan.recipe_digest == resolve(CHAMPION).plan.recipe_digest
    assert resolve(CHAMPION, "start.scratch_every=3").plan.recipe_digest == resolve(CHAMPION).plan.recipe_digest
    assert resolve(CHAMPION).plan.bundle_key == resolve().plan.bundle_key


def test_the_cost_grows_with_what_is_new(resolve: Resolve, workspace: Workspace, tmp_path: Path) -> None:
    """After the same landing on three times the rows, it takes the steps that it takes on one time."""
    steps = {}
    for known in (120, 360):
        land_reviews(tmp_path, known)
        bundle = train_until(resolve(CHAMPION, "stages.1.epochs=1"), workspace)
        cold = bundle.stages[-1].epochs[-1].step
        land_reviews(tmp_path, known + 30)
        warm = train_until(resolve(CHAMPION, "stages.1.epochs=1", before=bundle), workspace)
        steps[known] = (cold, warm.stages[-1].epochs[-1].step)
    assert steps[360][0] > 2.5 * steps[120][0]
    assert abs(steps[360][1] - steps[120][1]) <= 4
    assert steps[360][1] < steps[360][0] / 4


def test_what_is_frozen_is_computed_for_new_rows_only(
    resolve: Resolve, workspace: Workspace, base: ServingBundle
) -> None:
    """Its lowest blocks are still the checkpoint's, so that what they give for known rows is there already."""
    run, events = resolve(CHAMPION, before=base), list[dict[str, Any]]()
    run_stages(run, workspace, events.append, lambda: False)
    (computed,) = {event["of"] for event in events if event["event"] == "prefix"}
    landed = sum(run.plan.rows[side] for side in ("train", "validation"))
    before = sum(count_rows(workspace, base, side) for side in ("train", "validation"))
    assert computed == landed - before


def test_stopped_again_and_again_it_ends_as_an_unbroken_one(
    resolve: Resolve, workspace: Workspace, base: ServingBundle, tmp_path: Path
) -> None:
    """The model before is loaded at each attempt, what was trained is put on top of it."""
    run = resolve(CHAMPION, before=base)
    other = replace(workspace, store=Store(shutil.copytree(workspace.store.root, tmp_path / "unbroken")))
    expected = facts(train_until(run, other))
    attempts = 0
    while find_bundle(workspace.store, run.plan.bundle_key) is None:
        attempts += 1
        try:
            bundle = train_until(run, workspace, stop_after=3)
        except Paused:
            continue
    assert attempts > 3
    assert facts(bundle) == expected


@pytest.mark.e2e
def test_killed_it_goes_on_where_it_was(
    resolve: Resolve, workspace: Workspace, base: ServingBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL in a process of its own, which knows nothing but the run's id."""
    monkeypatch.setattr(replay, "LEAST_REPLAYED", 200)  # as it is in the process
    run = resolve(CHAMPION, before=base)
    other = Store(shutil.copytree(workspace.store.root, tmp_path / "unbroken"))
    expected = facts(train_until(run, replace(workspace, store=other)))
    monkeypatch.setenv("GRAFTWORK_SAVE_SHARE", "1000")  # after every step
    monkeypatch.setenv("GRAFTWORK_FAULT", "training.step:5")
    with pytest.raises(TrainingError, match="SIGKILL"):
        launch.train_stages(run.run_id, workspace.store, lambda event: None)
    monkeypatch.delenv("GRAFTWORK_FAULT")
    events: list[dict[str, Any]] = []
    bundle = launch.train_stages(run.run_id, workspace.store, events.append)
    assert [event["step"] for event in events if event["event"] == "resumed"] == [4]
    assert facts(bundle) == expected


@pytest.mark.parametrize("kind", ["gone", "another"])
def test_without_its_model_it_does_not_start(
    resolve: Resolve, workspace: Workspace, base: ServingBundle, kind: str
) -> None:
    """Neither from nothing nor from other bits that lie in the same place."""
    if kind == "gone":
        run = resolve(CHAMPION, before=base)
        workspace.store.remove(base.key)
    else:
        run = resolve(CHAMPION, before=replace(base, digest="0" * 64))
    with pytest.raises(TrainingError, match=r"bundle/.*the model that this run starts from, version 1, is not in the"):
        train_until(run, workspace)


def test_stages_of_its_own(resolve: Resolve, base: ServingBundle) -> None:
    """They are used when it is warm, checked in any case, and their names decide nothing."""
    own = "start.stages=[{name: a, train: head, epochs: 3, learning_rate: 0.001}]"
    cold, warm = resolve(CHAMPION, own).plan, resolve(CHAMPION, own, before=base).plan
    assert [(stage.name, stage.epochs) for stage in warm.stages] == [("a", 3)]
    assert [stage.name for stage in cold.stages] == ["head", "top"]
    renamed = resolve(CHAMPION, own.replace("name: a", "name: b"), before=base).plan
    assert (renamed.bundle_key, renamed.recipe_digest) == (warm.bundle_key, warm.recipe_digest)
    for before in (None, base):
        with pytest.raises(RecipeError, match=r"start\.stages\.0\.train: 'top:9' names nothing to train"):
            resolve(CHAMPION, own.replace("train: head", "train: top:9"), before=before)


def test_stages_with_adapters_and_augmentation(resolve: Resolve, workspace: Workspace, base: ServingBundle) -> None:
    """Adapters name the model before as what they stand beside; words are dropped of the rows that are trained on."""
    own = "{name: a, train: [head, lora], epochs: 1, learning_rate: 0.001, augment: {word_dropout: 0.3}}"
    bundle = train_until(resolve(CHAMPION, f"start.stages=[{own}]", before=base), workspace)
    (config,) = (workspace.store.root / bundle.key / ADAPTERS).rglob("adapter_config.json")
    assert json.loads(config.read_text())["base_model_name_or_path"] == f"graftwork://{base.key}"


@pytest.mark.e2e
def test_ten_landings_end_where_training_from_scratch_does(
    resolve: Resolve, workspace: Workspace, tmp_path: Path
) -> None:
    """On reviews that a tiny model can learn: within three points of accuracy on the holdout, and at less cost."""
    recipe = (CHAMPION, "stages.0.epochs=4", "stages.1.learning_rate=3e-3", "stages.1.epochs=4")
    land_reviews(tmp_path, 350)
    bundle, steps = train_until(resolve(*recipe), workspace), list[int]()
    for landed in range(375, 601, 25):
        land_reviews(tmp_path, landed)
        bundle = train_until(resolve(*recipe, before=bundle), workspace)
        steps.append(bundle.stages[-1].epochs[-1].step)
    assert (bundle.start.generation, len(steps)) == (10, 10)
    run = resolve(*recipe)
    scratch = train_until(run, workspace)
    holdout = load_rows(workspace.store, run.manifest, sides=("holdout",))
    models = [load(workspace.store.root / each.key / MODEL) for each in (bundle, scratch)]
    warm, cold = (
        np.mean(model.probabilities(list(holdout["text"])).argmax(axis=1) == holdout["label"]) for model in models
    )
    assert cold > 0.9
    assert warm > cold - 0.03
    assert max(steps) < sum(stage.epochs[-1].step for stage in scratch.stages) / 8
