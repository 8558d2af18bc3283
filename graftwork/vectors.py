"""Word vectors for a recipe to start from: trained on texts of one's own, or taken from a file of others'."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graftwork.checkpoints.safety import check_weights
from graftwork.checkpoints.tokenizer import check_tokenizer
from graftwork.checkpoints.vector_files import MAX_WIDTH, WordVectors, read_vectors
from graftwork.data.chunks import open_table, read_chunks
from graftwork.data.manifest import load_rows, validate_data
from graftwork.errors import CheckpointError, DataError, Problem, RecipeError, raise_if, shorten
from graftwork.fingerprint import file_digest
from graftwork.models.catalog import family_of
from graftwork.models.word_vectors import (
    ARCHITECTURE,
    VectorTraining,
    is_cased,
    train_word_vectors,
    write_word_vectors,
)
from graftwork.recipe import load_recipe
from graftwork.storage import whole_folder
from graftwork.workspace import Workspace

RECIPES = (".yaml", ".yml")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class WrittenVectors:
    """A checkpoint of word vectors. words, size: rows and columns of its table. texts: 0 if it was not trained here."""

    folder: Path
    words: int
    size: int
    is_lowered: bool
    texts: int = 0

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"folder": str(self.folder), "source": f"file://{self.folder}"}


def import_vectors(
    file: Path,
    folder: Path,
    licence: str,
    *,
    most: int | None = None,
    case: str = "auto",
    on_progress: Progress | None = None,
) -> WrittenVectors:
    """Write a new folder with the vectors of a file of word2vec's or GloVe's, as a checkpoint.

    most: words that are kept, from the first on. case: `lower` or `keep` texts, or `auto`: as the file's words are.
    on_progress is told bytes read. Raises RecipeError for a folder that is there already, CheckpointError for a file
    that is not what it should be.
    """
    raise_if(_least("--most", 1 if most is None else most, 1), RecipeError)
    with _new_folder(folder) as aside:
        found = read_vectors(file, most, on_progress)
        is_lowered = not is_cased(found.words) if case == "auto" else case == "lower"
        origin = f"The first {len(found.words):,} word vectors of {shorten(file.name)}, sha256 {file_digest(file)}."
        kept = _write(aside, found, is_lowered, licence, origin)
    return WrittenVectors(folder, len(kept.words), kept.table.shape[1], is_lowered)


def train_vectors(
    source: Path,
    folder: Path,
    licence: str,
    training: VectorTraining,
    *,
    text: str | None = None,
    case: str = "lower",
    on_progress: Progress | None = None,
) -> WrittenVectors:
    """Write a new folder with vectors of the words of texts, as a checkpoint.

    source: a recipe, of whose data the training rows are taken and no others, since what a model is judged on must not
    have shaped it; or a table with a column `text` names. on_progress is told texts gone through. Raises RecipeError,
    DataError.
    """
    raise_if(_training_problems(training), RecipeError)
    with _new_folder(folder) as aside:
        texts, origin = _recipe_texts(source, text) if source.suffix in RECIPES else _table_texts(source, text)
        found = train_word_vectors(texts, training, case == "lower", on_progress)
        said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in asdict(training).items())
        kept = _write(aside, found, case == "lower", licence, f"Word vectors trained on {origin}: {said}.")
    return WrittenVectors(folder, len(kept.words), kept.table.shape[1], case == "lower", len(texts))


def _recipe_texts(path: Path, column: str | None) -> tuple[list[str], str]:
    recipe = load_recipe(path)
    if column is not None:
        raise RecipeError(Problem("the recipe says which column it is", "--text", "leave it out"))
    if recipe.input.text is None:
        raise RecipeError(Problem("it reads no texts", str(path)))
    workspace = Workspace.open()
    manifest = validate_data(recipe, workspace)
    rows = load_rows(workspace.store, manifest, sides=("train",))
    cells = [cell for name in ("text", "text_b") for cell in rows[name] if isinstance(cell, str)]
    return cells, f"{len(cells):,} texts, the training side of dataset {manifest.digest}"


def _table_texts(path: Path, column: str | None) -> tuple[list[str], str]:
    file = open_table(path)
    if column is None or column not in file.columns:
        problem = "which column holds the texts?" if column is None else f"there is no column {column!r}"
        raise RecipeError(Problem(problem, str(path), f"--text: one of {', '.join(file.columns)}"))
    cells = [cell for chunk in read_chunks(file, [column]) for cell in chunk.cells(column) if cell]
    if not cells:
        raise DataError(Problem(f"its column {column!r} holds no text", str(path)))
    return cells, f"{len(cells):,} texts of {shorten(path.name)}, sha256 {file_digest(path)}"


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which is there under its name once it is whole and would be accepted as a checkpoint."""
    if folder.exists() or not folder.parent.is_dir():
        problem = "it is there already" if folder.exists() else f"there is no folder {folder.parent}"
        raise RecipeError(Problem(problem, str(folder), "choose another with -o"))
    try:
        with whole_folder(folder) as aside:
            yield aside
    except OSError as error:
        raise RecipeError(Problem(f"can't be written: {error.strerror}", str(folder))) from error


def _write(aside: Path, vectors: WordVectors, is_lowered: bool, licence: str, origin: str) -> WordVectors:
    kept = write_word_vectors(aside, vectors, is_lowered, f"---\nlicense: {json.dumps(licence)}\n---\n{origin}\n")
    where = "as a checkpoint"
    problems = [*check_weights(aside, where), *check_tokenizer(aside, where, family_of(ARCHITECTURE))]
    raise_if(problems, CheckpointError)
    return kept


def _training_problems(training: VectorTraining) -> Iterator[Problem]:
    for name in ("size", "window", "epochs", "minimum_count"):
        yield from _least(f"--{name.replace('_', '-')}", getattr(training, name), 1)
    yield from _least("--seed", training.seed, 0)
    if training.size > MAX_WIDTH:
        yield Problem(f"expected at most {MAX_WIDTH:,}, found {training.size:,}", "--size")


def _least(option: str, value: int, least: int) -> Iterator[Problem]:
    if value < least:
        yield Problem(f"expected at least {least}, found {value}", option)
