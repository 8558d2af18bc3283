"""Text classifiers on pretrained encoders: loaded with every tensor accounted for."""

import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from graftwork.errors import CheckpointError, Problem, raise_if
from graftwork.models.attention import quicken_attention
from graftwork.models.catalog import Family, family_of
from graftwork.models.serving.classifier import Classifier, make_body
from graftwork.models.serving.config import GENERATION, ServingConfig, Text
from graftwork.models.serving.text import TextEncoder


def load_pretrained(folder: Path, config: ServingConfig, seed: int) -> Classifier:
    """A classifier whose body is the checkpoint in `folder` and whose head is new, drawn from `seed`.

    Of a writer the head is the checkpoint's, too.

    Raises CheckpointError, naming each tensor, if the body is not loaded whole.
    """
    torch.manual_seed(seed)
    if config.target == GENERATION:
        from graftwork.models.writing import load_writer  # here alone: it needs what is in this module

        return load_writer(folder)
    body = load_body(folder, config.modality)
    return Classifier(body, config)


def load_body(folder: Path, modality: str = "text") -> nn.Module:
    """The bare encoder of a verified checkpoint folder, in float32; every tensor of it must be there and fit.

    modality: what it is to read.
    """
    body, report = make_body(folder, modality, has_weights=True)
    config: Any = body.config
    raise_if(loading_problems(family_of(config.model_type), report), CheckpointError)
    quicken_attention(body)
    return body


def attention_of(model: Classifier) -> str:
    """The attention kernel that the body computes with."""
    config: Any = model.body.config
    return str(config._attn_implementation)


def word_numbers(encoder: TextEncoder, texts: Sequence[Text]) -> list[np.ndarray]:
    """For each text or pair, the number of the word that each token is part of; -1 for special tokens.

    Raises CheckpointError if the tokenizer knows no words.
    """
    encodings = encoder.tokenize(texts).encodings
    if encodings is None:
        name = type(encoder.tokenizer).__name__
        raise CheckpointError(f"{name} does not tell which tokens are one word: train without word_dropout")
    return [_number(list(zip(each.sequence_ids, each.word_ids, strict=True))) for each in encodings]


def count_tokens(encoder: TextEncoder, texts: Sequence[Text]) -> tuple[int, int, int]:
    """Of one text or more: those that are cut, the tokens of all as they are, and the unknown ones among these.

    Tokens that are put around a text are not counted.
    """
    whole = encoder.tokenize(texts, truncation=False, return_special_tokens_mask=True, verbose=False)
    ids = [np.array(row, np.int64) for row in whole["input_ids"]]
    unknown = [row == encoder.tokenizer.unk_token_id for row in ids]
    own = [~np.array(around, bool) | lost for around, lost in zip(whole["special_tokens_mask"], unknown, strict=True)]
    cut = sum(len(row) > encoder.max_tokens for row in ids)
    return cut, int(sum(each.sum() for each in own)), int(sum(each.sum() for each in unknown))


def blank_token(encoder: TextEncoder) -> int:
    """The token that stands for a word which is not told: the mask token, or the unknown token where there is none.

    Raises CheckpointError if the tokenizer has neither.
    """
    for token in (encoder.tokenizer.mask_token_id, encoder.tokenizer.unk_token_id):
        if token is not None:
            return int(token)
    raise CheckpointError("its tokenizer has no token that could stand for a word: train without word_dropout")


def device_name(device: torch.device) -> str:
    """The kind of the device, for a GPU its model: what decides the bits of its arithmetic."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def environment_facts(device: torch.device, attention: str) -> dict[str, Any]:
    """What of the machine and the libraries decides the bits of a forward pass in this process."""
    return {
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "device": device_name(device),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "attention": attention,
    }


def _number(words: Sequence[tuple[int | None, int | None]]) -> np.ndarray:
    """Words, each a text of the pair and a place in it, counted from 0."""
    numbers = {word: number for number, word in enumerate(dict.fromkeys(word for word in words if None not in word))}
    return np.array([numbers.get(word, -1) for word in words] or [-1])  # an empty text is one token, see `encode`


def loading_problems(family: Family | None, report: dict[str, Any]) -> list[Problem]:
    """What is wrong with a checkpoint by transformers' report of what was loaded, each tensor by its name.

    family: whose body it is, which has no use for some; None of a decoder, which has for all.
    """
    missing = [Problem(f"tensor {name} is missing from the checkpoint") for name in sorted(report["missing_keys"])]
    unexpected = [
        Problem(f"tensor {name} of the checkpoint belongs to no part of the model")
        for name in sorted(report["unexpected_keys"])
        if family is None or not _is_left_out(family, family.name_of(name))
    ]
    mismatched = [
        Problem(f"tensor {name} has shape {tuple(found)} in the checkpoint, {tuple(wanted)} in the model")
        for name, found, wanted in sorted(report["mismatched_keys"])
    ]
    return missing + unexpected + mismatched


def _is_left_out(family: Family, name: str) -> bool:
    """Whether the classifier has no use for a tensor that the checkpoint may hold."""
    return name.startswith(family.unused) or re.fullmatch(family.stale, name) is not None
