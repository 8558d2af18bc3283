"""Batch prediction: every row of a file, with its columns as they were, what the model says, and how sure it is.

The output is data, not a report: a cell that a spreadsheet would run as a formula is written exactly as it came.
"""

import difflib
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.data.chunks import ROWS, Chunk, TableFile, open_folder, open_table, read_chunks
from graftwork.data.contracts import MISSING
from graftwork.data.export import WRITERS
from graftwork.errors import SHOWN_PROBLEMS, DataError, Problem, RecipeError, raise_if, shorten
from graftwork.storage import whole_file
from graftwork.targets.catalog import TARGETS
from graftwork.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow

    from graftwork.data.media import RowFiles
    from graftwork.evaluation.predictions import Predictor
    from graftwork.registry.versions import ModelVersion

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Scored:
    """What `score_file` did."""

    model: str
    version: int
    rows: int
    output: Path
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"output": str(self.output)}


def score_file(
    workspace: Workspace,
    model: str,
    data: Path,
    output: Path,
    *,
    prefix: str = "",
    precision: str = "float32",
    on_progress: Progress | None = None,
) -> Scored:
    """Predict every row of `data` with a registered model, into a .csv, .tsv, .jsonl or .parquet file.

    data: a table; or a folder of pictures or sounds, each of which is a row.
    model: name@alias, name@3, or name (its champion). prefix: heads the names of the new columns. precision: float32,
    as the model was judged; bfloat16; or auto, which is the latter where the processor multiplies it natively.
    on_progress is told rows done and rows in all. Cells of CSV, TSV and JSON lines come out as text, those of Parquet
    keep their types.
    An earlier output is replaced once the new one is whole.

    Raises DataError, RegistryError, or RecipeError for an output that can't be written.
    """
    from graftwork.registry.predictors import AT_ONCE, open_version

    started = time.monotonic()
    check_output(output, data)
    file = None if data.is_dir() else open_table(data)
    version = find_served(workspace, model)
    served = open_version(workspace, version, precision)
    file = file or open_folder(data, served.modality)
    at_once = ROWS if version.adopted is None else AT_ONCE
    rows = score_rows(served, file, output, prefix, on_progress, at_once)
    return Scored(version.name, version.version, rows, output, round(time.monotonic() - started, 3))


def find_served(workspace: Workspace, model: str) -> "ModelVersion":
    """The version that name@alias, name@3, name/3, or name (its champion) stands for. Raises RegistryError."""
    from graftwork.registry.versions import resolve_version

    return resolve_version(workspace, re.sub(r"@(\d+)$", r"/\1", model))


def score_rows(
    served: "Predictor",
    file: TableFile,
    output: Path,
    prefix: str = "",
    on_progress: Progress | None = None,
    at_once: int = ROWS,
) -> int:
    """Write the predictions of a loaded model for every row, whole or not at all; the number of rows.

    at_once: rows that are held in memory. Every row is looked at before the first is predicted. Raises DataError with
    the first rows that have no text, or can't be read, StoreFull if the disk is full.
    """
    raise_if(_column_problems(served, file, prefix), DataError)
    digest, files = file.digest, _files_of(served, file)
    total, references = _check_rows(file, served, files)
    try:
        columns = file.columns if output.suffix.lower() == ".parquet" else _told_columns(file, files)
        chunks = read_chunks(file, columns, at_once, _lists(served, columns))
        with whole_file(output) as aside:
            predicted = _predicted(served, chunks, prefix, total, on_progress, files, iter(references))
            WRITERS[output.suffix.lower()](aside, predicted)
            if file.digest != digest:
                hint = "run again when it is whole"
                raise DataError(Problem("the file changed while it was read", str(file.path), hint))
    except OSError as error:
        raise RecipeError(Problem(f"can't be written: {error.strerror}", str(output))) from error
    return total


def check_output(output: Path, data: Path) -> None:
    """Raise RecipeError for an output that can't be written, or would replace anything but an earlier output."""
    problem = None
    if output.suffix.lower() not in WRITERS:
        problem = f"can't be told what to write from the suffix: known are {', '.join(WRITERS)}"
    elif not output.parent.is_dir():
        problem = f"there is no folder {output.parent}"
    elif os.path.lexists(output) and not stat.S_ISREG(output.lstat().st_mode):
        problem = "it is there and is not a regular file"
    elif output.exists() and data.exists() and output.samefile(data):
        problem = "the predictions would replace the data"
    if problem:
        raise RecipeError(Problem(problem, str(output), "choose another with -o"))


