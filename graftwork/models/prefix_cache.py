"""Activations at the boundary between what is frozen and what is trained: computed once for each row, then kept.

Where the whole body is frozen, that is one pooled vector for each row. Rows are padded to canonical lengths when they
are computed, so that what a row gives depends on its tokens alone and not on the rows beside it. Shards lie in the
store as `activations/<prefix digest><shard digest>`. The prefix digest covers the frozen tensors themselves and all
else that decides bits, so that new data pays for new rows only.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from graftwork.fingerprint import digest, folder_digest
from graftwork.models.serving.classifier import Classifier, hidden_size
from graftwork.models.serving.inference import BATCH_TOKENS, LENGTHS, autocast, inference_batches
from graftwork.models.serving.model import Encoder
from graftwork.models.text import attention_of, environment_facts
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
class VectorRows:
    """Pooled vectors, each (1, width), in the place of token ids: nothing is padded."""

    max_tokens: int = 1

    def pad(self, rows: Sequence[Tensor], _length: int) -> tuple[Tensor, Tensor]:
        """Vectors, (rows, width), and a mask that means nothing, (rows, 1)."""
        return torch.cat(list(rows)), torch.ones(len(rows), 1, dtype=torch.long)


@dataclass(frozen=True)
class Arithmetic:
    """How activations are computed. environment: what of the machine and the libraries decides their bits."""

    precision: str
    environment: tuple[str, ...]

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.precision)


def arithmetic_of(model: Classifier, precision: str) -> Arithmetic:
    """The arithmetic of this process, by the model's device and attention kernel."""
    facts = environment_facts(next(model.parameters()).device, attention_of(model))
    return Arithmetic(precision, tuple(map(str, facts.values())))


@dataclass(frozen=True)
class FrozenPart:
    """An encoder, or its lower blocks, and what is kept of it.

    pooling: of its activations into one vector a row; None if each token's are kept. compute: ids and mask, both
    (batch, tokens), to (batch, tokens, width), or (batch, 1, width) where it pools. width: of what is kept. above: the
    tensors of what is computed on top of the body, if anything is.
    """

    body: nn.Module
    pooling: str | None
    compute: Callable[[Tensor, Tensor], Tensor]
    width: int
    above: Mapping[str, Tensor] = field(default_factory=dict)


class PrefixCache:
    """The activations that a store keeps, computed by one arithmetic.

    budget: of bytes; beyond it, what was not used for longest is removed.
    """

    def __init__(self, store: Store, budget: int, arithmetic: Arithmetic) -> None:
        self.store, self.budget, self.arithmetic = store, budget, arithmetic

    def activations(
        self,
        lower: nn.Module,
        encoder: Encoder,
        rows: Sequence[Any],
        on_progress: Callable[[int, int], None],
    ) -> list[Tensor]:
        """What `lower` gives for each row of token ids, (tokens, width); what is not there yet is computed.

        on_progress is told how many rows of how many are computed; it may raise to stop, and finished shards stay.
        """

        def compute(ids: Tensor, mask: Tensor) -> Tensor:
            return lower(input_ids=ids, attention_mask=mask).last_hidden_state.to(self.arithmetic.dtype)

        return self.rows(FrozenPart(lower, None, compute, hidden_size(lower)), encoder, rows, on_progress)

    def vectors(
        self,
        model: Classifier,
        encoder: Encoder,
        rows: Sequence[Any],
        on_progress: Callable[[int, int], None],
    ) -> list[Tensor]:
        """The pooled vector of each row of token ids, (1, width) float32, where pooling learns nothing.

        Else as `activations`.
        """

        def compute(ids: Tensor, mask: Tensor) -> Tensor:
            return model.features(ids, mask).float().unsqueeze(1)

        part = FrozenPart(model.body, model.pool.kind, compute, hidden_size(model.body))
        return self.rows(part, encoder, rows, on_progress)

    def logits(
        self,
        model: Classifier,
        encoder: Encoder,
        rows: Sequence[Any],
        on_progress: Callable[[int, int], None],
    ) -> list[Tensor]:
        """The logits that a whole classifier gives each row, (1, classes) float32. Else as `activations`."""

        def compute(ids: Tensor, mask: Tensor) -> Tensor:
            return model(ids, mask).float().unsqueeze(1)

        above = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("body.")}
        part = FrozenPart(model.body, model.pool.kind, compute, model.head[-1].out_features, above)
        return self.rows(part, encoder, rows, on_progress)

    def rows(
        self,
        part: FrozenPart,
        encoder: Encoder,
        rows: Sequence[Any],
        on_progress: Callable[[int, int], None],
    ) -> list[Tensor]:
        """What the frozen part gives for each row; else as `activations`."""
        prefix = prefix_digest(part, encoder.facts, self.arithmetic)
        names = [row_name(encoder.content(row)) for row in rows]
        found = self._open_shards(self.store.keys(KIND, prefix))
        missing = {name: row for name, row in zip(names, rows, strict=True) if name not in found}
        done, published = 0, []
        for shard in _shards(missing, part.width * self.arithmetic.dtype.itemsize):
            tell = partial(_add, on_progress, done, len(missing))
            states = _compute(part, encoder, list(shard.values()), self.arithmetic, tell)
            published.append(self._publish(prefix, list(shard), states))
            done += len(shard)
        if missing:
            found |= self._open_shards(published)
            self._evict(prefix)
        return [found[name] for name in names]

    def names(self, prefix: str) -> set[bytes]:
        """The names of the rows that are there."""
        return set(self._open_shards(self.store.keys(KIND, prefix)))

    def _open_shards(self, keys: Iterable[str]) -> dict[bytes, Tensor]:
        """The rows of the whole ones among these shards, mapped from their files; a damaged one is as good as none."""
        found: dict[bytes, Tensor] = {}
        for key in keys:
            folder = self.store.open(key)
            if folder is None:
                continue
            os.utime(folder)
            shard = load_file(folder / SHARD)
            offsets = shard["offsets"].tolist()
            names = [bytes(name) for name in shard["names"].numpy()]
            found |= {n: shard["states"][a:b] for n, (a, b) in zip(names, pairwise(offsets), strict=True)}
        return found

    def _publish(self, prefix: str, names: list[bytes], states: list[Tensor]) -> str:
        offsets = np.cumsum([0, *map(len, states)])
        with self.store.staging() as folder:
            tensors = {
                "names": torch.from_numpy(np.frombuffer(b"".join(names), np.uint8).reshape(-1, NAME_BYTES).copy()),
                "offsets": torch.from_numpy(offsets),
                "states": torch.cat(states),
            }
            save_file(tensors, folder / SHARD)
            key = f"{KIND}/{prefix}{folder_digest(folder)}"
            self.store.publish(key, folder)
        return key

    def _evict(self, prefix: str) -> None:
        """Remove other prefixes' shards, the least recently used first, until the budget is kept."""
        used = {key: _usage(self.store.root / key) for key in self.store.keys(KIND)}
        excess = sum(size for _, size in used.values()) - self.budget
        for key in sorted(used, key=lambda key: used[key]):
            if excess <= 0:
                return
            if not key.startswith(f"{KIND}/{prefix}"):
                self.store.remove(key)
                excess -= used[key][1]


