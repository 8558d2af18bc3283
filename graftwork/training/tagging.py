"""Learning a tag for each word: labels stand where a row has the first token of a word, and a word counts as a word.

So a row is the same token ids as of any text, and whatever computes, keeps or augments rows knows nothing of words.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from graftwork.errors import CheckpointError, Problem
from graftwork.models.serving.words import UNREAD, first_pieces
from graftwork.targets.token_classification import IGNORED, mean_loss, measure_words, tag_codes
from graftwork.training.loop import StageData

LONGEST = np.int16  # what a tag's index fits into


def place_tags(encoder: Any, texts: Sequence[Any], labels: Sequence[str], longest: int) -> np.ndarray:
    """(rows, longest): the tag of the word that a token is the first of, IGNORED elsewhere.

    labels: as they are stored. longest: tokens of the longest row. Raises CheckpointError if the tokenizer does not
    tell where in a text its tokens stand.
    """
    try:
        pieces = first_pieces(encoder, texts)
    except ValueError as error:
        raise CheckpointError(Problem(f"its words can't be tagged: {error}", "checkpoint.source")) from error
    placed = np.full((len(texts), longest), IGNORED, dtype=LONGEST)
    for row, places, label in zip(placed, pieces, labels, strict=True):
        is_read = places != UNREAD
        row[places[is_read]] = np.array(label.split(), dtype=LONGEST)[is_read]
    return placed


def by_word(data: StageData, tags: Sequence[str], label_smoothing: float) -> StageData:
    """The same data for learning tags of words, of which the forward pass gives (rows, tokens, tags) logits.

    A mean is over the words of all rows, however they are dealt into batches and to processes.
    """
    width = max(data.train.labels.shape[1], data.validation.labels.shape[1])
    return replace(
        data,
        forward=partial(_of_width, data.forward, width),
        criterion=partial(mean_loss, label_smoothing=label_smoothing),
        measure=partial(measure_words, codes=tag_codes(tags)),
        weights=(data.train.labels != IGNORED).sum(axis=1).astype(np.float64),
    )


def _of_width(forward: Callable[[Tensor, Tensor], Tensor], width: int, inputs: Tensor, mask: Tensor) -> Tensor:
    """Logits of so many tokens a row, whatever its batch was padded to, so that those of all rows can be one tensor."""
    logits = forward(inputs, mask)[:, :width]
    return nn.functional.pad(logits, (0, 0, 0, width - logits.shape[1]))
