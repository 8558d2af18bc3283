"""The tower of texts beside a tower of pictures, in one checkpoint: CLIP's or SigLIP's, which share a space.

What tells how near a picture and a text are is their cosine, times a scale, and with SigLIP plus a bias.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graftwork.errors import CheckpointError, Problem, shorten
from graftwork.models.serving.classifier import Classifier
from graftwork.models.serving.config import ServingConfig
from graftwork.models.serving.inference import infer
from graftwork.models.serving.tensors import read_tensors
from graftwork.models.serving.text import TextEncoder
from graftwork.models.text import load_body
from graftwork.models.tower_files import BIAS, SCALE

SAME = 1e-6  # entries of directions that differ by no more say nothing


class TextTower(nn.Module):
    """The tower of texts, and how its states are compared with those of pictures.

    texts: what makes states of texts; its head is none. most_tokens: that it reads of a text. scale: a logarithm. bias:
    None where there is none.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        body: Any = load_body(folder, "text")
        self.most_tokens = int(body.config.max_position_embeddings)
        self.texts = Classifier(body, ServingConfig(("-",), ("-",), "body", self.most_tokens))
        self.texts.head = nn.Identity()
        found = read_tensors(folder, lambda name: name in (SCALE, BIAS))
        self.scale = nn.Parameter(found[SCALE].reshape(()))
        self.bias = nn.Parameter(found[BIAS].reshape(())) if BIAS in found else None


def start_from_prompts(model: Classifier, folder: Path, prompts: Sequence[Sequence[str]]) -> None:
    """Let the classifier of a checkpoint in a verified folder tell classes by what its tower of texts makes of them.

    prompts: those of each class, whose mean state is taken. Raises CheckpointError if it makes the same of all.
    """
    fill_head(model, TextTower(folder), folder, prompts)
    head: Any = model.head[-1]
    if torch.allclose(head.weight, head.weight[:1], rtol=0, atol=SAME):
        problem = f"its tower of texts makes the same of all prompts, such as {shorten(prompts[0][0])!r}"
        hint = "its tokenizer has to know the words, and to end texts as config.json says (eos_token_id)"
        raise CheckpointError(Problem(problem, "head.prompts", hint))


def fill_head(model: Classifier, tower: TextTower, folder: Path, prompts: Sequence[Sequence[str]]) -> None:
    """Make the classifier's head of the prompts, by the tower as it is. folder: of the checkpoint.

    Method: zero-shot classifiers (CLIP, Radford et al. 2021), from which training goes on as in WiSE-FT (Wortsman et
    al. 2022).
    """
    encoder = TextEncoder(folder, tower.most_tokens)
    rows = encoder.encode([text for each in prompts for text in each])
    states = nn.functional.normalize(infer(tower.texts, tower.texts.features, encoder, rows), dim=1)
    means = torch.stack([part.mean(0) for part in states.split([len(each) for each in prompts])])
    head: Any = model.head[-1]
    with torch.no_grad():
        head.weight.copy_(nn.functional.normalize(means, dim=1))
        head.scale.copy_(tower.scale)
        head.shift.copy_(torch.zeros(()) if tower.bias is None else tower.bias)
