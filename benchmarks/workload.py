"""What is measured on: the rows, the checkpoint and the stages of a recipe, and how much of them."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graftwork.training.plan import ResolvedRun

GRAFTWORK = Path(sys.executable).with_name("graftwork")
DEMO = Path("recipes/review-sentiment.yaml")
AMAZON = "data.sources.1.path"


@dataclass(frozen=True)
class Size:
    """How much is measured. rows: of the data, None for all. steps: optimiser steps, after `warmup` uncounted ones.

    predicted: rows of a batch prediction. commands: counted calls of each command. landings: of new rows, one after the
    other.
    """

    rows: int | None = None
    warmup: int = 20
    steps: int = 100
    predicted: int = 10_000
    commands: int = 5
    landings: int = 10

    @classmethod
    def limited(cls, rows: int) -> "Size":
        """Enough to see that everything works, and nothing to quote."""
        return cls(rows=rows, warmup=1, steps=2, predicted=rows, commands=1, landings=1)


@dataclass(frozen=True)
class Workload:
    """A recipe, with `--set` overrides, and how much of it is measured."""

    recipe: Path
    overrides: tuple[str, ...] = ()
    size: Size = Size()

    def resolve(self, *overrides: str) -> "ResolvedRun":
        """The run that the recipe asks for, in the home of this process."""
        from graftwork.checkpoints.retrieve import retrieve_checkpoint
        from graftwork.data.manifest import validate_data
        from graftwork.models.catalog import FAMILIES
        from graftwork.policy import load_policy
        from graftwork.recipe import load_recipe
        from graftwork.training.plan import plan_run
        from graftwork.workspace import Workspace

        workspace = Workspace.open()
        recipe = load_recipe(self.recipe, [*self.overrides, *overrides], self.size.rows)
        manifest = validate_data(recipe, workspace)
        lock = retrieve_checkpoint(recipe, workspace, FAMILIES)
        return plan_run(recipe, manifest, lock, load_policy(recipe.root / recipe.policy), workspace.store)

    @property
    def arguments(self) -> list[str]:
        """What names it on the command line of `graftwork`."""
        limit = [] if self.size.rows is None else [f"--limit-rows={self.size.rows}"]
        return [str(self.recipe), *(f"--set={override}" for override in self.overrides), *limit]


@dataclass(frozen=True)
class PreparedHome:
    """A home that holds validated rows and a verified checkpoint, and nothing trained: each cell is given a copy.

    manifest, checkpoint: their digests. bundle: the key of what the recipe trains, which covers rows and stages.
    """

    folder: Path
    manifest: str
    checkpoint: str
    bundle: str


def both_reviews(size: Size) -> Workload:
    """The demo's recipe on the movies and the Amazon reviews."""
    return Workload(DEMO, (f"{AMAZON}=examples/reviews/amazon.tsv",), size)


def full_stage(size: Size) -> Workload:
    """All parameters trained on the same rows, in the arithmetic that the Trainer takes by itself."""
    return replace(
        both_reviews(size), overrides=(*both_reviews(size).overrides, "stages=full", "train.precision=float32")
    )


def movie_reviews(size: Size) -> Workload:
    """The demo as `make demo` runs it first, whatever has landed here since."""
    return Workload(DEMO, (f"{AMAZON}=landing/nothing-yet",), size)


def prepare(workload: Workload, home: Path) -> PreparedHome:
    """Validate the rows and retrieve the checkpoint, once for all cells, in a process that leaves a closed database."""
    planned = json.loads(call_graftwork(home, "plan", *workload.arguments, "--json"))
    return PreparedHome(
        folder=home,
        manifest=planned["manifest"]["digest"],
        checkpoint=planned["checkpoint"]["digest"],
        bundle=planned["plan"]["bundle_key"],
    )


def call_graftwork(home: Path, *arguments: str) -> str:
    """What the command prints, run in a home."""
    environment = os.environ | {"GRAFTWORK_HOME": str(home)}
    return subprocess.run(
        [GRAFTWORK, *arguments], env=environment, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ).stdout
