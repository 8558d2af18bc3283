"""A model that others made, with a library that only their environment has, becomes champion and is judged against."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from processes import has_ended, wait_until
from servers import environment_for, free_port, serving
from tiny import land_reviews, resolve_run, write_image_project, write_project

from graftwork.errors import PromotionRefused, RecipeError, RegistryError
from graftwork.evaluation.baselines import FrozenEncoder
from graftwork.evaluation.evaluation import evaluate
from graftwork.policy import Policy
from graftwork.promotion.gate import judge
from graftwork.promotion.history import LedgerEntry
from graftwork.promotion.ledger import Ledger
from graftwork.recipe import load_recipe
from graftwork.registry.adoption import adopt
from graftwork.registry.aliases import promote_by_hand, roll_back
from graftwork.registry.audit import audit
from graftwork.registry.client import reach_mlflow
from graftwork.registry.contenders import candidate, references
from graftwork.registry.predictors import open_version
from graftwork.registry.registration import register_model
from graftwork.registry.starts import find_start
from graftwork.registry.tracking import log_training
from graftwork.registry.versions import list_models, read_aliases, resolve_version
from graftwork.retention import _needed
from graftwork.scoring import score_file
from graftwork.training.engine import run_stages
from graftwork.workspace import Workspace

pytestmark = pytest.mark.e2e

GOOD = "good great wonderful moving warm clever"
LIBRARY = f"""
import os
import subprocess

def judge(text):
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ
    if "too much" in text:
        os.kill(os.getpid(), 9)
    if text.startswith("sleep "):
        child = subprocess.Popen(["sleep", "600"])
        with open(text.split()[1], "w") as told:
            told.write(str(child.pid))
        child.wait()
    is_good = any(word in text.split() for word in {GOOD.split()})
    return [0.1, 0.9] if is_good else [0.8, 0.2]
"""
MODEL = """
import mlflow
import pandas as pd
import others_sentiment

