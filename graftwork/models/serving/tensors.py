"""Tensors of a folder's files, by their names."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor


def read_tensors(folder: Path, is_wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """Those that are wanted, in float32, by the names that the files give them. No other is read."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            names = filter(is_wanted, tensors.keys())
            found |= {name: tensors.get_tensor(name).to(torch.float32) for name in names}
    return found
