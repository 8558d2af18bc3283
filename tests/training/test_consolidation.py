"""Elastic weight consolidation and distillation: their figures by hand and by torch, and what becomes of a training."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import facts, resolve_run, train_until
from torch import nn

from graftwork.data import replay
from graftwork.errors import Paused, RecipeError, TrainingError
from graftwork.models.serving.model import load
from graftwork.storage import Store
from graftwork.training import start
from graftwork.training.bundle import MODEL, ServingBundle, find_bundle
from graftwork.training.consolidation import root_of_covariance, sum_fisher
from graftwork.training.distillation import TaughtCriterion, TaughtLabels
from graftwork.training.engine import run_stages
from graftwork.training.optimizer import Pull, add_pull
from graftwork.training.plan import ResolvedRun
from graftwork.training.stages import Distillation
from graftwork.training.start import Start, Teacher
from graftwork.workspace import Workspace

Resolve = Callable[..., ResolvedRun]
AGES = "long short new old very not".split()
CHAMPION = "start.from=champion"


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_root_of_the_covariance_of_answers(classes: int) -> None:
    """Its square is diag(p) - p p', with one vector less than classes; also where one class is nearly certain."""
    for heat in (0.1, 1.0, 20.0):
        logits = heat * torch.randn(classes, generator=torch.Generator().manual_seed(classes), dtype=torch.float64)
        chances, root = logits.softmax(0), root_of_covariance(logits)
        assert len(root) == classes - 1
        torch.testing.assert_close(root.T @ root, chances.diag() - chances.outer(chances), atol=1e-12, rtol=0)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_fisher_diagonal_of_a_linear_softmax_model(classes: int) -> None:
    """In closed form: of a weight the sum of x² p (1 - p), of a bias the sum of p (1 - p). A frozen one has none."""
    generator = torch.Generator().manual_seed(3)
    model = nn.Linear(5, classes).double()
    rows = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    chances = model(rows).softmax(1).detach()
    spread = chances * (1 - chances)
    inputs = [(row.unsqueeze(0), torch.ones(1, 1)) for row in rows]
    found = sum_fisher(model, lambda x, _mask: model(x), inputs, "float32")
    torch.testing.assert_close(found["weight"], spread.T @ rows.square(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found["bias"], spread.sum(0), atol=1e-6, rtol=1e-6)
    assert model.weight.grad is None
    model.weight.requires_grad_(False)
    assert sum_fisher(model, lambda x, _mask: model(x), inputs, "float32").keys() == {"bias"}


def test_the_pull_of_each_weight_by_hand() -> None:
    """Strength times worth times distance, on top of what is there."""
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0]]))
    model.weight.grad = torch.tensor([[0.5, 0.5]])
    add_pull(model, Pull(10.0, {"weight": torch.tensor([[0.0, 4.0]])}, {"weight": torch.tensor([[3.0, 0.1]])}))
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.5 + 30.0, 0.5 - 2.0]]))


LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.3, 0.1], [1.0, 1.0, 3.0]], dtype=torch.float64)
TAUGHT = torch.tensor([[1.0, -2.0], [0.5, 0.5], [0.0, 9.0]], dtype=torch.float64)


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)])
def test_the_loss_of_distillation_by_torch(weights: torch.Tensor | None) -> None:
    """Of classes that both know among themselves; a row of another class counts by its label alone."""
    labels = torch.tensor([0, 2, 1])
    criterion = TaughtCriterion(Distillation("t", (0, 2), 0.3, 2.0), weights, 0.1)
    expected = 0.0
    for row, label in enumerate(labels.tolist()):
        counted = 1.0 if weights is None else weights[label]
        plain = nn.functional.cross_entropy(LOGITS[row], labels[row], weights, reduction="none", label_smoothing=0.1)
        if label != 1:
            ours, theirs = (LOGITS[row, [0, 2]] / 2).log_softmax(0), (TAUGHT[row] / 2).softmax(0)
            apart = nn.functional.kl_div(ours, theirs, reduction="sum")
            plain = 0.7 * plain + 0.3 * 4 * counted * apart
        expected += plain
    expected /= 3 if weights is None else weights[labels].sum()
    torch.testing.assert_close(criterion(LOGITS, TaughtLabels(labels, TAUGHT)), expected)


def test_one_row_by_hand() -> None:
    """Ours even, theirs nine to one at T = 1: KL = log 2 - H(0.9); with all the weight the label says nothing."""
    criterion = TaughtCriterion(Distillation("t", (0, 1), 1.0, 1.0), None, 0.0)
    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    taught = TaughtLabels(torch.tensor([1]), torch.tensor([[math.log(9), 0.0]]))
    assert criterion(torch.zeros(1, 2), taught).item() == pytest.approx(math.log(2) - entropy)


