"""A checkpoint of two towers that tells classes in pictures by their texts, before it learns anything."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graftwork.models.serving.config import COSINE, PixelConfig, ServingConfig
from graftwork.models.serving.inference import autocast, infer, pick_device
from graftwork.models.serving.model import make_encoder
from graftwork.models.text import load_pretrained
from graftwork.models.towers import start_from_prompts


def tell_by_prompts(
    folder: Path,
    prompts: Sequence[Sequence[str]],
    pixels: PixelConfig,
    precision: str,
    inputs: Sequence[Any],
    on_progress: Callable[[int], None],
) -> np.ndarray:
    """(inputs, classes) float64 probabilities by the checkpoint in a verified folder, a softmax over the classes.

    SigLIP was trained to say of each text by itself whether it fits; here, too, one of the classes is told.
    """
    classes = tuple(map(str, range(len(prompts))))
    config = ServingConfig(classes, ("-",), "body", pixels.tokens, pixels=pixels, head=COSINE)
    model = load_pretrained(folder, config, seed=0)
    start_from_prompts(model, folder, prompts)
    model, encoder = model.to(pick_device()), make_encoder(folder, config)
    with autocast(pick_device(), precision):
        logits = infer(model, model.forward, encoder, encoder.encode(inputs), on_progress=on_progress)
    return logits.double().softmax(1).numpy()
