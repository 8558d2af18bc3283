"""What a checkpoint's files are called, and what config.json says of the model that is used."""

from pathlib import Path
from typing import Any

from graftwork.checkpoints.safety import read_object
from graftwork.errors import CheckpointError, Problem, shorten
from graftwork.models.serving.config import TOWERS

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"


def read_model_config(folder: Path, modality: str) -> dict[str, Any]:
    """What config.json says of the model that reads this, in a verified folder: of two towers, the one.

    Raises CheckpointError if it says nothing of that.
    """
    config = read_object(folder / CONFIG)
    section, _ = TOWERS.get((str(config.get("model_type")), modality), ("", ""))
    found: Any = config.get(section) if section else config
    if not isinstance(found, dict):
        raise CheckpointError(Problem(f"{section} is {shorten(found)}, expected an object", CONFIG))
    return found
