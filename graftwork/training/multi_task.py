"""Learning several tasks at once: what a batch costs in which every row is of one of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from graftwork.models.multi_task import TaskHeads
from graftwork.targets.target import Target


@dataclass(frozen=True)
class Task:
    """What is learnt of some of the rows. outputs: of its head. labels: of its rows, as its target has them."""

    target: Target
    outputs: int
    labels: np.ndarray

    def loss(self, logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
        """The mean over rows. labels: (rows, any), numbers all of them, and more columns than needed."""
        criterion = self.target.learning.criterion
        if criterion is not None:
            return criterion(logits, labels[:, : self.outputs])
        return nn.functional.cross_entropy(logits, labels[:, 0].long(), label_smoothing=label_smoothing)


def join_labels(tasks: Sequence[Task]) -> np.ndarray:
    """(rows of all tasks, 1 + columns) float32: the place of a row's task, then its label."""
    labels = [task.labels.reshape(len(task.labels), -1) for task in tasks]
    widest = max(each.shape[1] for each in labels)
    return np.concatenate(
        [
            np.pad(np.insert(each.astype(np.float32), 0, place, axis=1), ((0, 0), (0, widest - each.shape[1])))
            for place, each in enumerate(labels)
        ]
    )


class TaskCriterion:
    """The mean loss of a batch, each row's by its own task, of what all heads make of it side by side.

    Where the heads learn how unsure each task is, its losses L count exp(-s) L + s / 2, s the log of its variance: the
    less, the less sure it can be. Method: Kendall, Gal and Cipolla (2018, Multi-task learning using uncertainty).
    """

    def __init__(self, tasks: Sequence[Task], heads: TaskHeads, label_smoothing: float) -> None:
        self.tasks, self.heads, self.label_smoothing = tuple(tasks), heads, label_smoothing

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """outputs: (rows, outputs of all tasks). labels: (rows, any), as of `join_labels`."""
        total: Tensor = 0.0 * outputs.sum()  # so that each head has a gradient in each step, and in each process
        parts = outputs.split([task.outputs for task in self.tasks], dim=1)
        for place, (task, part) in enumerate(zip(self.tasks, parts, strict=True)):
            mine = labels[:, 0] == place
            if mine.any():
                loss = task.loss(part[mine], labels[mine, 1:], self.label_smoothing)
                total = total + mine.float().mean() * self._weighed(loss, place)
        return total

    def _weighed(self, loss: Tensor, place: int) -> Tensor:
        variances: Any = self.heads.log_variances
        return loss if variances is None else (-variances[place]).exp() * loss + variances[place] / 2