def prefix_digest(part: FrozenPart, preparation: Mapping[str, Any], arithmetic: Arithmetic) -> str:
    """The digest of the frozen part itself, tensor by tensor, and of all else that decides what it gives.

    preparation: what decides, beside a row's content, what the part is given of it.
    """
    hashed = _hashes(part.body.state_dict())
    config: Any = part.body.config
    facts = {"version": VERSION, "lengths": LENGTHS, "precision": arithmetic.precision, **preparation}
    facts |= {"pooling": part.pooling, "environment": arithmetic.environment}
    facts |= {"above": _hashes(part.above)} if part.above else {}
    return digest(facts | {"tensors": hashed, "config": config.to_json_string()})


def _hashes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {
        name: hashlib.sha256(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()).hexdigest()
        for name, tensor in tensors.items()
    }


def row_name(content: bytes) -> bytes:
    """What a row is found by: a digest of its token ids, or of what stands in their place."""
    return hashlib.sha256(content).digest()[:NAME_BYTES]


def _add(on_progress: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    on_progress(before + done, total)


def _compute(
    part: FrozenPart,
    encoder: Encoder,
    rows: Sequence[Any],
    arithmetic: Arithmetic,
    on_progress: Callable[[int], None],
) -> list[Tensor]:
    part.body.eval()
    device = next(part.body.parameters()).device
    results: list[Tensor] = [torch.empty(0)] * len(rows)
    done = 0
    with torch.inference_mode(), autocast(device, arithmetic.precision):
        for length, indices in inference_batches(rows, BATCH_TOKENS, encoder.max_tokens):
            ids, mask = encoder.pad([rows[index] for index in indices], length)
            for index, state in zip(indices, part.compute(ids.to(device), mask.to(device)).cpu(), strict=True):
                results[index] = state[: len(rows[index])]  # all there is of a pooled row
            done += len(indices)
            on_progress(done)
    return results


def _shards(rows: Mapping[bytes, Any], token_bytes: int) -> Iterator[dict[bytes, Any]]:
    """The rows in parts whose activations, pooled or not, have about SHARD_BYTES: what a stop loses at most."""
    shard: dict[bytes, Any] = {}
    size = 0
    for name, row in rows.items():
        shard[name] = row
        size += len(row) * token_bytes
        if size >= SHARD_BYTES:
            yield shard
            shard, size = {}, 0
    if shard:
        yield shard


def _usage(folder: Path) -> tuple[float, int]:
    """When a shard was last used, and its bytes; none if another process has just removed it."""
    try:
        return folder.stat().st_mtime, sum(path.stat().st_size for path in folder.iterdir())
    except FileNotFoundError:
        return 0.0, 0
