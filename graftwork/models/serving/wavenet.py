"""WaveNet: samples of sound through causal convolutions that look back twice as far from block to block.

Method: van den Oord et al. (2016). Convolutions are linear layers on (batch, samples, width) states and what lies
before them, which a CPU computes as fast, and which low-rank adapters fit. Widths are `residual_size` between blocks,
`skip_size` of what all blocks add up, and `hidden_size` of the last states.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .own import BodyOutput

HALF = 1 << 15  # of the steps of a 16-bit sample


def mu_law(samples: np.ndarray, quantization: int) -> np.ndarray:
    """Samples between -1 and 1 -> int64 levels below `quantization`, close to each other where it is quiet.

    Method: ITU-T G.711, in its closed form.
    """
    mu = quantization - 1
    samples = np.clip(np.asarray(samples, "float64"), -1, 1)
    bent = np.sign(samples) * np.log1p(mu * np.abs(samples)) / np.log1p(mu)
    return np.floor((bent + 1) / 2 * mu + 0.5).astype("int64")


def undo_mu_law(levels: np.ndarray, quantization: int) -> np.ndarray:
    """Levels -> float32 samples that have these levels."""
    mu = quantization - 1
    bent = 2 * np.asarray(levels, "float64") / mu - 1
    samples: np.ndarray = np.sign(bent) * np.expm1(np.abs(bent) * np.log1p(mu)) / mu
    return samples.astype("float32")


def dilations(config: Any) -> list[int]:
    """How far apart the samples are that each block looks at."""
    return [2 ** (block % config.dilation_cycle) for block in range(config.num_layers)]


def receptive_field(config: Any) -> int:
    """How many samples a state is made of: its own and those before it."""
    return 1 + (config.kernel_size - 1) * sum(dilations(config))


class Body(nn.Module):
    """Sound to a state for each frame of `frame_size` samples: the mean of its samples' states."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Levels(config.quantization, config.residual_size)
        last = config.num_layers - 1
        self.blocks = nn.ModuleList(
            Block(config, dilation, is_last=place == last) for place, dilation in enumerate(dilations(config))
        )
        self.neck = nn.Sequential(nn.ReLU(), nn.Linear(config.skip_size, config.hidden_size), nn.ReLU())

    def forward(self, input_values: Tensor, attention_mask: Tensor | None = None) -> BodyOutput:
        """(batch, samples) between -1 and 1 and their mask -> (batch, frames, hidden); `frame_mask` is that of frames.

        Samples that the mask leaves out count in no frame. At one padded length a row's frames are the same, bit for
        bit, whatever lies beside it; at another they may differ by a rounding, 4e-7 as measured on several threads.
        """
        states = self.sample_states(input_values)
        mask = torch.ones_like(input_values) if attention_mask is None else attention_mask
        weights = mask.to(states.dtype).unsqueeze(-1)
        return BodyOutput(self._add_up(states * weights) / self._add_up(weights).clamp(min=1))

    def sample_states(self, input_values: Tensor) -> Tensor:
        """(batch, samples) -> (batch, samples, hidden); none depends on a later sample."""
        states: Tensor = self.embeddings(self.embeddings.levels(input_values))
        skips = states.new_zeros(1)
        for block in self.blocks:
            states, skip = block(states, block.look_back(states))
            skips = skips + skip
        last: Tensor = self.neck(skips)
        return last

    def frame_mask(self, attention_mask: Tensor) -> Tensor:
        """(batch, samples) mask -> (batch, frames): 1 where a frame has a sample."""
        return (self._add_up(attention_mask.unsqueeze(-1)) > 0).squeeze(-1).to(attention_mask.dtype)

    def get_input_embeddings(self) -> nn.Module:
        """What gives each sample its first state, as transformers' bodies tell it."""
        return self.embeddings.table

    def _add_up(self, values: Tensor) -> Tensor:
        """(batch, samples, width) -> (batch, frames, width); the last frame may be a short one."""
        size = self.config.frame_size
        frames = (values.shape[1] + size - 1) // size
        padded = nn.functional.pad(values, (0, 0, 0, size - 1))[:, : frames * size]
        return padded.unflatten(1, (frames, size)).sum(2)


class Levels(nn.Module):
    """A first state for each level of a sample."""

    def __init__(self, quantization: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(quantization, width)
        # Looked up by 16-bit samples, not computed: a logarithm that is rounded otherwise elsewhere gives other levels.
        of_samples = mu_law(np.arange(-HALF, HALF) / HALF, quantization)
        self.register_buffer("of_samples", torch.from_numpy(of_samples.astype("int16")), persistent=False)

    def levels(self, samples: Tensor) -> Tensor:
        """The mu-law level of each sample, which is taken as one of 16 bits."""
        places = (samples.float() * HALF).round().clamp(-HALF, HALF - 1).long() + HALF
        of_samples: Any = self.of_samples
        levels: Tensor = of_samples[places].long()
        return levels

    def forward(self, levels: Tensor) -> Tensor:
        """(…) levels -> (…, width)."""
        states: Tensor = self.table(levels)
        return states


class Block(nn.Module):
    """A gated causal convolution: what it adds to the states, and to the sum that all blocks make.

    The last has nobody to hand states on to.
    """

    def __init__(self, config: Any, dilation: int, is_last: bool) -> None:
        super().__init__()
        self.dilation, self.kernel_size = dilation, config.kernel_size
        width = config.residual_size
        self.filter = nn.Linear(self.kernel_size * width, width)
        self.gate = nn.Linear(self.kernel_size * width, width)
        self.skip = nn.Linear(width, config.skip_size)
        self.residual = None if is_last else nn.Linear(width, width)

    def look_back(self, states: Tensor) -> Tensor:
        """(batch, samples, width) -> (batch, samples, kernel size * width): each with those before it, oldest first."""
        return torch.cat([*self._shifted(states), states], dim=-1)

    def forward(self, states: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """States and what `look_back` makes of them -> (…, width) and (…, skip size)."""
        gated = torch.tanh(self.filter(seen)) * torch.sigmoid(self.gate(seen))
        return states if self.residual is None else states + self.residual(gated), self.skip(gated)

    def _shifted(self, states: Tensor) -> Iterator[Tensor]:
        for place in range(self.kernel_size - 1, 0, -1):
            yield nn.functional.pad(states, (0, 0, place * self.dilation, 0))[:, : states.shape[1]]
