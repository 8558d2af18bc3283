"""A real bundle around a tiny BERT made from its config, and a workspace with stores of its own."""

import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, PreTrainedTokenizerFast

from graftwork.data.manifest import DatasetManifest, RowCounts
from graftwork.database import Database
from graftwork.evaluation.evaluation import Evaluation
from graftwork.evaluation.metrics import Interval
from graftwork.faults import VARIABLE
from graftwork.fingerprint import folder_digest, to_json
from graftwork.models.catalog import DepthGroup
from graftwork.models.serving.classifier import Classifier, make_body
from graftwork.models.serving.config import WEIGHTS, ServingConfig
from graftwork.promotion.gate import Verdict
from graftwork.registry.client import reach_mlflow
from graftwork.registry.registration import register_model
from graftwork.registry.tracking import log_training
from graftwork.registry.versions import ModelVersion
from graftwork.settings import Settings
from graftwork.storage import Store
from graftwork.training.bundle import (
    BUNDLE_RECORD,
    MODEL,
    EpochMetrics,
    ServingBundle,
    StageResult,
    StepMetrics,
    copy_serving_code,
)
from graftwork.training.plan import TrainingPlan
from graftwork.training.stages import Stage
from graftwork.workspace import Workspace

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "a", "very")
CLASSES = ("negative", "positive")


@pytest.fixture(scope="session")
def fresh_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded MLflow store as the first start makes it; making it takes two seconds."""
    home = tmp_path_factory.mktemp("fresh")
    with reach_mlflow(Settings(home=home)):
        return home / "mlflow.db"


@pytest.fixture
def workspace(tmp_path: Path, fresh_mlflow: Path) -> Workspace:
    """A workspace with a home of its own."""
    settings = Settings(home=tmp_path / ".graftwork")
    settings.home.mkdir()
    shutil.copyfile(fresh_mlflow, settings.home / "mlflow.db")
    return Workspace(settings, Store(settings.store_root), Database.open(settings.database_url))


@pytest.fixture
def stages() -> tuple[StageResult, ...]:
    """Two finished stages, the first with more points than MLflow takes in one request."""
    return stage("top", points=1200), stage("full", points=3)


def stage(name: str, points: int) -> StageResult:
    """A stage with so many points of its training curve and two epochs."""
    epochs = tuple(EpochMetrics(n, n * points // 2, 0.6 / n, 0.7 / n, 0.6 + n / 10, 1.5) for n in (1, 2))
    steps = tuple(StepMetrics(n + 1, 1 / (n + 1), 0.5) for n in range(points))
    return StageResult(name, f"stage/{name}", "0" * 64, epochs, steps, best_epoch=2, seconds=3.0, peak_bytes=1 << 30)


@pytest.fixture
def bundle(workspace: Workspace, stages: tuple[StageResult, ...]) -> ServingBundle:
    """A tiny BERT with random weights, stored as training stores a bundle."""
    return store_bundle(workspace, stages, seed=1)


def store_bundle(workspace: Workspace, stages: tuple[StageResult, ...], seed: int) -> ServingBundle:
    """A bundle whose weights follow from the seed."""
    key = f"bundle/{seed:064x}"
    with workspace.store.writing(key) as folder:
        write_model(folder / MODEL, seed)
        record = ServingBundle(
            digest=folder_digest(folder / MODEL),
            key=key,
            name="review-sentiment",
            recipe_digest="a" * 64,
            manifest="b" * 64,
            checkpoint="c" * 64,
            classes=CLASSES,
            columns=("text",),
            stages=stages,
        )
        (folder / BUNDLE_RECORD).write_text(to_json(record), encoding="utf-8")
    return record


def write_model(folder: Path, seed: int) -> None:
    """A model folder as `load` reads it."""
    folder.mkdir()
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    copy_serving_code(folder)
    shape = ServingConfig(CLASSES, ("text",), "mean", max_tokens=16)
    shape.write(folder)
    torch.manual_seed(seed)
    body, _ = make_body(folder)
    save_file(Classifier(body, shape).state_dict(), folder / WEIGHTS)


@pytest.fixture
def manifest(bundle: ServingBundle) -> DatasetManifest:
    """The data that the bundle was made from."""
    counts = RowCounts(read=100, kept=100, quarantined=0, duplicates=0)
    sides = {"train": {"negative": 70}, "validation": {"negative": 10}, "holdout": {"negative": 20}}
    return DatasetManifest(bundle.name, "1" * 64, "2" * 64, "3" * 64, None, (), counts, CLASSES, sides)


@pytest.fixture
def evaluation(bundle: ServingBundle, manifest: DatasetManifest) -> Evaluation:
    """What the bundle reached on the holdout, beside one baseline."""
    return Evaluation(
        bundle=bundle.digest,
        recipe=bundle.recipe_digest,
        manifest=manifest.digest,
        holdout_digest=manifest.holdout_digest,
        rows=20,
        groups=20,
        excluded_rows=0,
        metrics={"accuracy": Interval(0.85, 0.83, 0.87)},
        classes=(),
        confusion=(),
        baselines={"majority": {"accuracy": Interval(0.5, 0.48, 0.52)}},
        references={},
        slices=(),
        predictions={},
    )


@pytest.fixture
def verdict(evaluation: Evaluation) -> Verdict:
    """The gate's word on it."""
    return Verdict("promote", "It beats every baseline.", "baselines", (), 1, 0.95, 0, "4" * 64, evaluation.digest)