def _column_problems(served: "Predictor", file: TableFile, prefix: str) -> Iterator[Problem]:
    where = str(file.path)
    for column in served.columns:
        if column not in file.columns:
            near = difflib.get_close_matches(column, file.columns, n=1)
            hint = f"rename {near[0]!r}?" if near else f"there are {shorten(', '.join(file.columns))}"
            yield Problem(f"the model reads a column {column!r}, which is not there", where, hint)
    for column in _new_columns(served, prefix):
        if column in file.columns:
            hint = "rename it, or give --prefix, for instance --prefix predicted_"
            yield Problem(f"there is a column {column!r} already, where the prediction goes", where, hint)


def _new_columns(served: "Predictor", prefix: str) -> list[str]:
    from graftwork.models.serving.outputs import OUTPUTS

    return [f"{prefix}{name}" for name in OUTPUTS[served.target].names(served.classes)]


def _files_of(served: "Predictor", file: TableFile) -> "RowFiles | None":
    """The pictures or sounds of the rows; None where the model reads texts."""
    if served.modality == "text":
        return None
    from graftwork.data.media import RowFiles

    return RowFiles(served.modality, file, served.columns[0])


def _told_columns(file: TableFile, files: "RowFiles | None") -> list[str]:
    """All but the one that holds pictures or sounds, which is no text and is looked at by itself."""
    held = None if files is None or files.held is None else files.column
    return [column for column in file.columns if column != held]


def _lists(served: "Predictor", columns: Sequence[str]) -> Sequence[str]:
    """Those that may hold lists of words: any, the tags' own among them, where words have tags."""
    return columns if TARGETS[served.target].is_by_word else ()


def _check_rows(file: TableFile, served: "Predictor", files: "RowFiles | None") -> tuple[int, list[str]]:
    """The number of rows, and the reference of each one's picture. Raises DataError with the first that are no good."""
    problems: list[Problem] = []
    references: list[str] = []
    rows = 0
    columns = _told_columns(file, files)
    for chunk in read_chunks(file, columns, lists=_lists(served, columns)):
        rows += len(chunk.lines)
        problems += islice(_row_problems(chunk, served, file.path, files, references), SHOWN_PROBLEMS - len(problems))
        if len(problems) == SHOWN_PROBLEMS:
            break
    raise_if(problems, DataError)
    return rows, references


def _row_problems(
    chunk: Chunk, served: "Predictor", path: Path, files: "RowFiles | None", references: list[str]
) -> Iterator[Problem]:
    """What is wrong with rows of the chunk; references of the pictures of the others are added to those given."""
    wrong = dict(chunk.damaged)
    for column in served.columns:
        cells = list(zip(chunk.lines, chunk.cells(column) if files is None else files.cells(chunk), strict=True))
        wrong |= {line: f"column {column!r}: {MISSING}" for line, cell in cells if not (cell and cell.strip())}
        if files is not None:
            from graftwork.data.media import NamedFile

            found = {line: files.open(line, cell or "") for line, cell in cells if line not in wrong}
            references += [each.reference for each in found.values() if isinstance(each, NamedFile)]
            bad = {line: each for line, each in found.items() if not isinstance(each, NamedFile)}
            wrong |= {line: f"column {column!r}: {each.reason}" for line, each in bad.items()}
    for line in sorted(wrong):
        yield Problem(wrong[line], f"{path}:{line}", "mend the row, or leave it out")


def _predicted(
    served: "Predictor",
    chunks: Iterable[Chunk],
    prefix: str,
    total: int,
    on_progress: Progress | None,
    files: "RowFiles | None",
    references: Iterator[str],
) -> "Iterator[pyarrow.Table]":
    """The rows with their predictions, chunk by chunk. references: of the files as they were when they were checked."""
    import pyarrow

    done, types = 0, _types(served)
    for chunk in chunks:
        inputs: Any
        if files is None:
            cells = [chunk.cells(column) for column in served.columns]
            inputs = cells[0] if len(cells) == 1 else list(zip(*cells, strict=True))
        else:
            rows = zip(chunk.lines, files.cells(chunk), strict=True)
            inputs = [files.named(line, cell or "", next(references, "")) for line, cell in rows]

        def report(rows: int, before: int = done) -> None:
            if on_progress:
                on_progress(before + rows, total)

        table = chunk.table
        for name, values in served.answer(inputs, report).items():
            table = table.append_column(f"{prefix}{name}", pyarrow.array(values, types.get(name)))
        yield table
        done += table.num_rows


def _types(served: "Predictor") -> "dict[str, pyarrow.DataType]":
    """Of columns of lists, which may all be empty in a chunk."""
    import pyarrow

    if not TARGETS[served.target].is_by_word:
        return {}
    facts = {"type": pyarrow.string(), "start": pyarrow.int64(), "end": pyarrow.int64(), "score": pyarrow.float64()}
    kinds = {"tags": pyarrow.string(), "scores": pyarrow.float64(), "entities": pyarrow.struct(list(facts.items()))}
    return {name: pyarrow.list_(kind) for name, kind in kinds.items()}
