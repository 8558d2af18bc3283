"""What a checkpoint's files are called, and what config.json says of the model that is used."""

from pathlib import Path
from typing import Any

from graftwork.checkpoints.safety import read_object
from graftwork.models.serving.config import TOWERS

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"


def read_model_config(folder: Path, modality: str) -> dict[str, Any]:
    """What config.json says of the model that reads this, in a verified folder: of two towers, the one."""
    config = read_object(folder / CONFIG)
    section, _ = TOWERS.get((str(config.get("model_type")), modality), ("", ""))
    found: dict[str, Any] = config[section] if section else config
    return found
