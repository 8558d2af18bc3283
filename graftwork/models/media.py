"""What rows that are no texts become: as the checkpoint's preprocessor_config.json says, and as the recipe wants."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftwork.models.pixels import read_pixels
from graftwork.models.serving.config import TOWERS
from graftwork.recipe import InputSection


def read_media(folder: Path, given: InputSection) -> dict[str, Any]:
    """`pixels` or `sound`, as `ServingConfig` calls it, for the checkpoint in a verified folder; nothing for texts.

    Raises CheckpointError if the checkpoint says something that can't be followed.
    """
    if given.modality == "image":
        return {"pixels": read_pixels(folder, given.side)}
    if given.modality == "audio":
        from graftwork.models.sound_settings import read_sound_settings

        config = read_model_config(folder, given.modality)
        return {"sound": read_sound_settings(folder, config, given.seconds)}
    return {}


def read_model_config(folder: Path, modality: str) -> dict[str, Any]:
    """What config.json says of the model that reads this, in a verified folder: of two towers, the one."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    section, _ = TOWERS.get((str(config.get("model_type")), modality), ("", ""))
    return config[section] if section else config


def tokens_of(media: Mapping[str, Any], given: InputSection) -> int:
    """What the longest row counts in a batch."""
    return next((int(config.tokens) for config in media.values()), given.max_tokens)
