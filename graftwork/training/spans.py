"""Hidden spans of texts, for stages whose decoder tells them; see `graftwork.models.spans`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graftwork.models.beside import sentinel
from graftwork.models.masked import mean_loss, measure_hidden
from graftwork.models.serving.telling import IGNORED
from graftwork.models.serving.text import TextEncoder
from graftwork.models.spans import SpanModel, SpanRows, end_token
from graftwork.models.text import word_numbers
from graftwork.training.augmentation import NO_WORD, changed_once
from graftwork.training.loop import StageContext, StageData
from graftwork.training.pretraining import count_spans, most_sentinels
from graftwork.training.rows import RunRows


@dataclass(frozen=True)
class HiddenSpans:
    """A share of a text's tokens, at least one, is hidden in spans of a mean length; the body reads a token for each.

    What is told is each such token with its span, one more that says that there is none left, and the end token. Tokens
    that are no part of a word stay. words: as of WordDropout. sentinels: the tokens that stand for spans.
    Method: T5 (Raffel et al. 2020), whose spans may here lie at either end of a text.
    """

    share: float
    span: float
    words: Sequence[np.ndarray]
    sentinels: np.ndarray
    end: int

    def __call__(self, index: int, row: Sequence[int], generator: np.random.Generator) -> Tensor:
        """A row of `graftwork.models.spans`."""
        ids, own = np.asarray(row), self.words[index] != NO_WORD
        is_hidden = np.zeros(len(ids), bool)
        is_hidden[own] = draw_spans(int(own.sum()), self.share, self.span, generator)
        is_start = is_hidden & ~np.append(False, is_hidden[:-1])
        spans = int(is_start.sum())
        read = np.array(ids)
        read[is_start] = self.sentinels[:spans]
        told = np.insert(ids[is_hidden], np.flatnonzero(is_start[is_hidden]), self.sentinels[:spans])
        columns = read[~is_hidden | is_start], np.append(told, [self.sentinels[spans], self.end])
        found = np.full((max(map(len, columns)), 2), IGNORED)
        for place, column in enumerate(columns):
            found[: len(column), place] = column
        return torch.from_numpy(found)

    def length(self, tokens: int) -> int:
        """Tokens of the longer column of a row of so many at most."""
        return max(
            tokens, count_spans(tokens, self.share, self.span)[0] + 1 + most_sentinels(tokens, self.share, self.span)
        )


def draw_spans(tokens: int, share: float, span: float, generator: np.random.Generator) -> np.ndarray:
    """Which of so many tokens are hidden, (tokens,): any so many spans, none beside another, are as likely."""
    hidden, spans = count_spans(tokens, share, span)
    is_hidden = np.zeros(tokens, bool)
    if not hidden:
        return is_hidden
    ends = np.append(np.sort(generator.choice(hidden - 1, spans - 1, replace=False)) + 1, hidden)
    before = np.sort(generator.choice(tokens - hidden + 1, spans, replace=False))  # tokens that stay, of each span
    for start, first, last in zip(before, np.append(0, ends[:-1]), ends, strict=True):
        is_hidden[start + first : start + last] = True
    return is_hidden


def sentinels_of(encoder: TextEncoder, count: int) -> np.ndarray:
    """The first of its tokens that stand for spans."""
    return np.array(encoder.tokenizer.convert_tokens_to_ids([sentinel(number) for number in range(count)]), np.int64)


def span_data(learner: SpanModel, rows: RunRows, share: float, span: float, context: StageContext) -> StageData:
    """The rows with a share of their tokens in spans: in training others in each epoch, in validation the same ones."""
    encoder: Any = rows.encoder
    sentinels = sentinels_of(encoder, most_sentinels(encoder.max_tokens, share, span))
    end = end_token(learner.model, encoder)

    def hide(texts: list[Any]) -> HiddenSpans:
        return HiddenSpans(share, span, word_numbers(encoder, texts), sentinels, end)

    changing, fixed = hide(rows.train_inputs), hide(rows.validation_inputs)
    validation = changed_once(fixed, rows.validation.rows, context.epoch(0))
    padder = SpanRows(encoder, fixed.length(encoder.max_tokens))
    lengths = [changing.length(length) for length in rows.train.lengths]
    return StageData(
        train=replace(rows.train, lengths=lengths, encoder=padder, augmentations=(changing,)),
        validation=replace(rows.validation, rows=validation, encoder=padder),
        forward=learner.forward,
        criterion=mean_loss,
        measure=measure_hidden,
    )
