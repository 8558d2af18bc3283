"""Learning from rows beside the run's own: their labels by heads of their own, or their texts alone."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny import (
    REVIEWS,
    facts,
    resolve_run,
    train_until,
    train_with_stops,
    write_family_project,
    write_stripes,
    write_tones,
)
from torch import nn

from graftwork.checkpoints.retrieve import open_checkpoint
from graftwork.data.batches import copies_of, epoch_batches, sample_sets, sampled_rows
from graftwork.errors import RecipeError
from graftwork.models.multi_task import TaskHeads, attach_task_heads
from graftwork.models.prefix_cache import PrefixCache, arithmetic_of
from graftwork.models.serving.config import WEIGHTS
from graftwork.models.text import load_pretrained
from graftwork.storage import Store
from graftwork.targets.catalog import TARGETS
from graftwork.training.engine import Training, attach, encoder_of, load_model, serving_config
from graftwork.training.estimate import Trial
from graftwork.training.multi_task import Task, TaskCriterion, join_labels
from graftwork.training.plan import ResolvedRun
from graftwork.training.rows import open_rows
from graftwork.training.state import FollowingKeeper
from graftwork.workspace import Workspace

SHARED = "name: shared, train: [head, 'top:2'], epochs: 2, learning_rate: 1e-3"
TOPICS = "{name: topics, sources: [{name: topics, path: topics.csv}], label: {from: topic, classes: [film, movie]}}"
STARS = "{name: stars, sources: [{name: stars, path: stars.csv}], label: {from: stars}, learns: regression}"
BESIDE = "{name: texts, sources: [{name: texts, path: texts.csv}], columns: words}"
SETS = f"auxiliary=[{TOPICS}, {STARS}, {BESIDE}]"


@pytest.fixture
def resolve_beside(resolve: Callable[..., ResolvedRun], tmp_path: Path) -> Callable[..., ResolvedRun]:
    """Resolves a recipe with one stage and three auxiliary sets: of topics, of ratings, and of texts alone."""
    topics = [f"{text},{'film' if 'film' in text else 'movie'}" for text in REVIEWS[:160]]
    stars = [f"{text},{100 + 7 * text.count('good') - 3 * text.count('bad')}" for text in REVIEWS[160:400:2]]
    (tmp_path / "topics.csv").write_text("\n".join(["text,topic", *topics]))
    (tmp_path / "stars.csv").write_text("\n".join(["text,stars", *stars]))
    (tmp_path / "texts.csv").write_text("\n".join(["words", *REVIEWS[400:]]))
    return lambda stage, *rest: resolve(SETS, f"stages=[{{{stage}}}]", *rest)


def task(name: str, labels: Any, outputs: int) -> Task:
    return Task(TARGETS[name], outputs, np.asarray(labels))


TASKS = (
    task("classification", [0, 2, 1], 3),
    task("regression", np.float32([[0.5], [-1.25]]), 1),
    task("multi-label", np.float32([[1, 0], [1, 1], [0, 0]]), 2),
)


@pytest.mark.parametrize("variances", [None, [0.3, -0.7, 1.1]])
def test_a_row_costs_what_its_own_task_says(variances: list[float] | None) -> None:
    """Against torch's losses, row by row; with variances each counts as in the paper."""
    heads = TaskHeads([nn.Identity(), nn.Identity()], is_unsure=variances is not None)
    if variances is not None and heads.log_variances is not None:
        heads.log_variances.data = torch.tensor(variances)
    outputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.from_numpy(join_labels(TASKS))
    losses = [nn.functional.cross_entropy(outputs[i, :3], torch.tensor(TASKS[0].labels[i])) for i in range(3)]
    losses += [(outputs[3 + i, 3] - TASKS[1].labels[i, 0]) ** 2 for i in range(2)]
    losses += [
        nn.functional.binary_cross_entropy_with_logits(outputs[5 + i, 4:], torch.tensor(TASKS[2].labels[i]))
        for i in range(3)
    ]
    if variances is not None:
        of = [0, 0, 0, 1, 1, 2, 2, 2]
        losses = [loss * math.exp(-variances[t]) + variances[t] / 2 for loss, t in zip(losses, of, strict=True)]
    expected = torch.stack(losses).mean()
    found = TaskCriterion(TASKS, heads, label_smoothing=0.0)(outputs, labels)
    torch.testing.assert_close(found, expected)
    (theirs,), (ours,) = (torch.autograd.grad(loss, outputs, retain_graph=True) for loss in (expected, found))
    torch.testing.assert_close(ours, theirs)


