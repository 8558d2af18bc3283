"""VGG (Simonyan and Zisserman 2015): groups of convolutions, a pool after each, and two wide layers.

Tensors are called as in torchvision's files. The last of these files' three layers, which tells classes, is not here.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .own import BodyConfig, BodyOutput

POOL = "M"


class Body(nn.Module):
    """Pictures to what the last layer but one gives, as torchvision has it.

    config: `layers` (channels of each convolution, `M` for a pool), `batch_norm`, `pooled_side` (of what is left of a
    picture, whatever its size), `hidden_size` and `dropout` of the wide layers.
    """

    def __init__(self, config: BodyConfig) -> None:
        super().__init__()
        self.config = config
        self.features = nn.Sequential(*_features(config.layers, config.batch_norm))
        self.avgpool = nn.AdaptiveAvgPool2d(config.pooled_side)
        places = config.pooled_side**2
        channels = [each for each in config.layers if each != POOL]
        self.classifier = nn.Sequential(
            nn.Linear(channels[-1] * places, config.hidden_size),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
        )
        self.apply(_draw)

    def forward(self, pixel_values: Tensor) -> BodyOutput:
        """(batch, 3, side, side) -> (batch, hidden), as `pooler_output`."""
        pooled = self.avgpool(self.features(pixel_values)).flatten(1)
        return BodyOutput(pooler_output=self.classifier(pooled))


def _features(layers: Sequence[Any], has_norms: bool) -> list[nn.Module]:
    made: list[nn.Module] = []
    width = 3
    for channels in layers:
        if channels == POOL:
            made.append(nn.MaxPool2d(2, 2))
            continue
        made.append(nn.Conv2d(width, channels, 3, padding=1))
        made += [nn.BatchNorm2d(channels)] if has_norms else []
        made.append(nn.ReLU(inplace=True))
        width = channels
    return made


def _draw(module: nn.Module) -> None:
    """First weights, as torchvision draws them: He et al. (2015) by outputs, and 0.01 wide in the wide layers."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0, 0.01)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
