"""What people use today, in each experiment: the Hugging Face Trainer and pipeline, as their documentation has them.

Settings are arguments of TrainingArguments. Heavy imports wait, as in `ours`.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.cells import Job, Outcome, predictions_of
from benchmarks.machine import peak_mib
from benchmarks.ours import WARMUP_ROWS, nearest_mean_model, rows_to_predict

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from transformers import TrainerCallback

    from benchmarks.arithmetic import StepClock
    from graftwork.training.plan import ResolvedRun

PLAIN: Mapping[str, Any] = {"num_train_epochs": 3, "learning_rate": 5e-5, "per_device_train_batch_size": 16}
# Two epochs where the plain one has three: the cheaper of the usual choices, so that to beat it is the harder.
TUNED: Mapping[str, Any] = {
    **PLAIN,
    "num_train_epochs": 2,
    "train_sampling_strategy": "group_by_length",
    "optim": "adamw_torch_fused",
}
RATES = (2e-5, 5e-5, 1e-4, 2e-4)


def train(job: Job, settings: Mapping[str, Any]) -> Outcome:
    """Fine-tune by Trainer.train; the time is its own, without a validation and without a save."""
    run = job.workload.resolve()
    with tempfile.TemporaryDirectory() as folder:
        peer = FineTuning(job, run, folder, settings)
        began = time.perf_counter()
        peer.trainer.train()
        seconds, peak = time.perf_counter() - began, peak_mib()
        validation, holdout = peer.rows("validation"), peer.rows("holdout")
        is_right = peer.probabilities(validation).argmax(axis=1) == validation["label"].to_numpy()
        predictions = predictions_of(holdout, peer.probabilities(holdout))
    values = {"seconds": seconds, "peak_mib": peak, "rows": run.plan.rows["train"]}
    return Outcome(peer.precision, values | {"validation_accuracy": float(is_right.mean())}, predictions)


def train_tuned(job: Job, settings: Mapping[str, Any]) -> Outcome:
    """The same in the arithmetic that our plan takes on this machine."""
    return train(job, {**settings, "bf16": job.workload.resolve().plan.precision == "bfloat16"})


def train_steps(job: Job, settings: Mapping[str, Any]) -> Outcome:
    """Some optimiser steps of Trainer.train, all parameters trained."""
    import torch

    from benchmarks.arithmetic import EncoderShape, StepClock

    size, run = job.workload.size, job.workload.resolve()
    clock = StepClock(size.warmup, size.steps)
    with tempfile.TemporaryDirectory() as folder:
        peer = FineTuning(job, run, folder, {**settings, "max_steps": size.warmup + size.steps})
        peer.trainer.add_callback(_step_callback(clock))
        peer.trainer.train()
        peak = peak_mib()
    shape = EncoderShape.read(peer.checkpoint)
    values = clock.measured(peer.collator.batches, shape, getattr(torch, peer.precision))
    return Outcome(peer.precision, values | {"peak_mib": peak})


def predict(job: Job) -> Outcome:
    """Batch prediction by the pipeline, 32 rows at a time, of the very classifier that ours predicts with."""
    import numpy as np

    run = job.workload.resolve()
    rows = rows_to_predict(job, run)
    classify = _pipeline(run)
    options = {"batch_size": 32, "truncation": True, "max_length": run.plan.max_tokens, "top_k": None}
    texts = list(rows["text"])
    classify(texts[:WARMUP_ROWS], **options)
    began = time.perf_counter()
    found = classify(texts, **options)
    seconds = time.perf_counter() - began
    scores = [{entry["label"]: entry["score"] for entry in entries} for entries in found]
    probabilities = np.array([[score[name] for name in run.plan.classes] for score in scores])
    return Outcome("float32", {"seconds": seconds, "rows": len(rows)}, predictions_of(rows, probabilities))


class FineTuning:
    """A Trainer on the run's rows and checkpoint, padding to the longest row of a batch."""

    def __init__(self, job: Job, run: "ResolvedRun", folder: str, settings: Mapping[str, Any]) -> None:
        import torch
        from transformers import (
            AutoModelForSequenceClassification,
            AutoTokenizer,
            DataCollatorWithPadding,
            Trainer,
            TrainingArguments,
            set_seed,
        )

        from graftwork.workspace import Workspace

        self.store, self.run = Workspace.open().store, run
        self.checkpoint = self.store.root / run.lock.key
        arguments = TrainingArguments(
            output_dir=folder,
            seed=job.cell.seed,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),  # else it refuses bfloat16 on a CPU that has it
            **settings,
        )
        set_seed(job.cell.seed)
        self.tokenizer = AutoTokenizer.from_pretrained(self.checkpoint)
        self.collator = CountingCollator(DataCollatorWithPadding(self.tokenizer))
        self.trainer = Trainer(
            model=AutoModelForSequenceClassification.from_pretrained(self.checkpoint, num_labels=len(run.plan.classes)),
            args=arguments,
            train_dataset=self.encode(self.rows("train")),
            data_collator=self.collator,
        )
        self.precision = "bfloat16" if arguments.bf16 else "float32"

    def rows(self, side: str) -> "pd.DataFrame":
        from graftwork.data.manifest import load_rows

        return load_rows(self.store, self.run.manifest, sides=(side,))

    def encode(self, rows: "pd.DataFrame") -> Any:
        """The rows as a data set of token ids, with their length for those who group by it."""
        from datasets import Dataset

        limit = self.run.plan.max_tokens

        def tokenize(part: Mapping[str, Any]) -> dict[str, Any]:
            encoded = self.tokenizer(part["text"], truncation=True, max_length=limit)
            return {**encoded, "length": [len(ids) for ids in encoded["input_ids"]]}

        data = Dataset.from_pandas(rows[["text", "label"]], preserve_index=False)
        return data.map(tokenize, batched=True, remove_columns=["text"])

    def probabilities(self, rows: "pd.DataFrame") -> "np.ndarray":
        """(rows, classes)."""
        import torch

        # Grouped by length, it would predict in another order than that of the rows, and not say so.
        self.trainer.args.train_sampling_strategy = "random"
        found = self.trainer.predict(self.encode(rows))
        assert (found.label_ids == rows["label"].to_numpy()).all()
        return torch.softmax(torch.tensor(found.predictions).double(), dim=-1).numpy()


class CountingCollator:
    """Collates as the Trainer's does, and remembers the row lengths of each batch."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate
        self.batches: list[list[int]] = []

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        self.batches.append([len(row["input_ids"]) for row in rows])
        return self.collate(rows)


def _step_callback(clock: "StepClock") -> "TrainerCallback":
    from transformers import TrainerCallback

    class Tick(TrainerCallback):
        def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            clock.is_over(state.global_step)

    return Tick()


def _pipeline(run: "ResolvedRun") -> Any:
    """The pipeline around our classifier, so that both predict with the same weights."""
    from transformers import PreTrainedModel, TextClassificationPipeline
    from transformers.modeling_outputs import SequenceClassifierOutput

    served = nearest_mean_model(run)

    class Classifier(PreTrainedModel):
        _supports_sdpa = True  # as the body inside it does

        def __init__(self) -> None:
            super().__init__(served.model.body.config)
            self.classifier = served.model
            self.config.id2label = dict(enumerate(served.classes))

        def forward(self, input_ids: Any, attention_mask: Any, **_: Any) -> SequenceClassifierOutput:
            return SequenceClassifierOutput(logits=self.classifier(input_ids, attention_mask))

    return TextClassificationPipeline(model=Classifier(), tokenizer=served.encoder.tokenizer, device=served.device)
