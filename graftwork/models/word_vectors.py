"""Word vectors as a checkpoint: the tokenizer that takes texts apart as the vectors want it, training, and the folder.

Unknown words get the mean of all vectors: what is known of a word of which nothing is known, so that it moves the mean
of a text as little as can be. Zero would be far from all where vectors have a direction in common, as GloVe's do.
A file that brings a vector of its own for them, under one of the names in UNKNOWN, is taken at its word.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from graftwork.checkpoints.safety import WEIGHTS
from graftwork.checkpoints.vector_files import WordVectors
from graftwork.data.leakage import TOKEN
from graftwork.errors import DataError, Problem, RecipeError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ARCHITECTURE = "word-vectors"
PADDING, UNKNOWN = "[PAD]", ("[UNK]", "<unk>")
# As near duplicates and the baseline tell words; each other mark is one, too.
SPLIT = rf"{TOKEN.pattern}|[^\w\s]"
# Of words that hold capitals; those of vectors of lower case have them by mistake.
CASED_SHARE = 0.01
TOLD_EVERY = 1000  # texts

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class VectorTraining:
    """How words become vectors. size: numbers of one. window: words on either side that are looked at.

    minimum_count: words that are rarer are unknown. kind: the words around are told from a word, or it from them.
    """

    size: int = 100
    window: int = 5
    epochs: int = 5
    minimum_count: int = 2
    seed: int = 1
    kind: Literal["skip-gram", "cbow"] = "skip-gram"


def is_cased(words: Sequence[str]) -> bool:
    """Whether these words tell great letters from small ones."""
    return sum(word != word.lower() for word in words) > CASED_SHARE * len(words)


def word_tokenizer(words: Sequence[str], is_lowered: bool) -> "Tokenizer":
    """A tokenizer whose ids are the places of these words, the first two of which pad, and stand for others."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN[0]))
    composed = normalizers.NFC()
    tokenizer.normalizer = normalizers.Sequence([composed, normalizers.Lowercase()]) if is_lowered else composed
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(SPLIT), "removed", invert=True)
    return tokenizer


def train_word_vectors(
    texts: Sequence[str], training: VectorTraining, is_lowered: bool, on_progress: Progress | None = None
) -> WordVectors:
    """Vectors of the words of these texts, the same ones each time. on_progress is told texts done, over all epochs.

    Raises RecipeError where gensim is not installed, DataError if no word is frequent enough.
    Method: Word2Vec with negative sampling (Mikolov et al. 2013), by gensim.
    """
    try:
        from gensim.models import Word2Vec
    except ImportError as error:
        raise RecipeError(Problem("gensim is not installed", hint="pip install 'graftwork[vectors]'")) from error
    tokenizer = word_tokenizer((PADDING, UNKNOWN[0]), is_lowered)
    sentences = Sentences([_cut(tokenizer, text) for text in texts], 1 + training.epochs, on_progress)
    model = Word2Vec(
        vector_size=training.size,
        window=training.window,
        min_count=training.minimum_count,
        sg=training.kind == "skip-gram",
        seed=training.seed,
        workers=1,  # several would share the rows of a table as they come, and give other numbers each time
    )
    model.build_vocab(sentences)
    if not len(model.wv):
        problem = f"none of their words is there {training.minimum_count} times"
        raise DataError(Problem(problem, f"{len(texts):,} texts", "lower --minimum-count"))
    model.train(sentences, total_examples=model.corpus_count, epochs=training.epochs)
    return WordVectors(tuple(model.wv.index_to_key), np.asarray(model.wv.vectors, np.float32))


@dataclass
class Sentences:
    """Texts as lists of words, for gensim to go through `rounds` times, and word of how far it is."""

    words: Sequence[list[str]]
    rounds: int
    on_progress: Progress | None
    done: int = 0

    def __iter__(self) -> Iterator[list[str]]:
        for words in self.words:
            yield words
            self.done += 1
            if self.on_progress and self.done % TOLD_EVERY == 0:
                self.on_progress(self.done, self.rounds * len(self.words))


def write_word_vectors(folder: Path, vectors: WordVectors, is_lowered: bool, card: str) -> WordVectors:
    """Write the files of a checkpoint into a folder; the vectors in it. card: its README.md.

    Words that are one to the tokenizer are one: the first of them counts.
    """
    from safetensors.numpy import save_file

    table, words = _with_special(vectors, is_lowered)
    (folder / "tokenizer.json").write_text(word_tokenizer(words, is_lowered).to_str(), encoding="utf-8")
    config = {"model_type": ARCHITECTURE, "hidden_size": table.shape[1], "vocab_size": len(words), "pad_token_id": 0}
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": PADDING, "unk_token": UNKNOWN[0]}
    for name, facts in (("config.json", config), ("tokenizer_config.json", names)):
        (folder / name).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    save_file({"embeddings.weight": table}, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / "README.md").write_text(card, encoding="utf-8")
    return WordVectors(words, table)


def _cut(tokenizer: "Tokenizer", text: str) -> list[str]:
    pieces = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
    return [piece for piece, _ in pieces]


def _with_special(vectors: WordVectors, is_lowered: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    """The table and its words as the tokenizer looks for them, each once, after padding and unknown words."""
    normalizer = word_tokenizer((PADDING, UNKNOWN[0]), is_lowered).normalizer
    kept: dict[str, int] = {}
    for index, word in enumerate(vectors.words):
        if word not in (PADDING, UNKNOWN[0]):
            kept.setdefault(normalizer.normalize_str(word), index)
    named = [vectors.words.index(name) for name in UNKNOWN if name in vectors.words]
    rows = vectors.table[list(kept.values())]
    unknown = vectors.table[named[0]] if named else rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    table = np.concatenate([np.zeros_like(unknown)[None], unknown[None], rows])
    return table, (PADDING, UNKNOWN[0], *kept)
