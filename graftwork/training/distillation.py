"""Learning from what another model says of a row, beside the row's label.

Method: knowledge distillation (Hinton, Vinyals and Dean 2015); with the model that training starts from as the teacher,
learning without forgetting (Li and Hoiem 2016), which compares the classes that the teacher knows among themselves.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from graftwork.training.stages import Distillation


class TaughtLabels(NamedTuple):
    """Of a batch: classes, (batch,), and the teacher's logits, (batch, classes that it knows)."""

    classes: Tensor
    logits: Tensor


class TaughtCriterion:
    """The mean over rows of (1 - w) cross-entropy + w T² KL(teacher, model), both softened by the temperature T.

    T² keeps the size of the second gradient whatever T is. A row whose class the teacher does not know is learnt by its
    label alone. class_weights: what a row counts in the mean, by its class.
    """

    def __init__(self, distillation: Distillation, class_weights: Tensor | None, label_smoothing: float) -> None:
        self.distillation, self.class_weights = distillation, class_weights
        self.label_losses = nn.CrossEntropyLoss(class_weights, reduction="none", label_smoothing=label_smoothing)

    def __call__(self, logits: Tensor, labels: TaughtLabels) -> Tensor:
        weight, heat = self.distillation.weight, self.distillation.temperature
        known = torch.tensor(self.distillation.classes, device=logits.device)
        ours, theirs = (each.div(heat).log_softmax(1) for each in (logits[:, known], labels.logits))
        apart = heat**2 * nn.functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(1)
        counts = torch.ones_like(apart) if self.class_weights is None else self.class_weights[labels.classes]
        share = weight * torch.isin(labels.classes, known)
        losses = (1 - share) * self.label_losses(logits, labels.classes) + share * counts * apart
        return losses.sum() / counts.sum()
