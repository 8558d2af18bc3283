"""What a writer's stage is trained on: rows with what is told of them, read anew or from the prefix cache."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from graftwork.models.prefix import cut_at
from graftwork.models.prefix_cache import ActivationRows, PrefixCache
from graftwork.models.serving.classifier import Classifier, hidden_size
from graftwork.models.writing import ReadRows, ToldRow, ToldRows, is_joined, told_rows
from graftwork.targets.learning import Learning
from graftwork.training.loop import Examples, StageData
from graftwork.training.stages import Stage

if TYPE_CHECKING:
    import pandas

Compute = Callable[[Callable[..., list[Tensor]], Sequence[Any]], list[Tensor]]


def writer_examples(rows: "pandas.DataFrame", inputs: Sequence[Any], encoder: Any, most: int) -> Examples:
    """Rows of texts whose labels are texts, too. most: tokens of a label that are told."""
    told = told_rows(encoder, inputs, rows["label"].tolist(), most)
    joined = is_joined(encoder)
    padder = ToldRows(ReadRows(encoder, encoder.max_tokens + most * joined), encoder.max_tokens + most, joined)
    return Examples(told, np.zeros(len(told), dtype=np.int64), padder, [row.tokens for row in told])


def writer_data(
    model: Classifier,
    stage: Stage,
    sides: tuple[Examples, Examples],
    learning: Learning,
    cache: PrefixCache,
    compute: Compute,
) -> StageData:
    """The training and the validation rows; where the stage is cut, as its frozen part gives what they read.

    compute: of what the cache is asked for of rows.
    """
    data = StageData(*sides, model.forward, criterion=learning.criterion, measure=learning.measure)
    if not stage.is_cut:
        return data
    cut, padder = cut_at(model, stage.cut), data.train.encoder
    assert isinstance(padder, ToldRows)
    reader = padder.read
    read = [row.read for examples in sides for row in examples.rows]
    found = iter(compute(lambda rows, tell: cache.activations(cut.lower, reader, rows, tell), read))
    pads = ActivationRows(hidden_size(model.body), reader.max_tokens, cache.arithmetic.dtype)

    def computed(examples: Examples) -> Examples:
        states = islice(found, len(examples.rows))
        rows = [ToldRow(each, row.told, row.tokens) for each, row in zip(states, examples.rows, strict=False)]
        return replace(examples, rows=rows, encoder=replace(padder, read=pads))

    return replace(data, train=computed(sides[0]), validation=computed(sides[1]), forward=cut.upper.forward)