@pytest.fixture
def plan(bundle: ServingBundle) -> TrainingPlan:
    """The plan that the bundle's stages came from."""
    return TrainingPlan(
        name=bundle.name,
        problem_type="text-classification",
        recipe_digest=bundle.recipe_digest,
        manifest=bundle.manifest,
        checkpoint=bundle.checkpoint,
        classes=bundle.classes,
        columns=bundle.columns,
        pooling="mean",
        max_tokens=16,
        hidden_layers=(),
        dropout=0.1,
        seed=7,
        batch_tokens=400,
        precision="float32",
        rows={"train": 70, "validation": 10, "holdout": 20},
        groups=(DepthGroup("head", 2, 18, ("head.",)),),
        stages=tuple(
            Stage(r.stage, {"head": 1e-3}, 18, 2, "linear", 0.1, 0.01, 0.0, 1.0, None, "none", 0, r.key)
            for r in bundle.stages
        ),
        bundle_key=bundle.key,
    )


@pytest.fixture
def register(
    workspace: Workspace,
    bundle: ServingBundle,
    plan: TrainingPlan,
    manifest: DatasetManifest,
    evaluation: Evaluation,
    verdict: Verdict,
) -> Callable[[], ModelVersion]:
    """Logs the run and registers its bundle, as the flow does."""

    def go() -> ModelVersion:
        run = log_training(workspace, "run1", plan, bundle.stages)
        return register_model(workspace, run, bundle, manifest, evaluation, verdict)

    return go


@pytest.fixture
def register_other(
    workspace: Workspace,
    stages: tuple[StageResult, ...],
    manifest: DatasetManifest,
    evaluation: Evaluation,
    plan: TrainingPlan,
    verdict: Verdict,
    register: Callable[[], ModelVersion],
) -> ModelVersion:
    """A second version of the same model."""
    register()
    other = store_bundle(workspace, stages, seed=2)
    run = log_training(workspace, "run2", plan, other.stages)
    return register_model(workspace, run, other, manifest, evaluation, verdict)


@pytest.fixture
def fork() -> Callable[..., int]:
    """Runs a function in a process of its own; its process id."""

    def go(function: Callable[[], object], fault: str = "") -> int:
        child = os.fork()
        if child:
            return child
        try:
            os.environ[VARIABLE] = fault
            function()
        except BaseException:  # noqa: BLE001  # nothing may return into the test
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    return go


@pytest.fixture
def start_together(tmp_path: Path) -> Callable[[str, int], list[subprocess.CompletedProcess[str]]]:
    """Runs a script in so many fresh processes at once, in a home that is not there yet."""

    def go(code: str, count: int) -> list[subprocess.CompletedProcess[str]]:
        environment = os.environ | {"GRAFTWORK_HOME": str(tmp_path / "fresh")}
        command = [sys.executable, "-c", code]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started = [subprocess.Popen(command, env=environment, **pipes) for _ in range(count)]
        ended = [(process, *process.communicate(timeout=60)) for process in started]
        return [subprocess.CompletedProcess(command, process.returncode, out, err) for process, out, err in ended]

    return go
