"""Sentiment of movies from 600 labelled reviews, with and without what else is known: how good each movie was found,
in points, and the sentiment of Amazon's reviews. The movies of the holdout are judged.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.scenarios.project import draw, review_project, reviews
from benchmarks.scenarios.trials import Arm, Found, Scenario

if TYPE_CHECKING:
    import pandas as pd

ROWS, VALIDATED, AMAZONS = 600, 200, 1500
SPLIT = ("data.split.holdout=0.15", "data.split.validation=0.1")
STAGE = (
    "name: full, train: all, epochs: 2, learning_rate: 1e-4, head_multiplier: 10, layer_decay: 0.9, keep_epoch: last"
)
FILES = "header: [id, rating, text], id: id"
POINTS = (
    f"{{name: points, sources: [{{name: rated, path: landing/movies, {FILES}}}], label: {{from: rating}},"
    " learns: regression}"
)
AMAZON = (
    f"{{name: amazon, sources: [{{name: shop, path: landing/amazon, {FILES}}}],"
    " label: {from: rating, threshold: 0, classes: [negative, positive]}}"
)
MOVIES_ALONE = (f"data.sources=[{{name: movies, path: landing/movies, {FILES}}}]",)


@cache
def side(source: str, name: str) -> "pd.DataFrame":
    """All rows of a source on a side."""
    rows = reviews(SPLIT)
    return rows[(rows["source"] == source) & (rows["side"] == name)]


def few_judged() -> "pd.DataFrame":
    """Some of Amazon's holdout: data of which no row is judged is refused."""
    return draw(side("amazon", "holdout"), VALIDATED, seed=0)


def train(seed: int, folder: Path, tasks: str, is_one_task: bool) -> Found:
    """All layers on labelled movies. tasks: what the stage says of others. is_one_task: Amazon's are like its own."""
    import pandas as pd

    rows = [draw(side("movies", "train"), ROWS, seed), draw(side("movies", "validation"), VALIDATED, seed)]
    rows += [draw(side("amazon", "train"), AMAZONS, seed), draw(side("amazon", "validation"), VALIDATED, seed)]
    project = review_project(folder / "project", pd.concat([*rows, side("movies", "holdout"), few_judged()]), SPLIT)
    stages = f"stages=[{{{STAGE}{tasks}}}]"
    if is_one_task:
        trained = project.train("train.batch_tokens=800", f"train.seed={seed}", stages)
    else:
        beside = f"auxiliary=[{POINTS}, {AMAZON}]" if tasks else "auxiliary=[]"
        trained = project.train(*MOVIES_ALONE, beside, "train.batch_tokens=800", f"train.seed={seed}", stages)
    return project.judge(trained, side("movies", "holdout"))


def _arm(tasks: str, is_one_task: bool = False) -> Arm:
    facts = [SPLIT, ROWS, VALIDATED, AMAZONS, STAGE, POINTS, AMAZON, tasks, is_one_task]
    return Arm(lambda seed, folder: train(seed, folder, tasks, is_one_task), facts)


MULTI_TASK = Scenario(
    {
        "movies alone": _arm(""),
        "and their points": _arm(", auxiliary: points"),
        "and Amazon's sentiment": _arm(", auxiliary: amazon"),
        "the same, `sampling: 0.5`": _arm(", auxiliary: amazon, sampling: 0.5"),
        "all three, `weighting: uncertainty`": _arm(", auxiliary: [points, amazon], weighting: uncertainty"),
        "Amazon's rows as rows of the same task": _arm("", is_one_task=True),
    },
    seeds=3,
)
