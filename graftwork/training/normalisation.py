"""Batch normalisation in training: how many rows a batch has to have for it, and the statistics that it counts.

In training mode it brings each channel to the mean and the variance of the batch, and counts running ones, by which
rows are judged. Where nothing of it is trained it is in eval mode and counts nothing: see `set_modes`.
"""

from collections.abc import Iterator

from torch import Tensor, nn

from graftwork.models.catalog import LEAST_ROWS

KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def least_rows(model: nn.Module, processes: int) -> int:
    """How many rows a batch has to have, of which each process takes its share: of a model in the modes of a stage."""
    is_counting = any(isinstance(module, KINDS) and module.training for module in model.modules())
    return LEAST_ROWS * processes if is_counting else 1


def running_statistics(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What batch normalisations that are trained have counted, by name."""
    for place, module in model.named_modules():
        if isinstance(module, KINDS) and any(parameter.requires_grad for parameter in module.parameters()):
            for name, tensor in module.named_buffers(recurse=False):
                yield f"{place}.{name}", tensor