def teacher_of(bundle: ServingBundle, asked: str = "champion") -> Teacher:
    return Teacher(asked, bundle.name, 1, bundle.digest, bundle.key, bundle.manifest, bundle.classes)


def forgotten(bundle: ServingBundle, base: ServingBundle, texts: list[str], workspace: Workspace) -> float:
    """The sum of squared distances from the weights of `base`, each by what it is worth there to these texts."""
    before, after = (load(workspace.store.root / each.key / MODEL) for each in (base, bundle))
    ids = (before.encoder.pad([row], len(row)) for row in before.encoder.encode(texts))
    worth, ours = sum_fisher(before.model, before.model.forward, ids, "float32"), after.model.state_dict()
    return sum(
        (worth[name] * (ours[name] - old).square()).sum().item() for name, old in before.model.named_parameters()
    )


@pytest.mark.parametrize("trained", ["all", "[head, 'top:1']", "head"])
def test_the_stronger_it_holds_the_nearer_it_stays(
    resolve: Resolve, workspace: Workspace, base: ServingBundle, tmp_path: Path, trained: str
) -> None:
    """With rows through the whole model, from the cache, and as pooled vectors; at no strength it is no other run."""
    options = (CHAMPION, f"stages.1.train={trained}", "stages.1.clip_norm=1e9", "stages.1.keep_epoch=last")
    plain = resolve(*options, before=base)
    texts = [line.split(",")[0] for line in (tmp_path / "made.csv").read_text().splitlines()[1:40]]
    distances = [forgotten(train_until(plain, workspace), base, texts, workspace)]
    for ewc in (1e3, 1e6):
        run = resolve(*options, f"stages.1.ewc={ewc}", before=base)
        assert run.plan.stages[0].key != plain.plan.stages[0].key
        distances.append(forgotten(train_until(run, workspace), base, texts, workspace))
    assert distances[0] > 1.5 * distances[1] > 1.5 * distances[2]


def test_from_the_checkpoint_there_is_nothing_to_hold(resolve: Resolve) -> None:
    """A first run is the run that it is without it, and a recipe that never starts from a champion is refused."""
    plan = resolve(CHAMPION, "stages.1.ewc=10.0").plan
    assert plan.stages == resolve(CHAMPION).plan.stages
    with pytest.raises(RecipeError, match=r"stage 'top': ewc holds what a champion knows: say `start: \{from: champ"):
        resolve("stages.1.ewc=10.0")


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("{name: a, train: lora, epochs: 1, learning_rate: 1, ewc: 1}", "ewc holds the body"),
        ("{name: a, train: all, epochs: 1, learning_rate: 1, ewc: 1, head_start: fresh}", "ewc holds the head, too"),
        ("{name: a, train: head, solver: lbfgs, ewc: 1}", "takes no ewc"),
        ("{name: a, train: all, objective: contrastive, epochs: 1, learning_rate: 1, ewc: 1}", "takes no ewc"),
        ("{name: a, train: head, solver: lbfgs, distil: {from: champion}}", "takes no distil"),
        ("{name: a, train: all, epochs: 1, learning_rate: 1, distil: {from: somebody}}", "distil.from"),
        ("{name: a, train: all, epochs: 1, learning_rate: 1, distil: {from: m@best, weight: 0}}", "distil.weight"),
    ],
)
def test_what_can_t_be_meant_is_refused(resolve: Resolve, stage: str, message: str) -> None:
    """Before anything is spent."""
    with pytest.raises(RecipeError, match=message):
        resolve(CHAMPION, f"stages.0={stage}")


def taught_run(
    folder: Path, workspace: Workspace, base: ServingBundle, *overrides: str, is_warm: bool = False
) -> ResolvedRun:
    """The tiny recipe with `base` as the teacher of its second stage."""
    teachers = (teacher_of(base),)
    return resolve_run(folder, workspace, *overrides, before=base if is_warm else None, teachers=teachers)


DISTIL = "stages.1.distil={from: champion, weight: 0.9, temperature: 3.0}"


def test_a_student_comes_nearer_to_its_teacher(workspace: Workspace, base: ServingBundle, tmp_path: Path) -> None:
    """Of two students that differ by it alone, the taught one's answers are closer to the teacher's."""
    more = ("train.seed=5", "stages.1.epochs=6", "stages.1.learning_rate=5e-3")
    runs = [taught_run(tmp_path, workspace, base, *more), taught_run(tmp_path, workspace, base, *more, DISTIL)]
    plain, taught = (run.plan.stages for run in runs)
    assert (plain[0] == taught[0], plain[1].key == taught[1].key) == (True, False)
    texts = [line.split(",")[0] for line in (tmp_path / "made.csv").read_text().splitlines()[1:]]
    answers = [
        torch.from_numpy(load(workspace.store.root / bundle.key / MODEL).probabilities(texts))
        for bundle in (base, *(train_until(run, workspace) for run in runs))
    ]
    apart = [(answers[0] * (answers[0] / each).log()).sum(1).mean().item() for each in answers[1:]]
    assert apart[0] > 1.5 * apart[1], apart