def test_every_head_has_a_gradient_in_every_step() -> None:
    """Also where a batch has no row of its task, so that processes which share a batch add up the same tensors."""
    heads = TaskHeads([nn.Linear(4, 1), nn.Linear(4, 2)], is_unsure=True)
    states, own = torch.randn(3, 4), nn.Linear(4, 3)
    outputs = torch.cat([own(states), *(head(states) for head in heads.heads)], dim=1)
    TaskCriterion(TASKS, heads, 0.0)(outputs, torch.from_numpy(join_labels(TASKS))[:3]).backward()
    assert all(parameter.grad is not None for parameter in heads.parameters())
    assert not any(parameter.grad.any() for parameter in heads.heads.parameters())


@given(st.lists(st.integers(1, 300), min_size=1, max_size=4), st.floats(0, 1), st.integers(0, 50))
def test_an_epoch_has_rows_in_proportion_to_size_to_a_power(sizes: list[int], power: float, epoch: int) -> None:
    """Of the first set each once; of any other no row more than once oftener than another, and then as another copy."""
    rows, counts = sample_sets(sizes, power, (1, 2, epoch)), sampled_rows(sizes, power)
    assert len(set(rows.tolist())) == len(rows)
    copies = copies_of(sizes, power)
    starts = np.cumsum([0, *(size * times for size, times in zip(sizes, copies, strict=True))])
    for place, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        mine = rows[(rows >= starts[place]) & (rows < starts[place + 1])] - starts[place]
        often = np.bincount(mine % size, minlength=size)
        assert often.sum() == count == round(sizes[0] * (size / sizes[0]) ** power)
        assert often.max() - often.min() <= 1
    assert counts[0] == sizes[0]
    batches = epoch_batches([3] * int(starts[-1]), 12, (0, 0, epoch), rows=rows)
    assert sorted(row for batch in batches for row in batch) == sorted(rows.tolist())


def test_a_row_that_comes_again_in_an_epoch_is_another_version(
    resolve_beside: Callable[..., ResolvedRun], workspace: Workspace
) -> None:
    """Each copy hides its own words, so that going through a small set again shows something new."""
    stage = "name: a, objective: masked-language-modelling, train: all, epochs: 1, learning_rate: 1e-3"
    head = "name: head, train: head, epochs: 1, learning_rate: 1e-3"
    small = ("auxiliary.2.sources.0.path=small.csv",)
    (Path(workspace.settings.home).parent / "small.csv").write_text("\n".join(["words", *REVIEWS[400:410]]))
    run = resolve_beside(f"{stage}, auxiliary: texts, sampling: 0}}, {{{head}", *small)
    checkpoint = open_checkpoint(workspace.store, run.lock)
    model = load_model(run.plan, checkpoint, workspace.store, [])
    attach(run, 0, model, workspace.store)
    rows = open_rows(run, workspace.store, encoder_of(run.plan, checkpoint))
    training = Training(run, rows, model, PrefixCache(workspace.store, 0, arithmetic_of(model, run.plan.precision)))
    context = training.stage_context(0, FollowingKeeper(), lambda _: None, lambda: False)
    train, own, size = training.stage_data(context).train, run.plan.rows["train"], len(rows.auxiliary["texts"].inputs)
    copies = [train.version(own + place, context.epoch(1)).tolist() for place in range(0, 3 * size, size)]
    assert [row[0] for row in copies[0]] != [row[0] for row in copies[1]] or copies[1] != copies[2]
    assert len({str(copy) for copy in copies}) > 1


def test_what_is_left_over_is_drawn_anew_in_each_epoch() -> None:
    first, second = (set(sample_sets([100, 400], 0.0, (1, 2, epoch))) for epoch in (1, 2))
    assert len(first) == len(second) == 200
    assert first != second


@pytest.mark.parametrize("weighting", ["equal", "uncertainty"])
def test_a_stage_learns_tasks_and_leaves_a_classifier(
    resolve_beside: Callable[..., ResolvedRun], workspace: Workspace, weighting: str
) -> None:
    """Its parameters are counted before they are there; what is frozen is computed once; no other head is left."""
    run = resolve_beside(f"{SHARED}, auxiliary: [topics, stars], sampling: 0.5, weighting: {weighting}")
    (stage,) = run.plan.stages
    assert [*stage.rates] == ["block.1", "block.2", "head", "objective"]
    assert stage.cut == 1
    model = load_pretrained(workspace.store.root / run.lock.key, serving_config(run.plan), seed=0)
    attach_task_heads(model, serving_config(run.plan), [("film", "movie"), ("stars",)], weighting != "equal", seed=0)
    assert stage.own_parameters == sum(p.numel() for p in model.get_submodule("objective").parameters())
    bundle = train_until(run, workspace)
    assert not [name for name in load_file(workspace.store.root / stage.key / WEIGHTS) if "objective" in name]
    alone = train_until(resolve_beside(SHARED), workspace)
    assert alone.stages[0].weights_digest != bundle.stages[0].weights_digest


