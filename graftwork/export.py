"""A registered model in other forms: an ONNX graph for runtimes without torch, or a checkpoint to start from."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.checkpoints.safety import POOLING, POOLING_KEYS
from graftwork.data.chunks import TableFile, open_folder, open_table, read_chunks
from graftwork.errors import DataError, Problem, RecipeError, RegistryError, raise_if
from graftwork.scoring import find_served
from graftwork.storage import whole_folder
from graftwork.targets.catalog import TARGETS
from graftwork.workspace import Workspace

if TYPE_CHECKING:
    from graftwork.data.media import NamedFile
    from graftwork.models.serving.config import Text
    from graftwork.models.serving.model import ServingModel
    from graftwork.registry.versions import ModelVersion

COMPARED_ROWS = 64
FORMAT = "onnx"


@dataclass(frozen=True)
class Exported:
    """What `export_version` wrote.

    difference: the largest of a probability from the model's own, over `rows` texts; of a number, in standard
    deviations.
    """

    model: str
    version: int
    folder: Path
    rows: int
    difference: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"folder": str(self.folder), "format": FORMAT}


def export_version(workspace: Workspace, model: str, data: Path, folder: Path) -> Exported:
    """Write a new folder with the graph of a registered model, compared with the model on the first rows of `data`.

    model: name@alias, name@3, or name (its champion). Raises RecipeError for a folder that is there already, DataError,
    RegistryError.
    """
    from graftwork.models.export import GRAPH, export_onnx
    from graftwork.models.serving.config import CONFIG, GENERATION
    from graftwork.models.serving.model import load
    from graftwork.training.bundle import copy_tokenizer_and_config

    version, bundle = _open(workspace, model, folder)
    served = load(bundle, "cpu")
    if served.target == GENERATION:
        problem = "a graph gives one answer a row, and this model writes token by token"
        raise RegistryError(Problem(problem, f"{version.name}/{version.version}", "serve it with MLflow or torch"))
    file = open_folder(data, served.modality) if data.is_dir() else open_table(data)
    is_by_word = TARGETS[served.target].is_by_word
    if served.modality == "text":
        inputs: list[Any] = read_texts(file, served.columns, served.columns if is_by_word else ())
    else:
        inputs = _read_media(file, served)
    try:
        with whole_folder(folder) as aside:
            difference = export_onnx(served, inputs, aside / GRAPH)
            shutil.copyfile(bundle / CONFIG, aside / CONFIG)
            copy_tokenizer_and_config(bundle, aside)
    except OSError as error:
        raise RecipeError(Problem(f"can't be written: {error.strerror}", str(folder))) from error
    return Exported(version.name, version.version, folder, len(inputs), difference)


@dataclass(frozen=True)
class Extracted:
    """What `extract_body` wrote. parameters: of the body."""

    model: str
    version: int
    folder: Path
    parameters: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"folder": str(self.folder), "source": f"file://{self.folder}"}


def extract_body(workspace: Workspace, model: str, licence: str, folder: Path) -> Extracted:
    """Write a new folder with the body of a registered model, as a checkpoint that another recipe can start from.

    model: as in `export_version`. licence: of the new checkpoint, as recipes name it; whoever gives it away answers for
    it. The folder is kept only if what is loaded from it is the body, tensor by tensor. Raises RecipeError for a folder
    that is there already, RegistryError.
    """
    import torch
    from safetensors.torch import load_file, save_file

    from graftwork.models.catalog import families_for
    from graftwork.models.serving.config import WEIGHTS, ServingConfig
    from graftwork.models.text import load_body
    from graftwork.training.bundle import copy_tokenizer_and_config

    version, bundle = _open(workspace, model, folder)
    served, weights = ServingConfig.read(bundle), load_file(bundle / WEIGHTS)
    body = {name.removeprefix("body."): tensor for name, tensor in weights.items() if name.startswith("body.")}
    try:
        with whole_folder(folder) as aside:
            copy_tokenizer_and_config(bundle, aside)
            architecture = json.loads((bundle / "config.json").read_text(encoding="utf-8"))["model_type"]
            family = families_for(served.modality)[architecture]
            stored = {family.stored_name_of(name): tensor for name, tensor in body.items()}
            save_file(stored, aside / WEIGHTS, metadata={"format": "pt"})
            origin = f"The body of {version.name}, version {version.version}, as Graftwork trained it."
            write_papers(aside, served.pooling, licence, origin)
            found = load_body(aside, served.modality).state_dict()
            changed = [name for name in found if name not in body or not torch.equal(found[name], body[name])]
            if changed:
                problem = f"this architecture can't be read from a file of its body alone ({changed[0]})"
                raise RegistryError(Problem(problem, f"{version.name}/{version.version}"))
    except OSError as error:
        raise RecipeError(Problem(f"can't be written: {error.strerror}", str(folder))) from error
    return Extracted(version.name, version.version, folder, sum(tensor.numel() for tensor in body.values()))


def write_papers(folder: Path, pooling: str, licence: str, origin: str) -> None:
    """What a checkpoint says of itself: its licence, its origin, in a sentence, and how its tokens are pooled.

    The latter where sentence-transformers can.
    """
    (folder / "README.md").write_text(f"---\nlicense: {json.dumps(licence)}\n---\n{origin}\n", encoding="utf-8")
    if pooling in POOLING_KEYS:
        (folder / POOLING).parent.mkdir()
        (folder / POOLING).write_text(json.dumps({f"pooling_mode_{POOLING_KEYS[pooling]}": True}), encoding="utf-8")


def check_new(place: Path) -> None:
    """Raises RecipeError if a file or folder is there already, or nothing that it could be made in."""
    if place.exists() or not place.parent.is_dir():
        problem = "it is there already" if place.exists() else f"there is no folder {place.parent}"
        raise RecipeError(Problem(problem, str(place), "choose another with -o"))


def _open(workspace: Workspace, model: str, folder: Path) -> "tuple[ModelVersion, Path]":
    """The version, and the folder of its model. Raises RecipeError if there is a folder already, RegistryError."""
    from graftwork.registry.versions import fetch_bundle

    check_new(folder)
    version = find_served(workspace, model)
    if version.adopted is not None:
        raise RegistryError(Problem("it was made elsewhere: export it there", f"{version.name}/{version.version}"))
    return version, fetch_bundle(workspace, version)


def _read_media(file: TableFile, served: "ServingModel") -> "list[NamedFile]":
    """The first pictures or sounds of a table or a folder. Raises DataError with those that can't be read."""
    from graftwork.data.media import NamedFile, RowFiles

    _check_columns(file, served.columns)
    files = RowFiles(served.modality, file, served.columns[0])
    rows = (
        row for chunk in read_chunks(file, served.columns) for row in zip(chunk.lines, files.cells(chunk), strict=True)
    )
    named = ((line, cell) for line, cell in rows if cell and cell.strip())
    opened = [files.open(line, cell) for line, cell in islice(named, COMPARED_ROWS)]
    if not opened:
        raise RecipeError(Problem("it has no row to compare on", str(file.path)))
    bad = [each for each in opened if not isinstance(each, NamedFile)]
    raise_if((Problem(each.reason, str(file.path), "mend the row, or leave it out") for each in bad), DataError)
    return [each for each in opened if isinstance(each, NamedFile)]


def _check_columns(file: TableFile, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in file.columns]
    if missing:
        raise RecipeError(Problem(f"the model reads a column {missing[0]!r}, which is not there", str(file.path)))


def read_texts(file: TableFile, columns: Sequence[str], lists: Sequence[str] = ()) -> "list[Text]":
    """The first texts of a file, or pairs of them, that are not empty. Raises DataError.

    lists: columns that may hold lists of words.
    """
    _check_columns(file, columns)
    rows = (
        row
        for chunk in read_chunks(file, columns, lists=lists)
        for row in zip(*(chunk.cells(column) for column in columns), strict=True)
    )
    whole = (tuple(cells) for cells in rows if all(cell and cell.strip() for cell in cells))
    texts: list[Any] = [cells[0] if len(cells) == 1 else cells for cells in islice(whole, COMPARED_ROWS)]
    if not texts:
        raise RecipeError(Problem("it has no row with a text to compare on", str(file.path)))
    return texts
