"""Files of word vectors: those of gensim read back as they were, and what is wrong with others is said by line."""

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors

from graftwork.checkpoints.vector_files import read_vectors
from graftwork.errors import CheckpointError

WORDS = ["the", "film", "naïve", "电影", "don't", "new_york"]


@pytest.fixture
def vectors() -> KeyedVectors:
    keyed = KeyedVectors(7)
    table = np.random.default_rng(3).standard_normal((len(WORDS), 7)).astype(np.float32)
    keyed.add_vectors(WORDS, table)
    return keyed


def as_glove(path: Path, words: list[str], table: np.ndarray) -> None:
    lines = (" ".join([word, *map(str, row)]) for word, row in zip(words, table.tolist(), strict=True))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


FORMATS: dict[str, Callable[[KeyedVectors, Path], None]] = {
    "vectors.txt": lambda keyed, path: keyed.save_word2vec_format(path),
    "vectors.vec": lambda keyed, path: keyed.save_word2vec_format(path),
    "vectors.bin": lambda keyed, path: keyed.save_word2vec_format(path, binary=True),
    "binary without a suffix": lambda keyed, path: keyed.save_word2vec_format(path, binary=True),
    "glove.txt": lambda keyed, path: as_glove(path, WORDS, keyed.vectors),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_is_read(name: str, zipped: bool, vectors: KeyedVectors, tmp_path: Path) -> None:
    """Every word in its order and every number to the bit, as gensim reads the same file."""
    path = tmp_path / name
    FORMATS[name](vectors, path)
    theirs = KeyedVectors.load_word2vec_format(path, binary="bin" in name, no_header="glove" in name)
    if zipped:
        path = path.with_name(f"{name}.gz")
        path.write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    ours = read_vectors(path)
    assert list(ours.words) == theirs.index_to_key == WORDS
    assert ours.table.dtype == np.float32
    np.testing.assert_array_equal(ours.table, theirs.vectors)


def test_a_binary_file_of_the_first_program_is_read(vectors: KeyedVectors, tmp_path: Path) -> None:
    """word2vec itself ended each entry with a line break; a number may hold the byte of one, or of a space."""
    table = np.frombuffer(b"\n \n \n \n " * 2, "<f4").reshape(2, 2)
    entries = [word.encode() + b" " + row.tobytes() + b"\n" for word, row in zip(WORDS, table, strict=False)]
    (tmp_path / "old.bin").write_bytes(b"2 2\n" + b"".join(entries))
    found = read_vectors(tmp_path / "old.bin")
    assert found.words == ("the", "film")
    np.testing.assert_array_equal(found.table, table)


@pytest.mark.parametrize("name", FORMATS)
def test_the_first_words_are_kept(name: str, vectors: KeyedVectors, tmp_path: Path) -> None:
    """Those and no others; what comes after them is not looked at."""
    FORMATS[name](vectors, tmp_path / name)
    whole, few = read_vectors(tmp_path / name), read_vectors(tmp_path / name, 2)
    assert few.words == whole.words[:2]
    np.testing.assert_array_equal(few.table, whole.table[:2])
    with (tmp_path / name).open("ab") as stream:
        stream.write(b"\xff damage")
    assert read_vectors(tmp_path / name, 2).words == few.words
    with pytest.raises(CheckpointError):
        read_vectors(tmp_path / name)


def test_a_word_of_glove_may_hold_spaces(tmp_path: Path) -> None:
    """Its numbers are counted from the end of the line."""
    (tmp_path / "glove.txt").write_text("the 1 2\n. . . 3 4\nat name@domain.com 5 6\n")
    found = read_vectors(tmp_path / "glove.txt")
    assert found.words == ("the", ". . .", "at name@domain.com")
    assert found.table.tolist() == [[1, 2], [3, 4], [5, 6]]


BROKEN = {
    "nothing": (b"", "it holds no word"),
    "blank lines": (b"\n\n\n", "it holds no word"),
    "only a header": (b"3 2\n", "it holds no word"),
    "fewer than the header says": (b"3 2\na 1 2\nb 1 2\n", "line 1: the header says 3 words, it holds 2"),
    "more than the header says": (b"1 2\na 1 2\nb 1 2\n", "line 1: the header says 1 words, it holds 2"),
    "far fewer than the header says": (
        b"999999999999 300\na 1 2\n",
        "line 2: expected a word and 300 numbers, found 2",
    ),
    "a vector of the header that nobody has": (b"3 999999999\na 1 2\n", "line 1: vectors of 999,999,999 numbers"),
    "vectors of nothing": (b"3 0\na\n", "line 1: vectors of 0 numbers"),
    "too few numbers": (b"a 1 2\nb 1\n", "line 2: expected a word and 2 numbers, found 1"),
    "too many numbers": (b"a 1 2\nb 1 2 3\n", "line 2: expected a word and 2 numbers, found 3"),
    "no numbers": (b"once upon a time\n", "line 1: 'upon' is no number"),
    "a word alone": (b"once\n", "line 1: expected a word and 1 to 4,096 numbers, found 0"),
    "no word": (b"a 1 2\n 1 2\n", "line 2: "),
    "no number": (b"a 1 2\nb 1 two\n", "line 2: 'two' is no number"),
    "NaN": (b"a 1 2\nb nan 2\n", "line 2: number 1 of its vector is nan"),
    "infinity": (b"a 1 2\nb 1 1e99\n", "line 2: number 2 of its vector is inf"),
    "a word twice": (b"a 1 2\nb 1 2\na 3 4\n", "line 3: the word 'a' is there already, in line 1"),
    "no UTF-8": (b"a 1 2\n\xff\xfe 1 2\n", "line 2: the word is not UTF-8"),
    "a line without end": (b"a " + b"1 " * 100_000, "line 1: it has more than 135,168 bytes"),
    "a pickle": (b"\x80\x04\x95" + bytes(300), "line 1: "),
    "binary, cut off in numbers": (b"2 2\na " + bytes(8) + b"b " + bytes(7), "word 2: the file ends in the middle"),
    "binary, cut off in a word": (b"2 2\na " + bytes(8) + b"b", "word 2: the file ends in the middle"),
    "binary, NaN": (b"1 1\na " + np.float32(np.nan).tobytes() + bytes(1), "word 1: number 1 of its vector is nan"),
    "binary, twice": (b"2 1\na " + bytes(4) + b"a " + bytes(4), "word 2: the word 'a' is there already, in word 1"),
    "binary, no end of a word": (b"2 1\n\x00" + b"a" * 5000, "word 1: it has more than 4,096 bytes"),
    "binary, no word": (b"1 1\n " + bytes(4), "word 1: there is none before its numbers"),
    "half a gzip": (gzip.compress(b"a 1 2\nb 1 2\nc 2 3\n")[:20], "it can't be read"),
    "a damaged gzip": (b"\x1f\x8b" + bytes(40), "it can't be read"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_is_said_by_line(case: str, tmp_path: Path) -> None:
    """One message for a person, with the file and the place in it."""
    content, message = BROKEN[case]
    path = tmp_path / "vectors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"vectors: ({message})") as told:
        read_vectors(path)
    assert len(str(told.value)) < 400


@pytest.mark.parametrize("content", [b"999999999 4096\na 1 2\n", b"999999999 4096\n\x00a " + bytes(100)])
def test_no_memory_is_taken_for_what_a_header_says(content: bytes, tmp_path: Path) -> None:
    """A few bytes that ask for 16 TB are refused within one MiB."""
    (tmp_path / "vectors").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        read_vectors(tmp_path / "vectors")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_folder_or_nothing_is_no_file(tmp_path: Path) -> None:
    """Nor is a pipe, which would be waited on."""
    for path in (tmp_path, tmp_path / "nosuch"):
        with pytest.raises(CheckpointError, match="there is no such file"):
            read_vectors(path)