class Theirs(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return pd.DataFrame([others_sentiment.judge(text) for text in model_input["text"]], columns=[COLUMNS])

mlflow.models.set_model(Theirs())
"""
REGISTER = """
import sys
import mlflow
place = None if mlflow.get_tracking_uri().startswith("http") else sys.argv[3]
mlflow.set_experiment(experiment_id=mlflow.create_experiment(sys.argv[2], artifact_location=place))
with mlflow.start_run():
    mlflow.pyfunc.log_model(
        name="theirs", python_model=sys.argv[1], registered_model_name=sys.argv[2], pip_requirements=["mlflow"]
    )
mlflow.MlflowClient().set_registered_model_alias(sys.argv[2], "production", "1")
"""


@pytest.fixture(scope="session")
def their_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of another environment: with all that ours has, and a library of its own."""
    folder = tmp_path_factory.mktemp("theirs") / "environment"
    venv.create(folder, symlinks=True)
    site = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    (site / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (site / "others_sentiment.py").write_text(LIBRARY)
    return folder / "bin" / "python"


@dataclass
class Team:
    """A project, its registry, and those who register models there without us."""

    folder: Path
    workspace: Workspace
    python: Path

    def register(self, name: str, columns: str = "'p_no', 'p_yes'") -> None:
        (self.folder / "model.py").write_text(MODEL.replace("COLUMNS", columns))
        artifacts = self.folder / "their-artifacts" / name
        command = [str(self.python), "-c", REGISTER, str(self.folder / "model.py"), name, str(artifacts)]
        environment = os.environ | {"MLFLOW_TRACKING_URI": self.workspace.settings.mlflow_uri}
        subprocess.run(command, env=environment, cwd=self.folder, check=True, capture_output=True)

    def adopt(self, reference: str) -> LedgerEntry:
        return adopt(self.workspace, load_recipe(self.folder / "recipe.yaml"), reference, "serves since May", "me")


@pytest.fixture
def team(
    tmp_path: Path,
    workspace: Workspace,
    tiny_checkpoint: Path,
    their_python: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Team:
    """100 reviews; in the environment is a password."""
    write_project(tmp_path, tiny_checkpoint)
    land_reviews(tmp_path, 100)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "planted-2b7d")
    settings = workspace.settings.model_copy(update={"adopted_python": their_python})
    return Team(tmp_path, replace(workspace, settings=settings), their_python)


def test_it_is_champion_and_the_next_is_judged_against_it(team: Team) -> None:
    """It predicts what it says, is not gone on from, and is gone back to."""
    team.register("sentiment-prod")
    entry = team.adopt("sentiment-prod@production")
    assert (entry.rule, entry.to_version, entry.actor) == ("adopted", 1, "me")
    assert team.adopt("sentiment-prod/1") == entry
    assert read_aliases(team.workspace, "tiny") == {"champion": 1}
    assert audit(team.workspace).problems == ()
    shutil.rmtree(team.folder / "their-artifacts")  # from here on it is ours
    (listed,) = list_models(team.workspace, "tiny")
    assert listed.version.adopted is not None
    assert (listed.version.adopted.origin, listed.metrics) == ("sentiment-prod/1", {})

    run = resolve_run(team.folder, team.workspace)
    bundle = run_stages(run, team.workspace, lambda event: None, lambda: False)
    evaluation = evaluate(
        team.workspace.store,
        candidate(team.workspace, bundle),
        references(team.workspace, bundle),
        run.manifest,
        encoder=FrozenEncoder(run.lock.key, "mean", 16, "float32"),
        baselines=(),
        samples=50,
    )
    champion = evaluation.references["champion"]
    assert champion.name == "version 1, made elsewhere"
    assert champion.metrics["accuracy"].value == 1
    verdict = judge(evaluation, Policy(minimum_rows=1), team.workspace.store, look=1)
    assert verdict.rule == "superiority"
    assert verdict.outcome != "promote"

    recipe = load_recipe(team.folder / "recipe.yaml", ["start.from=champion"])
    assert (
        find_start(team.workspace, recipe, run.manifest, run.lock).reason
        == "the champion, version 1, was made elsewhere"
    )
    mlflow_run = log_training(team.workspace, run.run_id, run.plan, bundle.stages)
    version = register_model(team.workspace, mlflow_run, bundle, run.manifest, evaluation, verdict)
    promote_by_hand(team.workspace, "tiny", version.version, "to see")
    with pytest.raises(PromotionRefused, match="it has a champion, version 2: adopting is for a model without one"):
        team.adopt("sentiment-prod/1")
    assert roll_back(team.workspace, "tiny", "complaints").to_version == 1
    assert _needed(team.workspace, before=1e12).has(f"registered/{entry.bundle_digest}")
    assert team.workspace.store.open(f"registered/{entry.bundle_digest}") is not None
    with pytest.raises(RegistryError, match="there is nothing to adopt: a run of Graftwork made it"):
        team.adopt("tiny/2")


def test_a_recipe_of_pictures_is_refused_at_once(tmp_path: Path, workspace: Workspace) -> None:
    """Before a picture is read, or a registry asked: what would be tried on them takes texts."""
    write_image_project(tmp_path, tmp_path / "checkpoint")
    recipe = load_recipe(tmp_path / "recipe.yaml")
    shutil.rmtree(tmp_path / "pictures")
    with pytest.raises(RecipeError, match=r"recipe\.yaml: input: only a model that reads texts can be adopted"):
        adopt(workspace, recipe, "theirs/1", "serves since May", "me")


def test_it_predicts_files_as_ours_do(team: Team) -> None:
    """One that is registered under the model's own name already stays the version it is. Paths may be relative."""
    team = with_settings(team, adopted_python=Path(os.path.relpath(team.python)))
    team.register("tiny")
    entry = team.adopt("tiny@production")
    assert entry.to_version == 1
    assert len(list_models(team.workspace, "tiny")) == 1
    output = team.folder / "out.csv"
    told: list[tuple[int, int]] = []
    score_file(
        team.workspace, "tiny", team.folder / "made.csv", output, prefix="p_", on_progress=lambda *at: told.append(at)
    )
    table = pd.read_csv(output)
    assert (table["p_label"] == table["label"]).all()
    assert np.allclose(table["p_p_no"] + table["p_p_yes"], 1)
    assert told[-1] == (100, 100)
    assert team.workspace.store.open(f"registered/{entry.bundle_digest}") is not None
    (team.folder / "made.csv").write_text("text,label\nit was too much,no\n")
    with pytest.raises(RegistryError, match="tiny/1: its process died of SIGKILL"):
        score_file(team.workspace, "tiny", team.folder / "made.csv", output, prefix="p_")
    with pytest.raises(RegistryError, match="tiny/1: it was made elsewhere and has a precision of its own"):
        score_file(team.workspace, "tiny", team.folder / "made.csv", output, prefix="p_", precision="bfloat16")


def test_one_that_gives_no_answer_is_ended(team: Team) -> None:
    """With all that it started, after the time that the settings give it."""
    team.register("tiny")
    team.adopt("tiny@production")
    hasty, started = with_settings(team, adopted_seconds=30.0), team.folder / "started"
    (team.folder / "made.csv").write_text(f"text,label\nsleep {started},no\n")
    with pytest.raises(
        RegistryError, match=r"it gave no answer within 30 s, and was ended \(GRAFTWORK_ADOPTED_SECONDS"
    ):
        score_file(hasty.workspace, "tiny", team.folder / "made.csv", team.folder / "out.csv", prefix="p_")
    wait_until(lambda: has_ended(int(started.read_text())))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("'no', 'yes'", "sentiment-prod/1: it gives no, yes; the data's classes need p_no, p_yes"),
        ("'p_yes', 'p_no'", None),
    ],
)
def test_what_gives_other_things_is_refused(team: Team, columns: str, message: str | None) -> None:
    """Columns go by their names, in any order; without them nothing is registered or promoted."""
    team.register("sentiment-prod", columns)
    if message is None:
        assert team.adopt("sentiment-prod/1").to_version == 1
        return
    with pytest.raises(RegistryError) as caught:
        team.adopt("sentiment-prod/1")
    assert message in str(caught.value)
    with pytest.raises(PromotionRefused, match="needs a reason"):
        adopt(team.workspace, load_recipe(team.folder / "recipe.yaml"), "sentiment-prod/1", " ")
    assert list_models(team.workspace, "tiny") == []
    assert Ledger.of(team.workspace).champion("tiny") is None


