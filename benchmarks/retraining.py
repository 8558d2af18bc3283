"""Warm retraining beside training from scratch: time after a landing, and what is left of the accuracy after many.

The reviews of the demo, movies and Amazon shuffled together, land in parts: a base, then one landing after the other.
The base is trained from the checkpoint; after each landing the model before is gone on from, as if it had been
promoted. In the end the same recipe is trained from the checkpoint on all rows, in the same store, where what is frozen
is computed already. The models are judged on the holdout rows of all data.
"""

import random
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.cells import Job, Outcome
from graftwork.settings import HOME_NAME

if TYPE_CHECKING:
    import numpy as np

    from graftwork.recipe import Recipe
    from graftwork.training.bundle import ServingBundle

ROOT = Path(__file__).parents[1]
SOURCES = ("movies", "amazon")
OVERRIDES = ("data.sources.0.path=landing/movies", "data.sources.1.path=landing/amazon", "start.from=champion")
SHARE = 0.05  # of all rows, in each landing


def retrain(job: Job) -> Outcome:
    """The base, each landing from the model before, and all from scratch.

    Times are of the training process, its start included. only_warm, only_scratch: how many of the judged holdout rows
    one of the last two models alone has right.
    """
    landings = job.workload.size.landings
    base = 1 - landings * SHARE
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder), job)
        project.land(0, base)
        models = [project.train(None)]
        for landing in range(landings):
            project.land(base + landing * SHARE, base + (landing + 1) * SHARE)
            models.append(project.train(models[-1].bundle))
        first, warm, scratch = models[0], models[-1], project.train(None)
        by_first, by_warm, by_scratch = map(project.is_right, (first.bundle, warm.bundle, scratch.bundle))
    values = {
        "landings_s": [model.seconds for model in models[1:]],
        "landing_rows": warm.rows,
        "scratch_s": scratch.seconds,
        "rows": scratch.rows,
        "first_accuracy": float(by_first.mean()),
        "warm_accuracy": float(by_warm.mean()),
        "scratch_accuracy": float(by_scratch.mean()),
        "only_warm": int((by_warm & ~by_scratch).sum()),
        "only_scratch": int((by_scratch & ~by_warm).sum()),
        "judged": len(by_warm),
    }
    return Outcome(scratch.precision, values)


@dataclass(frozen=True)
class Trained:
    """A model, the seconds that its process took, and the rows that its stages saw."""

    bundle: "ServingBundle"
    seconds: float
    rows: int
    precision: str


class Project:
    """A folder with the demo's recipe, in which parts of its reviews land one after the other."""

    def __init__(self, folder: Path, job: Job) -> None:
        from graftwork.workspace import Workspace

        for name in ("recipes", "contracts", "policies"):
            shutil.copytree(ROOT / name, folder / name)
        (folder / HOME_NAME).mkdir()  # the mark of a project's root
        self.folder, self.name = folder, job.workload.recipe
        self.overrides = (*OVERRIDES, f"train.seed={job.cell.seed}")
        self.workspace = Workspace.open()
        lines = [
            (source, line)
            for source in SOURCES
            for line in (ROOT / f"examples/reviews/{source}.tsv").read_bytes().splitlines(keepends=True)
        ]
        random.Random(job.cell.seed).shuffle(lines)
        self.lines = lines[: job.workload.size.rows]

    def land(self, start: float, end: float) -> None:
        """Let the lines between two shares of them land, as a file of each source."""
        part = self.lines[round(start * len(self.lines)) : round(end * len(self.lines))]
        for source in SOURCES:
            file = self.folder / "landing" / source / f"{round(1000 * start):04}.tsv"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"".join(line for name, line in part if name == source))

    def train(self, before: "ServingBundle | None") -> Trained:
        """The recipe on what has landed, from the checkpoint or from the model before."""
        from graftwork.checkpoints.retrieve import retrieve_checkpoint
        from graftwork.data.manifest import validate_data
        from graftwork.models.catalog import FAMILIES
        from graftwork.policy import load_policy
        from graftwork.training import launch
        from graftwork.training.plan import plan_run
        from graftwork.training.start import FROM_CHECKPOINT, Start, warm_start

        recipe, store = self.recipe(), self.workspace.store
        manifest = validate_data(recipe, self.workspace)
        lock = retrieve_checkpoint(recipe, self.workspace, FAMILIES)
        start, rows = FROM_CHECKPOINT, sum(manifest.sides["train"].values())
        if before is not None:
            warm = warm_start(store, before, 1, manifest, replay=recipe.start.replay, seed=recipe.train.seed)
            start, rows = Start(warm), warm.new + warm.replayed
        run = plan_run(recipe, manifest, lock, load_policy(recipe.root / recipe.policy), store, start)
        began = time.perf_counter()
        bundle = launch.train_stages(run.run_id, store, lambda _: None)
        return Trained(bundle, time.perf_counter() - began, rows, run.plan.precision)

    def is_right(self, bundle: "ServingBundle") -> "np.ndarray":
        """(rows,) for each holdout row of what has landed, whether the model has it right."""
        from graftwork.data.manifest import load_rows, validate_data
        from graftwork.evaluation.predictions import inputs_of
        from graftwork.models.serving.model import load
        from graftwork.training.bundle import MODEL

        holdout = load_rows(self.workspace.store, validate_data(self.recipe(), self.workspace), sides=("holdout",))
        model = load(self.workspace.store.root / bundle.key / MODEL)
        return model.probabilities(inputs_of(holdout)).argmax(axis=1) == holdout["label"].to_numpy()

    def recipe(self) -> "Recipe":
        from graftwork.recipe import load_recipe

        return load_recipe(self.folder / self.name, self.overrides)
