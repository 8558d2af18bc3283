"""Where a run starts: at the champion, or at the checkpoint if the champion can't be gone on from, with the reason."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tiny import land_reviews, write_project

from graftwork.checkpoints.retrieve import retrieve_checkpoint
from graftwork.data.manifest import validate_data
from graftwork.errors import RegistryError
from graftwork.evaluation.evaluation import Evaluation
from graftwork.models.catalog import FAMILIES
from graftwork.policy import Policy
from graftwork.promotion.gate import Verdict
from graftwork.recipe import load_recipe
from graftwork.registry.aliases import nominate, promote_by_hand, roll_back
from graftwork.registry.client import reach_mlflow
from graftwork.registry.contenders import candidate
from graftwork.registry.registration import register_model
from graftwork.registry.starts import fetch_start, find_start, resolve_start
from graftwork.registry.tracking import log_training
from graftwork.registry.versions import ModelVersion, read_bundle, resolve_version
from graftwork.training.engine import run_stages
from graftwork.training.plan import ResolvedRun, plan_run
from graftwork.training.start import Start
from graftwork.workspace import Workspace

CHAMPION = ("start.from=champion", "stages.1.epochs=1")


@dataclass
class Retraining:
    """A project whose runs are trained, registered and, if asked to, promoted, as the flow does it."""

    folder: Path
    workspace: Workspace
    evaluation: Evaluation
    verdict: Verdict

    def resolve(self, *overrides: str, limit_rows: int | None = None) -> ResolvedRun:
        recipe = load_recipe(self.folder / "recipe.yaml", [*CHAMPION, *overrides], limit_rows)
        manifest = validate_data(recipe, self.workspace)
        lock = retrieve_checkpoint(recipe, self.workspace, FAMILIES)
        start = resolve_start(self.workspace, recipe, manifest, lock)
        run = plan_run(recipe, manifest, lock, Policy(), self.workspace.store, start)
        fetch_start(self.workspace, run.plan)
        return run

    def look(self, *overrides: str) -> Start:
        recipe = load_recipe(self.folder / "recipe.yaml", [*CHAMPION, *overrides])
        manifest = validate_data(recipe, self.workspace)
        return find_start(self.workspace, recipe, manifest, retrieve_checkpoint(recipe, self.workspace, FAMILIES))

    def train(self, run: ResolvedRun, outcome: str = "promote") -> ModelVersion:
        bundle = run_stages(run, self.workspace, lambda event: None, lambda: False)
        mlflow_run = log_training(self.workspace, run.run_id, run.plan, bundle.stages)
        verdict = replace(self.verdict, outcome=outcome)
        version = register_model(self.workspace, mlflow_run, bundle, run.manifest, self.evaluation, verdict)
        nominate(self.workspace, version, bundle, verdict, self.champion())
        return version

    def champion(self) -> int | None:
        with reach_mlflow(self.workspace.settings) as client:
            models = client.search_registered_models("name = 'tiny'")
            return next((int(model.aliases["champion"]) for model in models if "champion" in model.aliases), None)


@pytest.fixture
def retraining(
    tmp_path: Path, workspace: Workspace, tiny_checkpoint: Path, evaluation: Evaluation, verdict: Verdict
) -> Retraining:
    """A recipe that starts from the champion, and 100 reviews."""
    write_project(tmp_path, tiny_checkpoint)
    land_reviews(tmp_path, 100)
    return Retraining(tmp_path, workspace, evaluation, verdict)


@pytest.fixture
def landed(retraining: Retraining) -> Retraining:
    """There is a champion, and 40 more reviews have landed since."""
    assert retraining.train(retraining.resolve()).version == 1
    land_reviews(retraining.folder, 140)
    return retraining


def test_the_first_run_has_nothing_to_go_on_from(retraining: Retraining) -> None:
    """It says so; a recipe that asks for the checkpoint has nothing to say, and keeps no answer."""
    assert retraining.resolve().plan.start == Start(reason="there is no champion yet")
    assert retraining.look("start.from=checkpoint") == Start()
    assert len(retraining.workspace.store.keys("start")) == 1


def test_new_rows_are_learnt_from_the_champion_on(landed: Retraining) -> None:
    """The plan says from which version and on how many rows, the version's tags say where it came from."""
    run = landed.resolve()
    warm = run.plan.start.warm
    assert warm is not None
    assert (warm.version, warm.generation, warm.withdrawn) == (1, 1, 0)
    assert warm.new + warm.known == run.plan.rows["train"]
    rows = f"{warm.new} new rows and {warm.replayed} of the {warm.known} that it knows"
    assert run.plan.start.sentence == f"from version 1, warm start 1 in a row, on {rows}"
    version = landed.train(run)
    with reach_mlflow(landed.workspace.settings) as client:
        tags = client.get_model_version("tiny", str(version.version)).tags
    assert (tags["graftwork.start"], tags["graftwork.generation"]) == ("1", "1")


