"""The words of a text, which are what stands between white space, and what a model of their tags tells.

A word is told by the state of its first token, whatever the tokenizer makes of it. One that has no token, since the
text was cut before it or the tokenizer leaves it out, is not read, and told nothing.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .text import TextEncoder

WORD = re.compile(r"\S+")
UNREAD = -1
OUTSIDE = "O"
PREFIXES = {"B": "B", "I": "I", "E": "E", "L": "E", "S": "S", "U": "S"}
Part = tuple[str, str]  # of an entity: what a tag says of its word's place in it, and its type


def find_words(text: str) -> list[tuple[int, int]]:
    """Where each word begins and ends, in characters."""
    return [match.span() for match in WORD.finditer(text)]


def first_pieces(encoder: Any, texts: Sequence[Any]) -> list[np.ndarray]:
    """For each text, the place of each word's first token in its row, (words,); UNREAD of words without one.

    Raises ValueError if the tokenizer does not tell where tokens stand in a text.
    """
    if not texts:
        return []
    assert isinstance(encoder, TextEncoder)
    encodings = encoder.tokenize(texts).encodings
    if encodings is None:
        raise ValueError(f"{type(encoder.tokenizer).__name__} does not tell where in a text its tokens stand")
    return [_place(text, each.offsets) for text, each in zip(texts, encodings, strict=True)]


def _place(text: str, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """A token may take in white space before its word, or several words: it is the first one's then."""
    words = find_words(text)
    starts, found = [start for start, _ in words], np.full(len(words), UNREAD)
    for token, (begin, end) in enumerate(offsets):
        first = next((place for place in range(begin, end) if not text[place].isspace()), None)
        if first is not None:
            word = bisect_right(starts, first) - 1
            found[word] = token if found[word] == UNREAD else found[word]
    return found


def word_values(values: Sequence[np.ndarray], pieces: Sequence[np.ndarray], classes: Sequence[str]) -> np.ndarray:
    """(words, tags) of all texts' words in their order, 0 of those not read; of (tokens, tags) values of each text."""
    parts = [
        np.where((places == UNREAD)[:, None], 0.0, each[places]) for each, places in zip(values, pieces, strict=True)
    ]
    return np.concatenate([np.empty((0, len(classes))), *parts])


def tell_words(texts: Sequence[str], values: np.ndarray, classes: Sequence[str]) -> dict[str, list[Any]]:
    """Columns by name. tags, scores: of each word its tag and how likely it is, None of a word that was not read.

    entities: what each is, where it begins and ends in the text, in characters, and the mean of its words' scores.
    """
    columns: dict[str, list[Any]] = {"tags": [], "scores": [], "entities": []}
    done, parts = 0, parts_of(classes)
    for text in texts:
        words = find_words(text)
        rows = values[done : done + len(words)]
        told = [int(row.argmax()) if row.any() else None for row in rows]
        scores = [None if tag is None else float(row[tag]) for tag, row in zip(told, rows, strict=True)]
        columns["tags"].append([None if tag is None else classes[tag] for tag in told])
        columns["scores"].append(scores)
        spans = find_entities([None if tag is None else parts[tag] for tag in told])
        columns["entities"].append([_entity(kind, words[a:b], scores[a:b]) for kind, a, b in spans])
        done += len(words)
    return columns


def parts_of(tags: Sequence[str]) -> list[Part | None]:
    """What each tag says; None of the one outside. Without prefixes of any, each is an entity of a word."""
    has_prefixes = any(tag.startswith(("B-", "I-")) for tag in tags)

    def part(tag: str) -> Part | None:
        prefix, dash, kind = tag.partition("-")
        is_part = has_prefixes and dash and prefix in PREFIXES
        return None if tag == OUTSIDE else (PREFIXES[prefix], kind) if is_part else ("S", tag)

    return [part(tag) for tag in tags]


def find_entities(parts: Sequence[Part | None]) -> Iterator[tuple[str, int, int]]:
    """Type, first word, and the word after the last, by the rules of CoNLL-2000's conlleval."""
    start, before = 0, None
    for place, part in enumerate([*parts, None]):
        is_new = before is None or part is None or before[0] in "ES" or part[0] in "BS" or part[1] != before[1]
        if is_new and before is not None:
            yield before[1], start, place
        start = place if is_new else start
        before = part


def _entity(kind: str, words: Sequence[tuple[int, int]], scores: Sequence[float | None]) -> dict[str, Any]:
    sure = [score for score in scores if score is not None]
    return {"type": kind, "start": words[0][0], "end": words[-1][1], "score": sum(sure) / len(sure)}
