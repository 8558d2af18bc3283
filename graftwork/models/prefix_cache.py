"""Activations at the boundary between what is frozen and what is trained: computed once for each row, then kept.

They are padded to canonical lengths when they are computed, so that a row's activations depend on its tokens alone and
not on the rows beside it. Shards lie in the store as `activations/<prefix digest><shard digest>`. The prefix digest
covers the frozen tensors themselves and all else that decides bits, so that new data pays for new rows only.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from graftwork.fingerprint import digest, folder_digest
from graftwork.models.serving import (
    BATCH_TOKENS,
    LENGTHS,
    TextClassifier,
    TextEncoder,
    hidden_size,
    inference_batches,
)
from graftwork.models.text import attention_of, device_name
from graftwork.storage import Store

VERSION = 1
KIND = "activations"
SHARD = "shard.safetensors"
SHARD_BYTES = 64 << 20
NAME_BYTES = 16  # of the digest of a row's token ids


@dataclass(frozen=True)
class ActivationRows:
    """Activations in the place of token ids: what pads them is what a batch is made by. width: of an activation."""

    width: int
    max_tokens: int
    dtype: torch.dtype

    def pad(self, rows: Sequence[Tensor], length: int) -> tuple[Tensor, Tensor]:
        """Activations, (rows, length, width), and attention mask, (rows, length)."""
        states = torch.zeros(len(rows), length, self.width, dtype=self.dtype)
        mask = torch.zeros(len(rows), length, dtype=torch.long)
        for index, row in enumerate(rows):
            states[index, : len(row)] = row
            mask[index, : len(row)] = 1
        return states, mask


@dataclass(frozen=True)
class Arithmetic:
    """How activations are computed. environment: what of the machine and the libraries decides their bits."""

    precision: str
    environment: tuple[str, ...]

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.precision)

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)


def arithmetic_of(model: TextClassifier, precision: str) -> Arithmetic:
    """The arithmetic of this process, by the model's device and attention kernel."""
    environment = (
        torch.__version__,
        version("transformers"),
        device_name(next(model.parameters()).device),
        torch.backends.cpu.get_cpu_capability(),
        str(torch.get_num_threads()),
        attention_of(model),
    )
    return Arithmetic(precision, environment)


class PrefixCache:
    """The activations that a store keeps, computed by one arithmetic.

    budget: of bytes; beyond it, what was not used for longest is removed.
    """

    def __init__(self, store: Store, budget: int, arithmetic: Arithmetic) -> None:
        self.store, self.budget, self.arithmetic = store, budget, arithmetic

    def activations(
        self,
        lower: nn.Module,
        encoder: TextEncoder,
        rows: Sequence[Sequence[int]],
        on_progress: Callable[[int, int], None],
    ) -> list[Tensor]:
        """What `lower` gives for each row of token ids, (tokens, width); what is not there yet is computed.

        on_progress is told how many rows of how many are computed; it may raise to stop, and finished shards stay.
        """
        prefix = prefix_digest(lower, encoder.max_tokens, self.arithmetic)
        names = [_row_name(row) for row in rows]
        found = self._open_shards(prefix)
        missing = {name: row for name, row in zip(names, rows, strict=True) if name not in found}
        done = 0
        for shard in _shards(missing, hidden_size(lower) * self.arithmetic.dtype.itemsize):
            tell = partial(_add, on_progress, done, len(missing))
            self._publish(prefix, list(shard), _compute(lower, encoder, list(shard.values()), self.arithmetic, tell))
            done += len(shard)
        if missing:
            found = self._open_shards(prefix)
            self._evict(prefix)
        return [found[name] for name in names]

    def _open_shards(self, prefix: str) -> dict[bytes, Tensor]:
        """The rows of all whole shards, mapped from their files; a damaged shard is as good as none."""
        found: dict[bytes, Tensor] = {}
        for key in self.store.keys(KIND, prefix):
            folder = self.store.open(key)
            if folder is None:
                continue
            os.utime(folder)
            shard = load_file(folder / SHARD)
            offsets = shard["offsets"].tolist()
            names = [bytes(name) for name in shard["names"].numpy()]
            found |= {n: shard["states"][a:b] for n, (a, b) in zip(names, pairwise(offsets), strict=True)}
        return found

    def _publish(self, prefix: str, names: list[bytes], states: list[Tensor]) -> None:
        offsets = np.cumsum([0, *map(len, states)])
        with self.store.staging() as folder:
            tensors = {
                "names": torch.from_numpy(np.frombuffer(b"".join(names), np.uint8).reshape(-1, NAME_BYTES).copy()),
                "offsets": torch.from_numpy(offsets),
                "states": torch.cat(states),
            }
            save_file(tensors, folder / SHARD)
            self.store.publish(f"{KIND}/{prefix}{folder_digest(folder)}", folder)

    def _evict(self, prefix: str) -> None:
        """Remove other prefixes' shards, the least recently used first, until the budget is kept."""
        sizes = {key: _size(self.store.root / key) for key in self.store.keys(KIND)}
        others = [key for key in sizes if not key.startswith(f"{KIND}/{prefix}")]
        excess = sum(sizes.values()) - self.budget
        for key in sorted(others, key=lambda key: (self.store.root / key).stat().st_mtime):
            if excess <= 0:
                return
            self.store.remove(key)
            excess -= sizes[key]


def prefix_digest(lower: nn.Module, max_tokens: int, arithmetic: Arithmetic) -> str:
    """The digest of the part below itself, tensor by tensor, and of all else that decides what it gives."""
    hashed = {
        name: hashlib.sha256(tensor.detach().cpu().contiguous().view(torch.uint8).numpy()).hexdigest()
        for name, tensor in lower.state_dict().items()
    }
    config: Any = lower.config
    facts = {"version": VERSION, "lengths": LENGTHS, "max_tokens": max_tokens, "precision": arithmetic.precision}
    return digest(facts | {"tensors": hashed, "config": config.to_json_string(), "environment": arithmetic.environment})


def _add(on_progress: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    on_progress(before + done, total)


def _compute(
    lower: nn.Module,
    encoder: TextEncoder,
    rows: Sequence[Sequence[int]],
    arithmetic: Arithmetic,
    on_progress: Callable[[int], None],
) -> list[Tensor]:
    lower.eval()
    device = next(lower.parameters()).device
    results: list[Tensor] = [torch.empty(0)] * len(rows)
    done = 0
    with torch.inference_mode(), arithmetic.autocast(device):
        for length, indices in inference_batches(rows, BATCH_TOKENS, encoder.max_tokens):
            ids, mask = encoder.pad([rows[index] for index in indices], length)
            states = lower(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
            for index, state in zip(indices, states.to(arithmetic.dtype).cpu(), strict=True):
                results[index] = state[: len(rows[index])]
            done += len(indices)
            on_progress(done)
    return results


def _shards(rows: Mapping[bytes, Sequence[int]], token_bytes: int) -> Iterator[dict[bytes, Sequence[int]]]:
    """The rows in parts whose activations have about SHARD_BYTES."""
    shard: dict[bytes, Sequence[int]] = {}
    size = 0
    for name, row in rows.items():
        shard[name] = row
        size += len(row) * token_bytes
        if size >= SHARD_BYTES:
            yield shard
            shard, size = {}, 0
    if shard:
        yield shard


def _row_name(row: Sequence[int]) -> bytes:
    return hashlib.sha256(np.asarray(row, np.int32).tobytes()).digest()[:NAME_BYTES]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
