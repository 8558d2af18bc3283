"""Text classifiers on pretrained encoders: loaded with every tensor accounted for, and the frozen features of one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from graftwork.errors import CheckpointError, Problem, raise_if
from graftwork.models.catalog import TextFamily, family_of
from graftwork.models.serving import ServingConfig, Text, TextClassifier, TextEncoder, infer, make_body, pick_device


def load_pretrained(folder: Path, config: ServingConfig, seed: int) -> TextClassifier:
    """A classifier whose body is the checkpoint in `folder` and whose head is new, drawn from `seed`.

    Raises CheckpointError, naming each tensor, if the body is not loaded whole.
    """
    torch.manual_seed(seed)
    body = load_body(folder)
    return TextClassifier(body, config)


def load_body(folder: Path) -> nn.Module:
    """The bare encoder of a verified checkpoint folder, in float32; every tensor of it must be there and fit."""
    body, report = make_body(folder, has_weights=True)
    config: Any = body.config
    raise_if(_loading_problems(family_of(config.model_type), report), CheckpointError)
    return body


def attention_of(model: TextClassifier) -> str:
    """The attention kernel that the body computes with."""
    config: Any = model.body.config
    return str(config._attn_implementation)


def _loading_problems(family: TextFamily, report: dict[str, Any]) -> list[Problem]:
    missing = [Problem(f"tensor {name} is missing from the checkpoint") for name in sorted(report["missing_keys"])]
    unexpected = [
        Problem(f"tensor {name} of the checkpoint belongs to no part of the model")
        for name in sorted(report["unexpected_keys"])
        if not name.removeprefix(family.base_prefix).startswith(family.unused)
    ]
    mismatched = [
        Problem(f"tensor {name} has shape {tuple(found)} in the checkpoint, {tuple(wanted)} in the model")
        for name, found, wanted in sorted(report["mismatched_keys"])
    ]
    return missing + unexpected + mismatched


def frozen_features(folder: Path, pooling: str, max_tokens: int, texts: Sequence[Text]) -> np.ndarray:
    """(texts, hidden) float32 pooled states of the untouched checkpoint."""
    model = TextClassifier(load_body(folder), ServingConfig(("-",), ("text",), pooling, max_tokens)).to(pick_device())
    encoder = TextEncoder(folder, max_tokens)
    return infer(model, model.features, encoder, encoder.encode(texts)).numpy()
