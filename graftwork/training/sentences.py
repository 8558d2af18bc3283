"""Pairs of parts of texts, for stages that learn whether one follows the other; see `graftwork.models.sentences`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graftwork.errors import Problem, TrainingError
from graftwork.models.masked import MaskedRows, mean_loss, token_table
from graftwork.models.sentences import FIRST, FOLLOWS, FOREIGN, NextSentenceModel, measure_pairs
from graftwork.models.serving.config import Text
from graftwork.models.serving.text import TextEncoder
from graftwork.models.text import blank_token
from graftwork.training.augmentation import NO_WORD, HiddenWords, changed_once
from graftwork.training.loop import StageContext, StageData
from graftwork.training.rows import RunRows

# A sentence ends at a line's end; at a mark that white space follows, or a quote or bracket that closes and then white
# space; and in scripts without spaces at a mark, with what closes after it. No list of abbreviations: "Dr." ends one.
SENTENCE = re.compile(
    r"\S.*?(?:[.!?…।॥؟۔։።][\"'”’»)\]]{0,3}(?=\s|\Z)|[。！？｡][」』”’）]{0,3}(?![。！？｡」』”’）])|(?=[\r\n])|\Z)",
    re.DOTALL,
)
AROUND = 3  # tokens around two parts
LEAST = AROUND + 2  # tokens of the shortest pair

Sentence = np.ndarray  # (2, tokens): ids, and the number of the word in the sentence that each is part of


def split_sentences(text: Text) -> list[str]:
    """The sentences of a text; a pair of texts is its two."""
    return list(text) if isinstance(text, tuple) else [each.strip() for each in SENTENCE.findall(text)]


@dataclass(frozen=True)
class SentencePairs:
    """Of each text's sentences those before a place, and those after it or, half the time, after one of another text.

    Of what is longer than `max_tokens`, what is nearest to the place stays, in whole sentences where one fits. A text
    of one sentence is one part. Words of both parts are hidden. others: texts of two sentences or more, each once.
    places: of each row's text among these; None where it is none. begin, end: tokens around the parts. hiding: what
    hides the words that it is given, in the place of its own.
    """

    others: Sequence[Sequence[Sentence]]
    places: Sequence[int | None]
    max_tokens: int
    begin: int
    end: int
    hiding: HiddenWords

    def __call__(self, index: int, row: Sequence[Sentence], generator: np.random.Generator) -> Tensor:
        """A row of `graftwork.models.sentences` of these sentences."""
        place = self.places[index]
        if place is None:
            parts, second = [_leading(row, self.max_tokens - AROUND + 1)], FIRST
        else:
            parts, second = self._draw(row, place, generator)
        ids, words = self._join(parts)
        hidden = replace(self.hiding, words=[words])(0, ids.tolist(), generator)
        first = 2 + parts[0].shape[1]
        return torch.cat([hidden, torch.where(torch.arange(len(ids)) < first, FIRST, second)[:, None]], dim=1)

    def length(self, row: Sequence[Sentence]) -> int:
        """Tokens of a row of these sentences at most."""
        return min(self.max_tokens, AROUND + _size(row))

    def _draw(self, row: Sequence[Sentence], place: int, generator: np.random.Generator) -> tuple[list[Sentence], int]:
        """Two parts, and what the second is. place: of the text among the others."""
        cut, is_foreign = int(generator.integers(1, len(row))), generator.random() < 0.5
        room = self.length(row) - AROUND
        first = _trailing(row[:cut], max(room // 2, room - _size(row[cut:])))
        after, second = row[cut:], FOLLOWS
        if is_foreign and len(self.others) > 1:
            drawn = int(generator.integers(0, len(self.others) - 1))
            other = self.others[drawn + (drawn >= place)]
            after, second = other[int(generator.integers(1, len(other))) :], FOREIGN
        return [first, _leading(after, room - first.shape[1])], second

    def _join(self, parts: Sequence[Sentence]) -> Sentence:
        """The parts as one, with tokens around them that are no words."""
        end = np.array([[self.end], [NO_WORD]])
        joined = [np.array([[self.begin], [NO_WORD]])]
        words = _numbered(parts)
        for part in words:
            joined += [part, end]
        return np.concatenate(joined, axis=1)


def _numbered(parts: Sequence[Sentence]) -> list[Sentence]:
    """The same, words of each numbered on from those before it; of a part that was cut, those that it still has."""
    found, known = [], 0
    for ids, words in parts:
        numbers = known + np.unique(words, return_inverse=True)[1]
        known = 1 + numbers.max(initial=known - 1)
        found.append(np.stack([ids, numbers]))
    return found


def _size(sentences: Sequence[Sentence]) -> int:
    return sum(each.shape[1] for each in sentences)


def _leading(sentences: Sequence[Sentence], room: int) -> Sentence:
    """As many of the first as so many tokens hold, or the beginning of the first."""
    count = sum(total <= room for total in accumulate(each.shape[1] for each in sentences))
    return _as_one(sentences[: max(1, count)])[:, :room]


def _trailing(sentences: Sequence[Sentence], room: int) -> Sentence:
    """As many of the last as so many tokens hold, or the end of the last."""
    count = sum(total <= room for total in accumulate(each.shape[1] for each in reversed(sentences)))
    return _as_one(sentences[-max(1, count) :])[:, -room:]


def _as_one(sentences: Sequence[Sentence]) -> Sentence:
    return np.concatenate([np.zeros((2, 0), np.int64), *_numbered(sentences)], axis=1)


def encode_sentences(encoder: TextEncoder, texts: Sequence[Text]) -> list[list[Sentence]]:
    """The sentences of each text that have tokens, without tokens around them."""
    split = [split_sentences(text) for text in texts]
    flat = [sentence for text in split for sentence in text]
    encodings = encoder.tokenizer(flat, add_special_tokens=False, verbose=False).encodings if flat else []
    every = iter([np.array([each.ids, each.word_ids], np.int64).reshape(2, -1) for each in encodings])
    found = [[next(every) for _ in text] for text in split]
    return [[sentence for sentence in text if sentence.shape[1]] for text in found]


def make_pairs(
    encoder: TextEncoder, texts: Sequence[Text], rows: Sequence[Sequence[Sentence]], hiding: HiddenWords
) -> SentencePairs:
    """The pairs of these texts, whose sentences the rows are."""
    paired = {text: row for text, row in zip(texts, rows, strict=True) if len(row) > 1}
    places = {text: place for place, text in enumerate(paired)}
    tokenizer = encoder.tokenizer
    return SentencePairs(
        others=list(paired.values()),
        places=[places.get(text) for text in texts],
        max_tokens=max(LEAST, encoder.max_tokens),
        begin=tokenizer.cls_token_id,
        end=tokenizer.sep_token_id,
        hiding=hiding,
    )


def sentence_data(
    learner: NextSentenceModel, rows: RunRows, share: float, stage: str, context: StageContext
) -> StageData:
    """The rows as pairs, a share of their words hidden: in training others in each epoch, in validation the same ones.

    Raises TrainingError where no text has a second sentence, or no other has.
    """
    encoder: Any = rows.encoder
    words = HiddenWords(share, [], blank_token(encoder), len(token_table(learner.model.body)))
    sides = [encode_sentences(encoder, texts) for texts in (rows.train_inputs, rows.validation_inputs)]
    pairs, fixed = (
        make_pairs(encoder, texts, side, words)
        for texts, side in zip((rows.train_inputs, rows.validation_inputs), sides, strict=True)
    )
    if len(pairs.others) < 2:
        problem = (
            f"{len(pairs.others)} of {len(sides[0])} texts have two sentences, of which each has to find another's"
        )
        raise TrainingError(Problem(problem, f"stage {stage!r}", "masked-language-modelling needs no second sentence"))
    single = sum(place is None for place in pairs.places)
    context.report({"event": "paired", "stage": stage, "rows": len(sides[0]), "single": single})
    validation = changed_once(fixed, sides[1], context.epoch(0))
    padder = MaskedRows(encoder, FIRST)
    padder.max_tokens = pairs.max_tokens
    train = replace(rows.train, rows=sides[0], lengths=[pairs.length(row) for row in sides[0]])
    return StageData(
        train=replace(train, encoder=padder, augmentations=(pairs,)),
        validation=replace(rows.validation, rows=validation, encoder=padder),
        forward=learner.forward,
        criterion=mean_loss,
        measure=measure_pairs,
    )
