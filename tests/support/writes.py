"""Every kind of write that the product makes outside of its databases, each as one that can be made at will.

What a power cut and a full disk do to them is asked of the same list, in tests/storage/. A point works in a project of
its own (`Place`), which may be copied elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tiny import facts, write_project

from graftwork.checkpoints import retrieve
from graftwork.checkpoints.lock import lock_path, read_lock
from graftwork.data.chunks import open_table
from graftwork.data.manifest import validate_data
from graftwork.database import Database, manifests, run_heads
from graftwork.errors import DataError, Paused
from graftwork.evaluation.baselines import FrozenEncoder
from graftwork.evaluation.evaluation import Contender, evaluate
from graftwork.fingerprint import folder_digest, from_json
from graftwork.models.catalog import FAMILIES
from graftwork.models.serving.model import load
from graftwork.policy import Policy
from graftwork.promotion.gate import judge
from graftwork.recipe import Recipe, load_recipe
from graftwork.report.facts import ReportFacts, installed_libraries, this_machine
from graftwork.report.files import copy_page, store_report
from graftwork.scoring import score_rows
from graftwork.settings import Settings
from graftwork.storage import Store, whole_folder
from graftwork.training import loop
from graftwork.training.bundle import MODEL, ServingBundle, find_bundle
from graftwork.training.engine import run_stages
from graftwork.training.plan import ResolvedRun, open_run, plan_run
from graftwork.training.state import RECORD, TrainingState
from graftwork.workspace import Workspace

KEY = "thing/abc123"
SAVE_ONLY_WHEN_STOPPED = 1e-9
# Four steps an epoch; the second stage ruins what its first epoch reached, so that its best weights are not the last.
TRAINING = (
    "train.batch_tokens=256",
    "stages.1.epochs=2",
    "stages.1.learning_rate=0.05",
    "stages.1.schedule=constant",
    "stages.1.clip_norm=100",
)
Reading = dict[str, Any]  # what the product finds in a place, part by part; a part that is not there may be None


@dataclass(frozen=True)
class Place:
    """A project in a folder, its home in there, too."""

    folder: Path

    @cached_property
    def workspace(self) -> Workspace:
        settings = Settings(home=self.folder / "home", save_share=SAVE_ONLY_WHEN_STOPPED)
        return Workspace(settings, self.store, Database.open(settings.database_url))

    @property
    def store(self) -> Store:
        return Store(self.folder / "home/store")

    @property
    def recipe_file(self) -> Path:
        return self.folder / "recipe.yaml"

    @property
    def run(self) -> ResolvedRun:
        [key] = self.store.keys("run")
        return open_run(self.store, key.removeprefix("run/"))

    @property
    def bundle(self) -> ServingBundle | None:
        return next((find_bundle(self.store, key) for key in self.store.keys("bundle")), None)

    def recipe(self, *overrides: str) -> Recipe:
        return load_recipe(self.recipe_file, overrides)

    def train(self, *stop_at: str | int) -> ServingBundle | None:
        """Train to the end, or until a step of a stage is done (stop_at: its name, the step), and save then."""
        passed: set[tuple[str | int, ...]] = set()

        def report(event: dict[str, Any]) -> None:
            if event["event"] == "step":
                passed.add((event["stage"], event["step"]))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "REPORT_EVERY_S", 0.0)
            try:
                return run_stages(self.run, self.workspace, report, lambda: stop_at in passed)
            except Paused:
                return None


def make_place(folder: Path, checkpoint: Path) -> Place:
    """A project that was never run."""
    folder.mkdir()
    write_project(folder, checkpoint)
    place = Place(folder)
    assert place.workspace
    return place


def nothing(place: Place) -> None:
    """There is nothing before the write."""


@dataclass(frozen=True)
class WritePoint:
    """before: what is there first. read: what there is to find. resume: what comes of it when it goes on."""

    write: Callable[[Place], object]
    read: Callable[[Place], Reading]
    before: Callable[[Place], object] = nothing
    resume: Callable[[Place], Any] | None = None

    def go_on(self, place: Place) -> Any:
        """What comes of it in the end, wherever the write was cut off; by default by the same write again."""
        if self.resume is not None:
            return self.resume(place)
        self.write(place)
        return self.read(place)


def stored(*kinds: str) -> Callable[[Place], Reading]:
    """Reads what the store opens of these kinds."""

    def read(place: Place) -> Reading:
        opened = {key: place.store.open(key) for kind in kinds for key in place.store.keys(kind)}
        return {key: folder_digest(folder) for key, folder in opened.items() if folder is not None}

    return read


def text_of(pattern: str) -> Callable[[Place], Reading]:
    """Reads the only file of that name."""

    def read(place: Place) -> Reading:
        found = [path for path in place.folder.glob(pattern) if not path.name.startswith(".")]
        return {pattern: found[0].read_bytes() if found else None}

    return read


def put(*names: str) -> Callable[[Place], None]:
    """Stores a folder of these files, if it is not there."""

    def write(place: Place) -> None:
        if place.store.open(KEY) is None:
            with place.store.writing(KEY) as folder:
                for name in names:
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (folder / name).write_text(f"what is in {name}")

    return write


def give(place: Place) -> None:
    """A folder outside the store, if it is not there."""
    if not (place.folder / "given").exists():
        with whole_folder(place.folder / "given") as folder:
            (folder / "a").write_text("what is in a")


def put_damaged(place: Place) -> None:
    put("a")(place)
    (place.store.root / KEY / "a").write_text("what is not in a")


def take_in_checkpoint(place: Place) -> None:
    retrieve.retrieve_checkpoint(place.recipe(), place.workspace, FAMILIES)


def read_checkpoint(place: Place) -> Reading:
    return {"lock": read_lock(lock_path(place.recipe_file))} | stored("checkpoint")(place)


def pin(place: Place) -> None:
    """Rewrite a reference in the recipe, as locking a branch does."""
    if "name: pinned" not in place.recipe_file.read_text():
        retrieve._rewrite(place.recipe_file, "name: tiny", "name: pinned")


def validate(place: Place) -> None:
    validate_data(place.recipe(), place.workspace)


def add_bad_rows(place: Place) -> None:
    with (place.folder / "made.csv").open("a") as stream:
        stream.writelines(f"a bad film {row},maybe\n" for row in range(40))


def accept_bad_rows(place: Place) -> None:
    add_bad_rows(place)
    validate_data(place.recipe("data.quarantine_tolerance=0.9"), place.workspace)


def refuse(place: Place) -> None:
    """The data is refused, and its quarantine kept for a person."""
    try:
        validate(place)
    except DataError:
        return
    raise AssertionError("it was not refused")


def read_dataset(place: Place) -> Reading:
    """What the lineage names, and whether the store holds it."""
    with place.workspace.database.begin() as connection:
        rows = connection.execute(select(manifests)).all()
    kept = [(row.sequence, place.store.open(f"dataset/{row.manifest_digest}") is not None) for row in rows]
    return {"lineage": kept}


def prepare_plan(place: Place) -> None:
    validate(place)
    take_in_checkpoint(place)


def plan(place: Place) -> None:
    lock, recipe = read_lock(lock_path(place.recipe_file)), place.recipe(*TRAINING)
    assert lock is not None
    plan_run(recipe, validate_data(recipe, place.workspace), lock, Policy(minimum_rows=10), place.store)


def resolve(place: Place) -> None:
    prepare_plan(place)
    plan(place)


def train(*stops: tuple[str | int, ...]) -> Callable[[Place], None]:
    """Attempts that are stopped at these steps, each of which saves; () is the end."""

    def attempt(place: Place) -> None:
        if not place.store.keys("run"):
            resolve(place)
        for stop_at in stops:
            place.train(*stop_at)

    return attempt


def read_training(place: Place) -> Reading:
    """Where training stands: the state that counts with its best weights, the finished stages, the bundle."""
    with place.workspace.database.begin() as connection:
        head = connection.execute(select(run_heads)).one_or_none()
    position = None
    if head is not None and head.state_digest is not None:
        folder = place.store.open(f"state/{head.run_id}{head.state_digest}")
        if folder is not None:
            state = from_json(TrainingState, (folder / RECORD).read_text())
            is_whole = state.best is None or place.store.open(f"weights/{head.run_id}{state.best}") is not None
            position = (state.index, state.progress.step, is_whole)
    stages = [key for key in place.store.keys("stage") if place.store.open(key)]
    return {"state": position, "stages": len(stages), "bundle": place.bundle and place.bundle.digest}


def finish(place: Place) -> Any:
    bundle = place.train()
    assert bundle is not None
    return facts(bundle), read_training(place)


def evaluate_bundle(place: Place) -> ReportFacts:
    """The finished run, evaluated and judged."""
    run, bundle = place.run, place.bundle
    assert bundle is not None
    model = place.store.root / bundle.key / MODEL
    candidate = Contender(bundle.digest, bundle.recipe_digest, bundle.manifest, None, lambda: load(model))
    encoder = FrozenEncoder(run.lock.key, run.plan.pooling, run.plan.max_tokens, run.plan.precision)
    baselines = run.policy.baselines
    evaluation = evaluate(place.store, candidate, {}, run.manifest, encoder=encoder, baselines=baselines, samples=50)
    verdict = judge(evaluation, run.policy, place.store, look=1)
    made = {"created_at": "2026-11-01", "machine": this_machine(), "libraries": installed_libraries()}
    return ReportFacts(run, bundle, evaluation, verdict, version=None, entry=None, command="graftwork run", **made)


def prepare_report(place: Place) -> None:
    train(())(place)
    evaluate_bundle(place)


def report(place: Place) -> None:
    copy_page(store_report(place.store, evaluate_bundle(place)), place.folder / "home/reports/tiny.html")


def read_report(place: Place) -> Reading:
    return stored("report")(place) | text_of("home/reports/*.html")(place)


def prepare_predictions(place: Place) -> None:
    train(())(place)
    (place.folder / "output.csv").write_text("predicted before\n")


def predict(place: Place) -> None:
    assert place.bundle is not None
    served = load(place.store.root / place.bundle.key / MODEL)
    score_rows(served, open_table(place.folder / "made.csv"), place.folder / "output.csv", prefix="predicted_")


REFUSED = text_of("home/quarantine/*.csv")
WRITES = {
    "a stored file": WritePoint(put("a"), stored("thing")),
    "stored files in folders": WritePoint(put("a", "b/c", "b/d/e"), stored("thing")),
    "a stored file in the place of a damaged one": WritePoint(put("a"), stored("thing"), put_damaged),
    "a folder for others": WritePoint(give, text_of("given/*")),
    "a removal": WritePoint(lambda place: place.store.remove(KEY), stored("thing"), put("a", "b/c")),
    "a checkpoint and its lock": WritePoint(take_in_checkpoint, read_checkpoint),
    "a pinned reference": WritePoint(pin, text_of("recipe.yaml")),
    "a dataset": WritePoint(validate, read_dataset),
    "the quarantine of refused data": WritePoint(refuse, REFUSED, add_bad_rows),
    "the quarantine of data accepted before": WritePoint(refuse, REFUSED, accept_bad_rows),
    "a run record": WritePoint(plan, stored("run"), prepare_plan),
    "the first state": WritePoint(train(("head", 2)), read_training, resolve, finish),
    "the next state": WritePoint(train(("head", 3)), read_training, train(("head", 2)), finish),
    "a stage's result and activations": WritePoint(train(("top", 1)), read_training, train(("head", 3)), finish),
    "the best weights": WritePoint(train(("top", 6)), read_training, train(("top", 3)), finish),
    "a bundle": WritePoint(train(()), read_training, train(("top", 7)), finish),
    "predictions of the holdout, evaluation and verdict": WritePoint(
        evaluate_bundle, stored("predictions", "evaluation", "verdict"), train(())
    ),
    "a report": WritePoint(report, read_report, prepare_report),
    "predictions of a file": WritePoint(predict, text_of("output.csv"), prepare_predictions),
}
