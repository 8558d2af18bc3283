"""Writers: bodies that read a text, with what their checkpoints write by; and the rows that they are trained on.

A row is what is read and what is told of it, which stand apart where a decoder writes (T5), and in one where the body
itself goes on (GPT-2, Llama). A label that is too long ends where it is cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graftwork.checkpoints.safety import read_header
from graftwork.errors import CheckpointError, Problem, RecipeError, raise_if
from graftwork.models.beside import check_first_token
from graftwork.models.catalog import FAMILIES, Family, family_of
from graftwork.models.serving.classifier import WITH_DECODER
from graftwork.models.serving.config import DECODER, OWN_TABLE, REPEATED
from graftwork.models.serving.telling import IGNORED
from graftwork.models.serving.text import TextEncoder
from graftwork.models.serving.writer import Told, Writer, end_token, load_head
from graftwork.models.text import load_body, loading_problems


def writes(architecture: str, family: Family) -> bool:
    """Whether such checkpoints were made to write texts."""
    return architecture in WITH_DECODER or (family.modality == "text" and family.is_autoregressive)


def writing_head_parameters(
    architecture: str, folder: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> int:
    """Of what a checkpoint writes by, beside its body: a decoder, a table of tokens, or nothing that it has not there.

    Raises RecipeError for one that has nothing to write by, CheckpointError for one whose first token is none.
    """
    family = family_of(architecture)
    if not writes(architecture, family):
        known = ", ".join(name for name, each in FAMILIES.items() if writes(name, each))
        problem = f"{family.known_as}: it was not made to write texts"
        raise RecipeError(Problem(problem, "checkpoint.source", f"text-generation is for {known}"))
    decoder = [name for name in shapes if name.startswith(DECODER) and name not in REPEATED]
    is_tied = config.get("tie_word_embeddings", family.is_tied)
    lacks = "decoder" if architecture in WITH_DECODER and not decoder else ""
    lacks = lacks or ("" if is_tied or OWN_TABLE in shapes else f"table to tell tokens by ({OWN_TABLE})")
    if lacks:
        raise RecipeError(Problem(f"this checkpoint has no {lacks}: it can read, but not write", "checkpoint.source"))
    if architecture in WITH_DECODER:
        tables = (shape for name, shape in shapes.items() if name.endswith((family.table, "embed_tokens.weight")))
        rows = next((shape[0] for shape in tables), 0)
        check_first_token(config.get("decoder_start_token_id"), rows)
    own = [OWN_TABLE] if _has_own_table(folder, shapes) else []
    return sum(prod(shapes[name]) for name in [*(decoder if architecture in WITH_DECODER else ()), *own])


def _has_own_table(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether tokens are told by another table than they are read by; some files hold the one by all its names."""
    if OWN_TABLE not in shapes:
        return False
    alike = [name for name, shape in shapes.items() if shape == shapes[OWN_TABLE] and name != OWN_TABLE]
    return not any(_are_same(folder, OWN_TABLE, name) for name in alike)


def _are_same(folder: Path, *names: str) -> bool:
    """Whether tensors of the folder's files are the same to the bit. No library for them is needed, nor imported."""
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        header, start = read_header(path)
        with path.open("rb") as stream:
            for name in names:
                if name in header:
                    first, last = header[name]["data_offsets"]
                    stream.seek(start + first)
                    found.append((header[name]["dtype"], stream.read(last - first)))
    return len(found) == len(names) and all(each == found[0] for each in found)


def load_writer(folder: Path) -> Writer:
    """The writer of a verified checkpoint folder. Raises CheckpointError, naming each tensor, if it is not whole."""
    writer, report = load_head(load_body(folder), folder)
    raise_if(loading_problems(None, report), CheckpointError)
    return writer


class ToldRow(NamedTuple):
    """What is read, ids or their activations, and the ids to tell; `tokens` of both together."""

    read: Any
    told: Sequence[int]
    tokens: int

    def __len__(self) -> int:
        return self.tokens


@dataclass(frozen=True)
class ReadRows:
    """What is read, as a prefix cache wants to have it. max_tokens: no row is longer."""

    encoder: TextEncoder
    max_tokens: int

    @property
    def facts(self) -> dict[str, Any]:
        return self.encoder.facts | {"max_tokens": self.max_tokens}

    def encode(self, inputs: Sequence[Any]) -> Sequence[Any]:
        return self.encoder.encode(inputs)

    def content(self, row: Any) -> bytes:
        return self.encoder.content(row)

    def pad(self, rows: Sequence[Any], length: int) -> tuple[Tensor, Tensor]:
        return self.encoder.pad(rows, length)


@dataclass(frozen=True)
class ToldRows:
    """Pads rows with what is told of them. read: pads what is read. is_joined: what is told stands in it, too."""

    read: Any
    max_tokens: int
    is_joined: bool

    def pad(self, rows: Sequence[ToldRow], length: int) -> tuple[Told, Tensor]:
        """What is read and told, and the mask of what is read. length: of a whole row, where it is one."""
        longest = length if self.is_joined else max(len(row.read) for row in rows)
        read, mask = self.read.pad([row.read for row in rows], longest)
        told = torch.full((len(rows), longest if self.is_joined else max(len(row.told) for row in rows)), IGNORED)
        for index, row in enumerate(rows):
            told[index, : len(row.told)] = torch.tensor(row.told)
        return Told(read, told), mask


def told_rows(encoder: TextEncoder, texts: Sequence[Any], labels: Sequence[str], most: int) -> list[ToldRow]:
    """What a writer is trained on of texts and labels. most: tokens of a label that are told, its end among them.

    Raises CheckpointError if the tokenizer has no token that ends a text.
    """
    try:
        end = end_token(encoder)
    except ValueError as error:
        raise CheckpointError(Problem(f"{error}, so that nothing tells when to stop", "checkpoint.source")) from error
    before = space_between(encoder)
    texts_told = [f"{before}{label}" for label in labels]
    told = encoder.tokenizer(texts_told, add_special_tokens=False)["input_ids"] if labels else []
    pairs = zip(encoder.encode(texts), ([*ids[: most - 1], end] for ids in told), strict=True)
    if is_joined(encoder):
        return [ToldRow([*read, *ids], [IGNORED] * len(read) + ids, len(read) + len(ids)) for read, ids in pairs]
    return [ToldRow(read, ids, len(read) + len(ids)) for read, ids in pairs]


def space_between(encoder: TextEncoder) -> str:
    """What stands before a label that follows what is read, where tokens know of the space before them (GPT-2's do)."""
    words = [encoder.tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("a", "b")]
    is_glued = encoder.tokenizer.decode([*words[0], *words[1]]) == "ab"
    has_space = (encoder.prompt or "")[-1:].isspace()
    return " " if is_joined(encoder) and is_glued and not has_space else ""


def is_joined(encoder: TextEncoder) -> bool:
    """Whether what is told stands behind what is read, in one row."""
    return bool(encoder.keeps_end)
