"""The demo's training beside the plain Hugging Face Trainer, on the same rows in the same run, and the commands' speed.

    python -m benchmarks.demo [--epochs 3] [--runs 5]

The peer is what most people would write: AutoModelForSequenceClassification, 3 epochs, batch 16, rate 5e-5, padding to
the longest of the batch. Both train on the recipe's training rows and are judged on its holdout rows.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graftwork import api
from graftwork.data.manifest import load_rows
from graftwork.settings import use_home
from graftwork.workspace import Workspace

RECIPE = Path("recipes/review-sentiment.yaml")


def run_ours(home: Path) -> float:
    """Seconds of `graftwork run` in a fresh home: everything from validation to the report."""
    started = time.perf_counter()
    subprocess.run(["graftwork", "run", str(RECIPE)], env=os.environ | {"GRAFTWORK_HOME": str(home)}, check=True)
    return time.perf_counter() - started


def our_training(planned: api.PlannedRun) -> tuple[float, np.ndarray]:
    """Seconds of the stages, and probabilities of the holdout rows."""
    from graftwork.models import serving
    from graftwork.training.bundle import MODEL, find_bundle

    store = Workspace.open().store
    bundle = find_bundle(store, planned.plan.bundle_key)
    assert bundle is not None
    model = serving.load(store.root / bundle.key / MODEL)
    holdout = load_rows(store, planned.manifest, sides=("holdout",))
    return sum(stage.seconds for stage in bundle.stages), model.probabilities(list(holdout["text"]))


def train_peer(planned: api.PlannedRun, epochs: int) -> tuple[float, np.ndarray]:
    """Seconds of Trainer.train, and probabilities of the holdout rows."""
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    store = Workspace.open().store
    checkpoint = store.root / planned.lock.key
    set_seed(planned.plan.seed)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=len(planned.plan.classes))

    def encode(side: str) -> Any:
        rows = load_rows(store, planned.manifest, sides=(side,))[["text", "label"]]
        data = Dataset.from_pandas(rows, preserve_index=False)
        limit = planned.plan.max_tokens
        return data.map(lambda part: tokenizer(part["text"], truncation=True, max_length=limit), batched=True)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=16,
            learning_rate=5e-5,
            seed=planned.plan.seed,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=model, args=arguments, train_dataset=encode("train"), data_collator=DataCollatorWithPadding(tokenizer)
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        logits = trainer.predict(encode("holdout")).predictions
    return seconds, torch.softmax(torch.tensor(logits), dim=-1).numpy()


def time_command(arguments: Sequence[str], home: Path, runs: int) -> tuple[float, float, float]:
    """Least, median and greatest seconds of a command as a whole process, after one run that is not counted."""
    seconds = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        environment = os.environ | {"GRAFTWORK_HOME": str(home)}
        subprocess.run(["graftwork", *arguments], env=environment, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:]), statistics.median(seconds[1:]), max(seconds[1:])


def main() -> None:
    """Measure and print."""
    from sklearn.metrics import accuracy_score, log_loss

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3, help="of the peer")
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each command")
    options = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        os.environ["GRAFTWORK_HOME"] = str(home)
        use_home(Path.cwd())
        whole = run_ours(home)
        planned = api.plan(RECIPE)
        holdout = load_rows(Workspace.open().store, planned.manifest, sides=("holdout",))
        ours_s, ours = our_training(planned)
        peer_s, peer = train_peer(planned, options.epochs)
        print(f"\n{os.cpu_count()} cores, {planned.plan.precision}, {planned.plan.rows['train']:,} training rows")
        print(f"{'':34}{'time, s':>10}{'accuracy':>10}{'log-loss':>10}")
        for name, seconds, found in (
            ("graftwork, the recipe's stages", ours_s, ours),
            (f"Hugging Face Trainer, {options.epochs} epochs", peer_s, peer),
        ):
            accuracy = accuracy_score(holdout["label"], found.argmax(axis=1))
            print(f"{name:34}{seconds:10.0f}{accuracy:10.3f}{log_loss(holdout['label'], found):10.3f}")
        print(f"time, ratio to the Trainer: {ours_s / peer_s:.2f}")
        print(f"the whole flow, first run: {whole:.0f} s")
        for arguments in (["--help"], ["plan", str(RECIPE)], ["run", str(RECIPE)]):
            least, median, greatest = time_command(arguments, home, options.runs)
            print(f"graftwork {' '.join(arguments):40}{least:8.2f}{median:8.2f}{greatest:8.2f} s (min, median, max)")


if __name__ == "__main__":
    main()
