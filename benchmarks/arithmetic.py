"""How much arithmetic a training step takes, and how fast the machine multiplies at best."""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

REPEATS = 10
SIDE = {"cpu": 2048, "cuda": 8192}


@dataclass(frozen=True)
class EncoderShape:
    """What of a BERT-like encoder decides its arithmetic. inner: width of the feed-forward layers."""

    layers: int
    width: int
    inner: int

    @classmethod
    def read(cls, checkpoint: Path) -> "EncoderShape":
        """That of a checkpoint's folder."""
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        return cls(config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"])

    @property
    def multiplied(self) -> int:
        """Parameters by which each token is multiplied: query, key, value, output, and two feed-forward layers."""
        return self.layers * (4 * self.width**2 + 2 * self.width * self.inner)

    def training_flops(self, lengths: Sequence[int]) -> int:
        """Of forward and backward over rows of so many tokens, all parameters trained; padding counts as nothing.

        6 for each parameter and token (2 forward, 4 backward), and for attention 12 x layers x width x tokens squared.
        Method: Kaplan and others 2020, section 2.1; attention as in PaLM (Chowdhery and others 2022), appendix B.
        """
        attention = 12 * self.layers * self.width * sum(length**2 for length in lengths)
        return 6 * self.multiplied * sum(lengths) + attention


def gemm_flops_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a square matrix product on this device: the median of ten."""
    side = SIDE[device.type]
    left, right = torch.randn(2, side, side, device=device).to(dtype)
    seconds = []
    for _ in range(REPEATS + 1):
        synchronize()
        started = time.perf_counter()
        left @ right
        synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / statistics.median(seconds[1:])


def synchronize() -> None:
    """Wait until a GPU, if there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class StepClock:
    """Takes the time of optimiser steps, after some that are not counted."""

    def __init__(self, warmup: int, steps: int) -> None:
        self.first, self.last = warmup, warmup + steps
        self.marks: dict[int, float] = {}

    def is_over(self, done: int) -> bool:
        """So many steps are done; True once they are all that is measured."""
        if done in (self.first, self.last):
            synchronize()
            self.marks[done] = time.perf_counter()
        return done == self.last

    def measured(self, batches: Sequence[Sequence[int]], shape: EncoderShape, dtype: torch.dtype) -> dict[str, float]:
        """What the counted steps did. batches: row lengths of each step's batch, from the first step on."""
        counted = batches[self.first : self.last]
        lengths = [length for batch in counted for length in batch]
        return {
            "seconds": self.marks[self.last] - self.marks[self.first],
            "steps": len(counted),
            "rows": len(lengths),
            "tokens": sum(lengths),
            "positions": sum(len(batch) * max(batch) for batch in counted),
            "flops": shape.training_flops(lengths),
            "gemm_flops_per_s": gemm_flops_per_s(torch.device("cuda" if torch.cuda.is_available() else "cpu"), dtype),
        }