def test_what_is_proposed_to_save_memory_is_a_stage_that_may_be(resolve_beside: Callable[..., ResolvedRun]) -> None:
    """A head by itself would learn nothing from the others' rows, and is refused."""
    run = resolve_beside(f"{SHARED}, auxiliary: topics")
    (override,) = Trial(run.plan.batch_tokens, groups=1).overrides(run.plan, [run.plan.stages[0].key])
    changed = resolve_beside(f"{SHARED}, auxiliary: topics", override)
    assert [*changed.plan.stages[0].rates] == ["block.2", "head", "objective"]


@pytest.mark.parametrize(
    "stage",
    [
        f"{SHARED}, auxiliary: [topics, stars], sampling: 0.5, weighting: uncertainty, augment: {{word_dropout: 0.1}}",
        "name: lora, train: [lora, head], epochs: 2, learning_rate: 1e-3, auxiliary: topics",
        f"{SHARED}, auxiliary: [topics], adversary: {{epsilon: 0.1}}, average: {{ema: 0.9}}",
    ],
)
def test_stopped_and_gone_on_it_ends_with_the_same_bits(
    resolve_beside: Callable[..., ResolvedRun], workspace: Workspace, tmp_path: Path, stage: str
) -> None:
    """Which rows an epoch has, and in which order, is a function of the seed."""
    run = resolve_beside(stage)
    unbroken = replace(workspace, store=Store(shutil.copytree(workspace.store.root, tmp_path / "unbroken")))
    expected = facts(train_until(run, unbroken))
    assert facts(train_with_stops(run, workspace, 9)) == expected


def test_texts_alone_are_read_beside_those_of_the_run(
    resolve_beside: Callable[..., ResolvedRun], workspace: Workspace
) -> None:
    """Masked language modelling goes through them, too, labelled or not, and takes as many more steps."""
    hidden = "name: adapt, objective: masked-language-modelling, train: all, epochs: 1, learning_rate: 1e-3"
    last = "name: head, train: head, epochs: 1, learning_rate: 1e-3"
    steps = {}
    for beside in ("", ", auxiliary: texts", ", auxiliary: [texts, stars]"):
        run = resolve_beside(f"{hidden}{beside}}}, {{{last}")
        steps[beside] = train_until(run, workspace).stages[0].epochs[-1].step
    alone, texts, both = steps.values()
    assert alone < texts < both


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (f"{SHARED}, auxiliary: gone", "no auxiliary rows are called 'gone'"),
        (f"{SHARED}, auxiliary: texts", "auxiliary rows 'texts' have no label to learn"),
        (f"{SHARED}, sampling: 0.5", "sampling is of auxiliary rows"),
        (f"{SHARED}, auxiliary: [topics, topics]", "topics is there more than once"),
        (f"{SHARED}, auxiliary: topics, sampling: 1.5", "less than or equal to 1"),
        (f"{SHARED}, auxiliary: topics, class_weights: balanced", "class_weights is for a stage of one task"),
        ("name: head, train: head, epochs: 1, learning_rate: 1, auxiliary: topics", "trains just the head"),
        ("name: head, train: head, solver: lbfgs, auxiliary: topics", "takes no auxiliary|just the head"),
        (
            "name: p, objective: contrastive, train: all, epochs: 1, learning_rate: 1, auxiliary: topics",
            "objective: contrastive is for a stage of one task",
        ),
    ],
)
def test_what_can_t_be_meant_is_refused(resolve_beside: Callable[..., ResolvedRun], stage: str, message: str) -> None:
    """Before anything is spent."""
    with pytest.raises(RecipeError, match=message):
        resolve_beside(stage)


@pytest.mark.parametrize(
    ("family", "write", "stages"),
    [
        ("resnet", write_stripes, "{name: full, train: all, epochs: 1, learning_rate: 1e-3, auxiliary: more}"),
        (
            "wavenet",
            write_tones,
            "{name: listen, objective: autoregressive, train: all, epochs: 1, learning_rate: 1e-3, auxiliary: more},"
            " {name: head, train: head, epochs: 1, learning_rate: 1e-3}",
        ),
    ],
)
def test_pictures_and_sounds_beside_those_of_the_run_are_learnt_from(
    tmp_path: Path, workspace: Workspace, family: str, write: Callable[..., None], stages: str
) -> None:
    """They are kept in the store as the run's own, and what is there no longer can still be trained on."""
    write_family_project(tmp_path, family)
    write(tmp_path / "more", 20, first=500)
    more = "auxiliary=[{name: more, sources: [{name: more, path: more}], label: {from: folder, classes: [no, yes]}}]"
    alone = resolve_run(tmp_path, workspace, f"stages=[{stages.replace(', auxiliary: more', '')}]")
    run = resolve_run(tmp_path, workspace, more, "data.split.by=[group]", f"stages=[{stages}]")
    shutil.rmtree(tmp_path / "more")
    (facts_of_more,) = run.manifest.auxiliary
    assert facts_of_more.counts.kept > 0
    steps = [train_until(each, workspace).stages[0].epochs[-1].step for each in (alone, run)]
    assert steps[0] < steps[1]