def with_settings(team: Team, **settings: object) -> Team:
    changed = team.workspace.settings.model_copy(update=settings)
    return replace(team, workspace=replace(team.workspace, settings=changed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda team: with_settings(team, adopted_python=Path(sys.executable)), "No module named 'others_sentiment'"),
        (
            lambda team: with_settings(team, adopted_python=Path("/no/such/python")),
            "can't be run: No such file or directory",
        ),
    ],
)
def test_an_environment_that_does_not_fit_is_told(team: Team, change: Callable[[Team], Team], message: str) -> None:
    """With what its process said last, and the setting that names another."""
    team.register("sentiment-prod")
    with pytest.raises(RegistryError, match="GRAFTWORK_ADOPTED_PYTHON") as caught:
        change(team).adopt("sentiment-prod/1")
    assert message in str(caught.value)


def test_it_is_taken_from_a_server_as_well(team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP, where a version that points to another is found in another way."""
    port = free_port()
    environment = environment_for(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    command = f"exec {sys.executable} -m mlflow server --workers 1 --port {port}"
    address = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)  # MLflow sets it, and would leave it so
    (tmp_path / "server").mkdir()
    with serving(command, tmp_path / "server", environment, f"{address}/health"):
        team = with_settings(team, tracking_uri=address)
        team.register("sentiment-prod")
        entry = team.adopt("sentiment-prod@production")
        team.workspace.store.remove(f"registered/{entry.bundle_digest}")
        version = resolve_version(team.workspace, "tiny@champion")
        model = open_version(team.workspace, version)
        assert model.probabilities(["a good film", "a dull one"]).tolist() == [[0.1, 0.9], [0.8, 0.2]]


def test_what_is_not_registered_can_t_be_adopted(team: Team) -> None:
    """MLflow's own words, and no traceback."""
    with reach_mlflow(team.workspace.settings) as client:
        client.create_registered_model("empty")
    for reference in ("nosuch@production", "empty/3", "empty@champion"):
        with pytest.raises(RegistryError, match="not found"):
            team.adopt(reference)
