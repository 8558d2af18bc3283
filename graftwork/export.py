"""A registered model as a folder for runtimes without torch: an ONNX graph, the tokenizer, and what the classes are."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.data.chunks import open_table, read_chunks
from graftwork.errors import Problem, RecipeError, RegistryError
from graftwork.scoring import find_served
from graftwork.storage import whole_folder
from graftwork.workspace import Workspace

if TYPE_CHECKING:
    from graftwork.models.serving import Text

COMPARED_ROWS = 64
FORMAT = "onnx"


@dataclass(frozen=True)
class Exported:
    """What `export_version` wrote. difference: the largest of a probability from the model's own, over `rows` texts."""

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
    from graftwork.models import serving
    from graftwork.models.export import GRAPH, export_onnx
    from graftwork.registry.versions import fetch_bundle
    from graftwork.training.bundle import TOKENIZER_AND_CONFIG

    if folder.exists() or not folder.parent.is_dir():
        problem = "it is there already" if folder.exists() else f"there is no folder {folder.parent}"
        raise RecipeError(Problem(problem, str(folder), "choose another with -o"))
    version = find_served(workspace, model)
    if version.adopted is not None:
        raise RegistryError(Problem("it was made elsewhere: export it there", f"{version.name}/{version.version}"))
    bundle = fetch_bundle(workspace, version)
    served = serving.load(bundle, "cpu")
    texts = read_texts(data, served.columns)
    try:
        with whole_folder(folder) as aside:
            difference = export_onnx(served, texts, aside / GRAPH)
            for name in (serving.CONFIG, *TOKENIZER_AND_CONFIG):
                if (bundle / name).is_file():
                    shutil.copyfile(bundle / name, aside / name)
    except OSError as error:
        raise RecipeError(Problem(f"can't be written: {error.strerror}", str(folder))) from error
    return Exported(version.name, version.version, folder, len(texts), difference)


def read_texts(data: Path, columns: Sequence[str]) -> "list[Text]":
    """The first texts of a file, or pairs of them, that are not empty. Raises DataError."""
    file = open_table(data)
    missing = [column for column in columns if column not in file.columns]
    if missing:
        raise RecipeError(Problem(f"the model reads a column {missing[0]!r}, which is not there", str(data)))
    rows = (
        row
        for chunk in read_chunks(file, columns)
        for row in zip(*(chunk.cells(column) for column in columns), strict=True)
    )
    whole = (tuple(cells) for cells in rows if all(cell and cell.strip() for cell in cells))
    texts: list[Any] = [cells[0] if len(cells) == 1 else cells for cells in islice(whole, COMPARED_ROWS)]
    if not texts:
        raise RecipeError(Problem("it has no row with a text to compare on", str(data)))
    return texts