def test_what_is_unchanged_is_not_trained_from_its_own_result(landed: Retraining) -> None:
    """After its promotion, after another version's by hand and after a rollback, the same again is the same run."""
    run = landed.resolve()
    landed.train(run)
    assert landed.champion() == 2
    assert landed.resolve() == run
    land_reviews(landed.folder, 180)
    later = landed.resolve()
    landed.train(later, outcome="keep")
    promote_by_hand(landed.workspace, "tiny", 1, "to see")
    assert landed.resolve() == later
    promote_by_hand(landed.workspace, "tiny", 3, "to see")
    assert landed.resolve() == later
    roll_back(landed.workspace, "tiny", "to see")
    assert landed.resolve() == later
    land_reviews(landed.folder, 140)
    assert landed.resolve() == run


def test_without_its_first_answer_a_run_is_found_again(landed: Retraining) -> None:
    """In a store that has lost it, the champion that the run itself has made is not taken for its start."""
    run = landed.resolve()
    landed.train(run)
    for key in landed.workspace.store.keys("start"):
        landed.workspace.store.remove(key)
    assert landed.resolve() == run


def test_a_look_keeps_nothing(landed: Retraining) -> None:
    """What a plan shows is no promise: a champion that comes in before the run is gone on from."""
    landed.train(landed.resolve())
    land_reviews(landed.folder, 180)
    before = landed.workspace.store.keys("start")
    warm = landed.look().warm
    assert warm is not None and warm.version == 2
    promote_by_hand(landed.workspace, "tiny", 1, "to see")
    warm = landed.look().warm
    assert warm is not None and warm.version == 1
    assert landed.workspace.store.keys("start") == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("input.pooling=cls", r"the champion, version 1, has another pooling \(mean -> cls\)"),
        ("head.layers=[8]", r"another hidden layers \(none -> 8\)"),
        ("data.label.classes=['yes', 'no']", r"another classes \(no, yes -> yes, no\)"),
        ("start.scratch_every=1", "one run in 1 does"),
    ],
)
def test_a_champion_that_can_not_be_gone_on_from(landed: Retraining, change: str, reason: str) -> None:
    """Each difference is named, with what it was and what it would have to be."""
    start = landed.look(change)
    assert start.warm is None
    assert re.search(reason, start.sentence)


def test_another_checkpoint_is_another_start(landed: Retraining, make_checkpoint: Callable[..., Path]) -> None:
    """Weights of one are not gone on from by the recipe of another, however alike they look."""
    (landed.folder / "recipe.lock.json").unlink()
    start = landed.look(f"checkpoint.source=file://{make_checkpoint(seed=9)}")
    assert start.sentence.startswith("from the checkpoint, because the champion, version 1, has another checkpoint (")


def test_every_nth_run_is_from_scratch(landed: Retraining) -> None:
    """Of three runs one; the count begins anew with it."""
    generations = []
    for landing in range(4):
        land_reviews(landed.folder, 140 + 40 * landing)
        run = landed.resolve("start.scratch_every=3")
        landed.train(run)
        generations.append(run.plan.start.generation)
    assert generations == [1, 2, 0, 1]


def test_a_run_from_scratch_can_be_asked_for(landed: Retraining) -> None:
    """It is another run of the same recipe, also where a warm one was resolved before."""
    warm, cold = landed.resolve().plan, landed.resolve("start.scratch_every=1").plan
    assert (warm.start.generation, cold.start.generation) == (1, 0)
    assert warm.recipe_digest == cold.recipe_digest


