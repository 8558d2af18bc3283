"""The average of a stage's weights over its steps: what is validated, kept and handed on while training goes on raw.

The running statistics of batch normalisation are averaged with the weights that they were counted under: those of the
last steps are of other weights. As timm's ModelEmaV2 does it, and torch's AveragedModel where it is told to.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from graftwork.training.normalisation import running_statistics
from graftwork.training.stages import Averaging


class WeightAverage:
    """The exponential moving average of what is in training, by name: empty until the first step that counts.

    Its bias is corrected: the weights before that step have no part in it, as if it had begun long ago.
    Method: averaging (Polyak and Juditsky 1992) with Adam's bias correction (Kingma and Ba 2015).
    """

    def __init__(self, averaging: Averaging | None, steps: int) -> None:
        self.averaging, self.tensors = averaging, dict[str, Tensor]()
        self.first = 0 if averaging is None else round(averaging.after * steps)

    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after the step, counted from 0."""
        if self.averaging is None or step < self.first:
            return
        decay = self.averaging.ema
        rate = (1 - decay) / (1 - decay ** (step - self.first + 1))
        for name, tensor in _averaged(model):
            if step == self.first:
                self.tensors[name] = tensor.detach().clone()
            else:
                self.tensors[name].lerp_(tensor.detach(), rate)

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """The model with the average as its weights, as far as there is one; its own are back afterwards."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    def _swap(self, model: nn.Module) -> None:
        if self.tensors:
            for name, tensor in _averaged(model):
                tensor.data, self.tensors[name] = self.tensors[name], tensor.data


def _averaged(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters in training, and running statistics; how many batches these are of is no number to average."""
    yield from ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
    yield from ((name, tensor) for name, tensor in running_statistics(model) if tensor.is_floating_point())
