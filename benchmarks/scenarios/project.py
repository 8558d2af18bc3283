"""Chosen rows in a project of their own, trained on by the product's own functions.

A row is on the side that the whole data puts it on: that is decided by a hash of what belongs together, so whatever is
taken with all of its group stays where it was. The holdout is the same in every trial.
"""

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.scenarios.trials import Found
from graftwork.settings import HOME_NAME, Settings

if TYPE_CHECKING:
    import pandas as pd

    from graftwork.models.serving.model import ServingModel
    from graftwork.training.bundle import ServingBundle
    from graftwork.training.plan import ResolvedRun

ROOT = Path(__file__).parents[2]
RECIPE = "recipes/review-sentiment.yaml"
SOURCES = ("movies", "amazon")
SHARED = ("data.sources.0.path=landing/movies", "data.sources.1.path=landing/amazon", "train.precision=float32")


@dataclass(frozen=True)
class Trained:
    """A model, and the processor seconds from its first stage to the bundle in the store."""

    run: "ResolvedRun"
    bundle: "ServingBundle"
    cpu_s: float


class Project:
    """A folder with our recipes, of which one is run. shared: overrides of all its runs."""

    def __init__(self, folder: Path, recipe: str, shared: Sequence[str]) -> None:
        from graftwork.workspace import Workspace

        folder.mkdir(exist_ok=True)
        for name in ("recipes", "contracts", "policies"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.lock.json"))
        (folder / HOME_NAME).mkdir()  # the mark of a project's root
        self.folder, self.recipe, self.shared = folder, recipe, tuple(shared)
        self.workspace: Workspace = Workspace.open(Settings(home=folder / HOME_NAME))

    def resolve(self, *overrides: str) -> "ResolvedRun":
        """The run that the recipe asks for, changed so."""
        from graftwork.checkpoints.retrieve import retrieve_checkpoint
        from graftwork.data.manifest import validate_data
        from graftwork.models.catalog import families_for
        from graftwork.policy import load_policy
        from graftwork.recipe import load_recipe
        from graftwork.training.plan import plan_run

        recipe = load_recipe(self.folder / self.recipe, [*self.shared, *overrides])
        manifest = validate_data(recipe, self.workspace)
        lock = retrieve_checkpoint(recipe, self.workspace, families_for(recipe.input.modality))
        return plan_run(recipe, manifest, lock, load_policy(recipe.root / recipe.policy), self.workspace.store)

    def train(self, *overrides: str) -> Trained:
        """All stages, from the first to the bundle."""
        from graftwork.training.engine import run_stages

        run, began = self.resolve(*overrides), list[float]()

        def listen(event: dict[str, Any]) -> None:
            if event["event"] == "stage":
                began.append(time.process_time())

        bundle = run_stages(run, self.workspace, listen, should_stop=lambda: False)
        return Trained(run, bundle, time.process_time() - began[0])

    def load(self, trained: Trained) -> "ServingModel":
        from graftwork.models.serving.model import load
        from graftwork.training.bundle import MODEL

        return load(self.workspace.store.root / trained.bundle.key / MODEL)

    def judge(self, trained: Trained, holdout: "pd.DataFrame") -> Found:
        """Whether the model has these rows right."""
        from graftwork.evaluation.predictions import inputs_of

        found = self.load(trained).probabilities(inputs_of(holdout)).argmax(axis=1)
        return Found(trained.cpu_s, {"accuracy": found == holdout["label"].to_numpy()}, groups_of(holdout))


def review_project(folder: Path, rows: "pd.DataFrame | None" = None, split: Sequence[str] = ()) -> Project:
    """One of the demo, with the lines of these reviews, or of all. split: overrides that say how it is split."""
    project = Project(folder, RECIPE, [*SHARED, *split])
    for source in SOURCES:
        _write(folder / f"landing/{source}/reviews.tsv", _lines(source) if rows is None else _lines_of(rows, source))
    return project


def land(project: Project, place: str, rows: "pd.DataFrame", source: str) -> None:
    """Put the lines of reviews of a source below `landing`, for another source to name."""
    _write(project.folder / f"landing/{place}/reviews.tsv", _lines_of(rows, source))


def _write(file: Path, lines: Sequence[bytes]) -> None:
    file.parent.mkdir(parents=True)
    if lines:
        file.write_bytes(b"".join(lines))


@cache
def reviews(split: tuple[str, ...]) -> "pd.DataFrame":
    """All rows of both sources that are accepted, each on its side."""
    from graftwork.data.manifest import load_rows

    with tempfile.TemporaryDirectory() as folder:
        project = review_project(Path(folder) / "all", split=split)
        return load_rows(project.workspace.store, project.resolve().manifest)


def draw(rows: "pd.DataFrame", count: int, seed: int) -> "pd.DataFrame":
    """At least so many of the rows, drawn by whole units: what belongs together comes together."""
    units = np.random.default_rng(seed).permutation(sorted(rows["unit"].unique()))
    sizes = rows.groupby("unit").size()[units].cumsum()
    return rows[rows["unit"].isin(units[: int((sizes < count).sum()) + 1])]


def groups_of(rows: "pd.DataFrame") -> np.ndarray:
    """(rows,) the group of each, from 0 on; a row without one is one of its own."""
    from graftwork.evaluation.predictions import group_codes

    return np.unique(group_codes(rows), return_inverse=True)[1]


@cache
def _lines(source: str) -> list[bytes]:
    return (ROOT / f"examples/reviews/{source}.tsv").read_bytes().splitlines(keepends=True)


def _lines_of(rows: "pd.DataFrame", source: str) -> list[bytes]:
    return [_lines(source)[line - 1] for line in sorted(rows.loc[rows["source"] == source, "line"])]