def test_a_teacher_is_asked_once(workspace: Workspace, base: ServingBundle, tmp_path: Path) -> None:
    """Its answers lie in the store: a second stage, and a second run, compute none."""
    run, events = taught_run(tmp_path, workspace, base, DISTIL, "train.prefix_cache=false"), list[dict[str, Any]]()
    run_stages(run, workspace, events.append, lambda: False)
    assert {event["of"] for event in events if event["event"] == "prefix"} == {run.plan.rows["train"]}
    events.clear()
    again = taught_run(tmp_path, workspace, base, DISTIL, "train.prefix_cache=false", "stages.1.epochs=1")
    run_stages(again, workspace, events.append, lambda: False)
    assert {event["event"] for event in events} >= {"reused", "epoch"}
    assert not [event for event in events if event["event"] == "prefix"]


def test_who_teaches_decides_the_result(workspace: Workspace, base: ServingBundle, tmp_path: Path) -> None:
    """By the digest of the model; under which number it is registered, and whether it is named, does not."""
    plan = taught_run(tmp_path, workspace, base, DISTIL).plan
    others = (replace(base, digest="0" * 64), replace(base, classes=("yes", "no")))
    keys = [taught_run(tmp_path, workspace, other, DISTIL).plan.bundle_key for other in others]
    assert keys[0] != plan.bundle_key == keys[1]
    named = (replace(teacher_of(base, "tiny/7"), version=7),)
    run = resolve_run(tmp_path, workspace, DISTIL.replace("champion", "tiny/7"), teachers=named)
    assert run.plan.bundle_key == plan.bundle_key


def test_without_its_teacher_it_does_not_start(workspace: Workspace, base: ServingBundle, tmp_path: Path) -> None:
    """As without the model that it goes on from."""
    run = taught_run(tmp_path, workspace, replace(base, digest="0" * 64), DISTIL)
    with pytest.raises(TrainingError, match="the model that stage 'top' learns from, tiny/1, is not in the store"):
        train_until(run, workspace)


def test_a_first_run_has_no_teacher_yet(resolve: Resolve) -> None:
    """It is the run that it is without one."""
    assert resolve(DISTIL).plan.stages == resolve().plan.stages


def test_a_new_class_is_learnt_by_its_labels(workspace: Workspace, base: ServingBundle, tmp_path: Path) -> None:
    """The teacher tells two of the student's three classes, in another order; each is compared with its own."""
    made = tmp_path / "made.csv"
    more = [f"the {age} film was false and {word},maybe\n" for age in AGES for word in "false stupid dark long".split()]
    made.write_text(made.read_text() + "".join(more))
    run = taught_run(tmp_path, workspace, base, DISTIL, "data.label.classes=['yes', 'maybe', 'no']")
    (teacher,), (_, stage) = run.plan.start.teachers, run.plan.stages
    assert stage.distil == Distillation(teacher.bundle, (0, 2), 0.9, 3.0)
    assert train_until(run, workspace).classes == ("yes", "maybe", "no")


@pytest.mark.parametrize("options", [("stages.1.train=all",), ()], ids=["all", "cut"])
def test_stopped_again_and_again_it_ends_as_an_unbroken_one(
    workspace: Workspace,
    base: ServingBundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
) -> None:
    """What weights are worth, and what the teacher says, is the same in each process that resumes, to the bit."""
    monkeypatch.setattr(start, "WEIGHED_ROWS", 20)
    monkeypatch.setattr(replay, "LEAST_REPLAYED", 10)
    every = (CHAMPION, DISTIL, "stages.1.ewc=1000.0", "stages.1.l2_sp=0.1", *options)
    run = taught_run(tmp_path, workspace, base, *every, is_warm=True)
    other = replace(workspace, store=Store(shutil.copytree(workspace.store.root, tmp_path / "unbroken")))
    expected = facts(train_until(run, other))
    attempts = 0
    while find_bundle(workspace.store, run.plan.bundle_key) is None:
        attempts += 1
        try:
            bundle = train_until(run, workspace, stop_after=24)
        except Paused:
            continue
    assert attempts > 3
    assert facts(bundle) == expected
    assert bundle.start == Start(bundle.start.warm, teachers=(teacher_of(base),))
