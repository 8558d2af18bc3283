"""Sound that a WaveNet makes, sample by sample.

Each block keeps the states that it will look back at, so that a sample costs one state of each block, not a whole
forward of all samples before it. Method: Fast WaveNet (Paine et al. 2016).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graftwork.models.serving.wavenet import Block, mu_law, undo_mu_law
from graftwork.storage import whole_file

SILENCE = np.zeros(1, "float32")


def generate(
    body: nn.Module,
    head: nn.Module,
    seconds: float,
    rate: int,
    seed: int,
    temperature: float = 1.0,
    prime: np.ndarray | None = None,
) -> np.ndarray:
    """(seconds * rate,) float32 samples that follow those of `prime`, or one of silence.

    head: tells the next level from the last state. temperature: 0 takes the likeliest level always; 1 draws each as
    often as the model expects it. It is computed on the CPU, where the same seed gives the same bits.
    """
    model: Any = body
    quantization = model.config.quantization
    given = mu_law(SILENCE if prime is None else prime, quantization)
    draws = np.random.Generator(np.random.Philox(seed)).random(int(seconds * rate))
    levels = []
    with torch.inference_mode():
        steps = Steps(model)
        for level in given[:-1]:
            steps.next_state(int(level))
        level = int(given[-1])
        for draw in draws:
            level = pick_level(head(steps.next_state(level))[0], temperature, draw)
            levels.append(level)
    return undo_mu_law(np.array(levels, "int64"), quantization)


def pick_level(scores: Tensor, temperature: float, draw: float) -> int:
    """The level at which the sum of probabilities passes `draw`, which is between 0 and 1."""
    if temperature == 0:
        return int(scores.argmax())
    sums = torch.softmax(scores.double() / temperature, dim=0).cumsum(0).numpy()
    return min(int(np.searchsorted(sums, draw * sums[-1], side="right")), len(sums) - 1)


class Steps:
    """A body that is given one sample after the other."""

    def __init__(self, body: Any) -> None:
        self.body = body
        self.queues = [Queue(block, body.config.residual_size) for block in body.blocks]

    def next_state(self, level: int) -> Tensor:
        """(1, hidden): the state of the next sample, whose level is given."""
        state = self.body.embeddings(torch.tensor([level]))
        skips = state.new_zeros(1)
        for block, queue in zip(self.body.blocks, self.queues, strict=True):
            state, skip = block(state, queue.look_back(state))
            skips = skips + skip
        last: Tensor = self.body.neck(skips)
        return last


class Queue:
    """The states that a block will look back at: as many as it reaches, in a ring."""

    def __init__(self, block: Block, width: int) -> None:
        self.reach = [place * block.dilation for place in range(block.kernel_size - 1, 0, -1)]
        self.ring = torch.zeros(max(self.reach, default=1), width)
        self.time = 0

    def look_back(self, state: Tensor) -> Tensor:
        """(1, width) -> (1, kernel size * width), as the block's own `look_back` gives; the state is kept."""
        size = len(self.ring)
        past = [self.ring[(self.time - reach) % size].unsqueeze(0) for reach in self.reach]
        seen = torch.cat([*past, state], dim=-1)
        self.ring[self.time % size] = state[0]
        self.time += 1
        return seen


def write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write float samples between -1 and 1 as a 16-bit WAV file of one channel."""
    import soundfile  # here alone: only those who listen need it

    with whole_file(path) as aside:
        soundfile.write(aside, samples, rate, subtype="PCM_16", format="WAV")
