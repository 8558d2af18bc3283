"""Texts, as token ids."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .config import Text


class TextEncoder:
    """Texts to token ids, with the checkpoint's own tokenizer.

    prompt: what is read in the place of a text, or of two, with their columns in braces. keeps_end: of what is too long
    the beginning is cut, not the end.
    """

    def __init__(
        self,
        folder: Path,
        max_tokens: int,
        prompt: str | None = None,
        columns: Sequence[str] = (),
        keeps_end: bool = False,
    ) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from transformers import AutoTokenizer
        from transformers.utils import logging

        logging.set_verbosity_error()  # of bodies that it does not know it would say so
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        self.max_tokens, self.prompt, self.columns = max_tokens, prompt, tuple(columns)
        self.keeps_end = keeps_end
        if keeps_end:
            self.tokenizer.truncation_side = "left"

    def encode(self, texts: Sequence[Text]) -> list[list[int]]:
        """The ids of each text or pair, cut to `max_tokens`, special tokens included; at least one."""
        rows = self.tokenize(texts)["input_ids"] if texts else []
        return [row or [self.filler] for row in rows]

    @property
    def filler(self) -> int:
        """The token that pads, and stands for a text that has none: one that means nothing, if there is one."""
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        return int(next((token for token in known if token is not None), 0))

    @property
    def facts(self) -> dict[str, Any]:
        """What decides, beside a row's own content, what the body is given of it."""
        return {"max_tokens": self.max_tokens}

    def content(self, row: Sequence[int]) -> bytes:
        """What rows that are the same have in common: their ids."""
        return np.asarray(row, np.int32).tobytes()

    def tokenize(self, texts: Sequence[Text], **options: Any) -> Any:
        """What the tokenizer says of these texts or pairs, of which there is at least one; options: of its own."""
        given = texts if self.prompt is None else [fill(self.prompt, self.columns, text) for text in texts]
        pairs = [text if isinstance(text, tuple) else (text, None) for text in given]
        firsts, seconds = zip(*pairs, strict=True)
        second = None if seconds[0] is None else list(seconds)
        cut = {"truncation": True, "max_length": self.max_tokens}
        return self.tokenizer(list(firsts), second, **cut | options)

    def pad(self, rows: Sequence[Sequence[int]], length: int) -> tuple[Tensor, Tensor]:
        """Ids and attention mask, both (rows, length)."""
        ids = torch.full((len(rows), length), self.filler)
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        return ids, mask


def fill(prompt: str, columns: Sequence[str], text: Text) -> str:
    """The prompt with each column that it names in braces as the row has it."""
    cells = dict(zip(columns, text if isinstance(text, tuple) else (text,), strict=True))
    named = "|".join(re.escape(f"{{{column}}}") for column in columns)
    return re.sub(named, lambda match: cells[match[0][1:-1]], prompt)
