"""What rows that are no texts become: as the checkpoint's preprocessor_config.json says, and as the recipe wants."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftwork.models.configs import read_model_config
from graftwork.models.pixels import read_pixels
from graftwork.sections.data import InputSection


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


def tokens_of(media: Mapping[str, Any], given: InputSection) -> int:
    """What the longest row counts in a batch."""
    return next((int(config.tokens) for config in media.values()), given.max_tokens)
