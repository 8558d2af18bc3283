"""Pictures, as numbers. They are decoded when a batch is made of them, so that a set of any size fits into memory."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, SupportsBytes

import numpy as np
import torch
from torch import Tensor

from .config import PixelConfig
from .pictures import decode_image, fit_image


class ImageRow:
    """A picture that is read when it is needed. tokens: what it counts in a batch."""

    def __init__(self, data: SupportsBytes, tokens: int) -> None:
        self.data, self.tokens = data, tokens

    def __len__(self) -> int:
        return self.tokens


class ImageEncoder:
    """Encoded pictures (JPEG, PNG, …) to rows, and rows to batches of pixels."""

    def __init__(self, pixels: PixelConfig) -> None:
        self.pixels = pixels
        self.max_tokens = pixels.tokens
        self.mean, self.std = (torch.tensor(each).view(3, 1, 1) for each in (pixels.mean, pixels.std))

    @property
    def facts(self) -> dict[str, Any]:
        """What decides, beside a row's own content, what the body is given of it."""
        return {"pixels": asdict(self.pixels)}

    def encode(self, inputs: Sequence[SupportsBytes]) -> list[ImageRow]:
        """A row for each encoded picture; nothing is decoded yet."""
        return [ImageRow(data, self.max_tokens) for data in inputs]

    def content(self, row: ImageRow) -> bytes:
        """What rows that are the same have in common: their bytes."""
        return bytes(row.data)

    def pad(self, rows: Sequence[ImageRow | np.ndarray], _length: int) -> tuple[Tensor, Tensor]:
        """(rows, 3, side, side) pixels and a mask that means nothing, (rows, 1).

        rows: pictures, or the (side, side, 3) uint8 that augmentation has made of them.
        """
        arrays = [row if isinstance(row, np.ndarray) else self.fit(row) for row in rows]
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float().div_(255)
        return pixels.sub_(self.mean).div_(self.std), torch.ones(len(rows), 1, dtype=torch.long)

    def fit(self, row: ImageRow) -> np.ndarray:
        """(side, side, 3) uint8."""
        return np.asarray(fit_image(decode_image(bytes(row.data)), self.pixels.side, self.pixels.edge))
