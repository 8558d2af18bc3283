"""AlexNet, as torchvision has it: the column of Krizhevsky (2014), whose five convolutions widen, and two wide layers.

Tensors are called as in torchvision's files. The last of these files' three layers, which tells classes, is not here.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .own import BodyConfig, BodyOutput

POOL = "M"
# Kernel, stride and padding of the first convolutions; those after them are as the last one here.
CONVOLUTIONS = ((11, 4, 2), (5, 1, 2), (3, 1, 1))


class Body(nn.Module):
    """Pictures to what the last layer but one gives. First weights are drawn as torch does, which torchvision leaves.

    config: `layers` (channels of each convolution, `M` for a pool), `pooled_side` (of what is left of a picture,
    whatever its size), `hidden_size` and `dropout` of the wide layers.
    """

    def __init__(self, config: BodyConfig) -> None:
        super().__init__()
        self.config = config
        self.features = nn.Sequential(*_features(config.layers))
        self.avgpool = nn.AdaptiveAvgPool2d(config.pooled_side)
        places = config.pooled_side**2
        channels = [each for each in config.layers if each != POOL]
        self.classifier = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(channels[-1] * places, config.hidden_size),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.ReLU(inplace=True),
        )

    def forward(self, pixel_values: Tensor) -> BodyOutput:
        """(batch, 3, side, side) -> (batch, hidden), as `pooler_output`."""
        pooled = self.avgpool(self.features(pixel_values)).flatten(1)
        return BodyOutput(pooler_output=self.classifier(pooled))


def _features(layers: Sequence[Any]) -> list[nn.Module]:
    made: list[nn.Module] = []
    shapes, width = iter(CONVOLUTIONS), 3
    for channels in layers:
        if channels == POOL:
            made.append(nn.MaxPool2d(3, 2))
            continue
        kernel, stride, padding = next(shapes, CONVOLUTIONS[-1])
        made += [nn.Conv2d(width, channels, kernel, stride, padding), nn.ReLU(inplace=True)]
        width = channels
    return made