def test_nothing_new_is_no_reason_to_go_on(landed: Retraining) -> None:
    """Rows that were withdrawn are unlearnt by a run from scratch only; another recipe on known rows starts afresh."""
    landed.train(landed.resolve())
    land_reviews(landed.folder, 120)
    assert landed.resolve().plan.start.sentence == (
        "from the checkpoint, because no training row is new to the champion, version 2"
    )
    land_reviews(landed.folder, 140)
    assert "no training row is new" in landed.look("train.seed=5").reason


def test_withdrawn_rows_are_told(landed: Retraining) -> None:
    """They stay in the weights of a model that is gone on from."""
    made = landed.folder / "made.csv"
    header, *lines = made.read_text().splitlines(keepends=True)
    made.write_text("".join([header, *lines[20:]]))
    warm = landed.look().warm
    assert warm is not None and warm.withdrawn > 0
    assert landed.look().sentence.endswith(f"; {warm.withdrawn} that were withdrawn stay in its weights")


def test_a_quick_try_starts_from_the_checkpoint(landed: Retraining) -> None:
    """Its rows are split on their own."""
    assert landed.resolve(limit_rows=60).plan.start == Start(reason="this is a quick try")


def test_a_champion_from_another_store_is_fetched(landed: Retraining) -> None:
    """From the registry's files, at the look and once more if it was lost before the training."""
    warm = landed.look().warm
    assert warm is not None
    landed.workspace.store.remove(warm.key)
    run = landed.resolve()
    (fetched,) = landed.workspace.store.keys("registered")
    landed.workspace.store.remove(fetched)
    assert landed.resolve() == run
    assert landed.train(run).version == 2
    landed.workspace.store.remove(fetched)
    assert landed.resolve() == run
    assert landed.workspace.store.keys("registered") == []


def test_a_champion_that_the_registry_has_lost(landed: Retraining) -> None:
    """It is not passed over in silence."""
    with reach_mlflow(landed.workspace.settings) as client:
        client.delete_model_version("tiny", "1")
    with pytest.raises(RegistryError, match="tiny"):
        landed.resolve()


DISTIL = "stages.1.distil={from: champion}"


def test_the_champion_teaches_once_there_is_one(retraining: Retraining) -> None:
    """The first run is taught by nobody; the next by the champion that there is then, whoever it is later."""
    first = retraining.resolve(DISTIL)
    assert (first.plan.start.teachers, first.plan.stages[1].distil) == ((), None)
    version = retraining.train(first)
    land_reviews(retraining.folder, 140)
    run = retraining.resolve(DISTIL)
    (teacher,), warm = run.plan.start.teachers, run.plan.start.warm
    assert warm is not None
    assert (teacher.version, teacher.bundle, teacher.key) == (1, version.bundle, warm.key)
    assert run.plan.start.sentence.endswith("; taught by tiny/1")
    assert retraining.train(run).version == 2
    assert retraining.resolve(DISTIL) == run


def test_a_teacher_is_looked_up_once_and_fetched(landed: Retraining) -> None:
    """By its alias, for a recipe that starts from the checkpoint; the alias may move on, and its files be gone."""
    asked = ("start.from=checkpoint", "stages.1.distil={from: tiny@champion, weight: 0.3}", "train.seed=4")
    run = landed.resolve(*asked)
    (teacher,) = run.plan.start.teachers
    assert (run.plan.start.warm, teacher.asked, teacher.version) == (None, "tiny@champion", 1)
    landed.workspace.store.remove(teacher.key)
    assert landed.train(landed.resolve("train.seed=6")).version == 2
    assert landed.resolve(*asked) == run
    assert landed.train(run).version == 3
    bundle = read_bundle(landed.workspace, resolve_version(landed.workspace, "tiny/3"))
    assert candidate(landed.workspace, bundle).taught_by == (teacher.manifest,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stages.1.distil={from: tiny/7}", "there is no version 'tiny/7'"),
        ("stages.1.distil={from: nobody@champion}", "there is no model 'nobody'"),
        (
            "data.label={from: label, map: {'no': a, 'yes': b}, classes: [a, b]}",
            "tiny/1: as a teacher it tells no, yes",
        ),
        ("input.text=[text, label]", "tiny/1: as a teacher it reads text; the data has text, label"),
    ],
)
def test_who_can_not_teach_is_refused(landed: Retraining, change: str, message: str) -> None:
    """Before anything is trained."""
    with pytest.raises(RegistryError, match=message):
        landed.look(DISTIL, change)
