"""The rows that a run trains on and is validated on, and those beside them, as its checkpoint reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork.data.manifest import AuxiliaryRows, load_auxiliary, load_rows
from graftwork.evaluation.predictions import MEDIA, inputs_of
from graftwork.models.serving.model import Encoder
from graftwork.storage import Store
from graftwork.targets.catalog import CLASSIFICATION, TARGETS
from graftwork.targets.target import Target
from graftwork.training.loop import Examples
from graftwork.training.multi_task import Task, join_labels
from graftwork.training.pairs import Captions
from graftwork.training.plan import ResolvedRun, TrainingPlan
from graftwork.training.start import rows_since, rows_to_hold
from graftwork.training.tagging import place_tags
from graftwork.training.writing import writer_examples

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class RunRows:
    """The rows that a run trains on and is validated on, as its encoder makes them, and what they were made of.

    known: rows that the model to go on from must not forget, where a stage holds it to them. auxiliary: by name, what
    stages learn from beside them.
    """

    encoder: Encoder
    train: Examples
    validation: Examples
    train_inputs: list[Any]
    validation_inputs: list[Any]
    known: Examples | None = None
    auxiliary: "Mapping[str, BesideRows]" = field(default_factory=dict)

    def joined(self, beside: "Sequence[BesideRows]", tasks: Sequence[Task]) -> "RunRows":
        """The same with auxiliary rows behind the training rows. tasks: of all of them, where labels are read."""
        every = [self.train, *(each.examples for each in beside)]
        lengths = [length for examples in every for length in examples.lengths]
        labels = join_labels(tasks) if tasks else np.zeros(len(lengths), dtype=np.int64)
        train = Examples([row for examples in every for row in examples.rows], labels, self.encoder, lengths)
        inputs = [row for part in (self.train_inputs, *(each.inputs for each in beside)) for row in part]
        return replace(self, train=train, train_inputs=inputs)


@dataclass(frozen=True)
class BesideRows:
    """Auxiliary rows, what they were made of, and what is learnt of their labels: None where they have none.

    captions: of pictures that have them.
    """

    examples: Examples
    inputs: list[Any]
    task: Task | None
    captions: Captions | None = None

    def times(self, copies: int) -> "BesideRows":
        """So many copies of them, one after the other."""
        found, task = self.examples, self.task
        labels = np.tile(found.labels, (copies, *[1] * (found.labels.ndim - 1)))
        examples = replace(found, rows=[*found.rows] * copies, labels=labels, lengths=[*found.lengths] * copies)
        return BesideRows(examples, self.inputs * copies, task and replace(task, labels=labels))


def open_rows(run: ResolvedRun, store: Store, encoder: Encoder) -> RunRows:
    """The rows of both sides, as the encoder reads them, and those that stages learn from beside them."""
    sides = [_rows_to_see(run, store, side) for side in ("train", "validation")]
    train, validation = (_learnt_rows(rows, encoder, run.plan) for rows in sides)
    warm, known = run.plan.start.warm, None
    if warm is not None and any(stage.ewc for stage in run.plan.stages):
        held = rows_to_hold(store, run.manifest, warm.manifest, run.plan.seed)
        known = _examples(held, encoder, _labels(held, run.plan))
    train_inputs, validation_inputs = map(inputs_of, sides)
    wanted = {name for stage in run.plan.stages if stage.auxiliary for name in stage.auxiliary.names}
    sets = [each for each in run.manifest.auxiliary if each.name in wanted]
    beside = {each.name: _beside(each, load_auxiliary(store, run.manifest, each.name), encoder) for each in sets}
    return RunRows(encoder, train, validation, train_inputs, validation_inputs, known, beside)


def _beside(facts: AuxiliaryRows, rows: "pandas.DataFrame", encoder: Encoder) -> BesideRows:
    """What stages learn of auxiliary rows. facts: of them."""
    if facts.target is None:
        captions = Captions.of(rows) if MEDIA in rows else None
        examples = _examples(rows, encoder, np.zeros(len(rows), dtype=np.int64))
        return BesideRows(examples, inputs_of(rows), None, captions)
    target, numbers = TARGETS[facts.target], facts.numbers
    labels = _as_learnt(target, rows, (numbers.mean, numbers.std) if numbers else None)
    return BesideRows(_examples(rows, encoder, labels), inputs_of(rows), Task(target, len(facts.classes), labels))


def _rows_to_see(run: ResolvedRun, store: Store, side: str) -> "pandas.DataFrame":
    """All rows of a side, or those that a warm start takes of them."""
    warm = run.plan.start.warm
    if warm is None:
        return load_rows(store, run.manifest, sides=(side,))
    return rows_since(store, run.manifest, warm.manifest, side, warm.replay, run.plan.seed).rows


def _examples(rows: "pandas.DataFrame", encoder: Encoder, labels: np.ndarray) -> Examples:
    ids = encoder.encode(inputs_of(rows))
    return Examples(ids, labels, encoder, [len(row) for row in ids])


def _learnt_rows(rows: "pandas.DataFrame", encoder: Encoder, plan: TrainingPlan) -> Examples:
    """Rows with what the plan learns of them."""
    if plan.target.is_text:
        return writer_examples(rows, inputs_of(rows), encoder, plan.writes or 1)
    if plan.target.is_by_word:
        return _tagged(rows, encoder)
    return _examples(rows, encoder, _labels(rows, plan))


def _tagged(rows: "pandas.DataFrame", encoder: Encoder) -> Examples:
    """Labels: (rows, tokens of the longest)."""
    texts = inputs_of(rows)
    ids = encoder.encode(texts)
    lengths = [len(row) for row in ids]
    return Examples(ids, place_tags(encoder, texts, list(rows["label"]), max(lengths)), encoder, lengths)


def _labels(rows: "pandas.DataFrame", plan: TrainingPlan) -> np.ndarray:
    return _as_learnt(plan.target, rows, plan.scale)


def _as_learnt(target: Target, rows: "pandas.DataFrame", scale: Sequence[float] | None) -> np.ndarray:
    """Class indices, int64; or what each output is to give, float32. scale: of numbers, their mean and deviation."""
    if target is CLASSIFICATION:
        return rows["label"].to_numpy("int64", copy=True)
    mean, std = scale or (0.0, 1.0)
    return ((target.learning.as_array(rows["label"]) - mean) / std).astype(np.float32)
