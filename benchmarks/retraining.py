"""Warm retraining beside training from scratch: time after a landing, and what is left of the accuracy after many.

    python -m benchmarks.retraining [--landings 10] [--share 0.05] [--seeds 3] [--limit 1000] [--set start.replay=0.5]

The demo's reviews, movies and Amazon's shuffled together, land in parts: first a base, then so many landings. The base
is trained from the checkpoint; after each landing the model before is gone on from, as if it had been promoted. In the
end the same recipe is trained from the checkpoint on all rows, in the same store, where what is frozen is computed
already. Both are judged on the holdout rows of all data. Times are of the training process, its start included.
"""

import argparse
import os
import random
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graftwork.checkpoints.retrieve import retrieve_checkpoint
from graftwork.data.manifest import load_rows, validate_data
from graftwork.models.catalog import FAMILIES
from graftwork.policy import load_policy
from graftwork.recipe import Recipe, load_recipe
from graftwork.settings import Settings
from graftwork.training import launch
from graftwork.training.bundle import MODEL, ServingBundle
from graftwork.training.plan import plan_run
from graftwork.training.start import FROM_CHECKPOINT, Start, warm_start
from graftwork.workspace import Workspace

ROOT = Path(__file__).parents[1]
RECIPE = "recipes/review-sentiment.yaml"
SOURCES = ("movies", "amazon")
OVERRIDES = ("data.sources.0.path=landing/movies", "data.sources.1.path=landing/amazon", "start.from=champion")


@dataclass(frozen=True)
class Trained:
    """A model, the seconds that its process took, and the rows that its stages saw."""

    bundle: ServingBundle
    seconds: float
    rows: int


@dataclass(frozen=True)
class Comparison:
    """What one seed gave. landings: seconds of each warm retraining. correct: for each model, which holdout rows."""

    landings: tuple[float, ...]
    scratch: float
    correct: dict[str, np.ndarray]


class Project:
    """A folder with the demo's recipe, in which parts of its reviews land one after the other."""

    def __init__(self, folder: Path, overrides: tuple[str, ...], seed: int, limit: int | None) -> None:
        for name in ("recipes", "contracts", "policies"):
            shutil.copytree(ROOT / name, folder / name)
        (folder / ".graftwork").mkdir()
        os.environ["GRAFTWORK_HOME"] = str(folder / ".graftwork")
        self.folder, self.overrides = folder, (*OVERRIDES, *overrides)
        self.workspace = Workspace.open(Settings())
        self.lines = [
            (source, line)
            for source in SOURCES
            for line in (ROOT / f"examples/reviews/{source}.tsv").read_bytes().splitlines(keepends=True)
        ]
        random.Random(seed).shuffle(self.lines)
        self.lines = self.lines[:limit]

    def land(self, start: float, end: float) -> None:
        """Let the lines between two shares of them land, as a file of each source."""
        part = self.lines[round(start * len(self.lines)) : round(end * len(self.lines))]
        for source in SOURCES:
            file = self.folder / "landing" / source / f"{round(1000 * start):04}.tsv"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"".join(line for name, line in part if name == source))

    def train(self, before: ServingBundle | None) -> Trained:
        """The recipe on what has landed, from the checkpoint or from the model before."""
        recipe, store = self.recipe(), self.workspace.store
        manifest = validate_data(recipe, self.workspace)
        lock = retrieve_checkpoint(recipe, self.workspace, FAMILIES)
        start, rows = FROM_CHECKPOINT, sum(manifest.sides["train"].values())
        if before is not None:
            warm = warm_start(store, before, 1, manifest, replay=recipe.start.replay, seed=recipe.train.seed)
            start, rows = Start(warm), warm.new + warm.replayed
        run = plan_run(recipe, manifest, lock, load_policy(recipe.root / recipe.policy), store, start)
        begun = time.perf_counter()
        bundle = launch.train_stages(run.run_id, store, lambda _: None)
        return Trained(bundle, time.perf_counter() - begun, rows)

    def correct(self, bundle: ServingBundle) -> np.ndarray:
        """For each holdout row of what has landed, whether the model has it right."""
        from graftwork.models import serving

        holdout = load_rows(self.workspace.store, validate_data(self.recipe(), self.workspace), sides=("holdout",))
        model = serving.load(self.workspace.store.root / bundle.key / MODEL)
        return model.probabilities(list(holdout["text"])).argmax(axis=1) == holdout["label"].to_numpy()

    def recipe(self) -> Recipe:
        return load_recipe(self.folder / RECIPE, self.overrides)


def compare(project: Project, landings: int, share: float) -> Comparison:
    """Train on a base and after each landing, then from scratch on all."""
    base = 1 - landings * share
    project.land(0, base)
    first = last = project.train(None)
    print(f"  base: {first.rows:,} rows in {first.seconds:.0f} s", flush=True)
    seconds = []
    for landing in range(landings):
        project.land(base + landing * share, base + (landing + 1) * share)
        last = project.train(last.bundle)
        seconds.append(last.seconds)
        print(f"  landing {landing + 1}: {last.rows:,} rows in {last.seconds:.1f} s", flush=True)
    scratch = project.train(None)
    print(f"  from scratch: {scratch.rows:,} rows in {scratch.seconds:.0f} s", flush=True)
    models = {"base alone": first, "warm": last, "from scratch": scratch}
    correct = {name: project.correct(trained.bundle) for name, trained in models.items()}
    return Comparison(tuple(seconds), scratch.seconds, correct)


def show(compared: list[Comparison]) -> None:
    """Times and their ratio; accuracies, and the paired difference over the rows of all seeds."""
    correct = {
        name: np.concatenate([each.correct[name] for each in compared]).astype(float) for name in compared[0].correct
    }
    warm = statistics.median(second for each in compared for second in each.landings)
    scratch = statistics.median(each.scratch for each in compared)
    print(f"{len(compared)} seeds, {os.cpu_count()} cores")
    print(f"a landing, warm: {warm:.1f} s, from scratch: {scratch:.1f} s, ratio {warm / scratch:.3f} (medians)")
    for name, right in correct.items():
        print(f"{name:14}accuracy {right.mean():.4f}")
    difference = correct["warm"] - correct["from scratch"]
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    print(f"warm - from scratch: {100 * difference.mean():+.2f} points, standard error {100 * error:.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--landings", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.05, help="of all rows, in each landing")
    parser.add_argument("--seeds", type=int, default=1, help="of the shuffle and of the training")
    parser.add_argument("--limit", type=int, help="rows in all, for a quick look")
    parser.add_argument("--set", action="append", default=[], help="in the recipe, such as start.replay=0.5")
    options = parser.parse_args()
    compared = []
    for seed in range(options.seeds):
        print(f"seed {seed}")
        with tempfile.TemporaryDirectory() as folder:
            project = Project(Path(folder), (f"train.seed={seed}", *options.set), seed, options.limit)
            compared.append(compare(project, options.landings, options.share))
    show(compared)


if __name__ == "__main__":
    main()
