"""A project whose model is trained, and what becomes of it: judged, registered, told of."""

from dataclasses import dataclass
from pathlib import Path

from tiny import resolve_run

from graftwork.evaluation.baselines import FrozenEncoder
from graftwork.evaluation.evaluation import Evaluation, evaluate
from graftwork.models.serving.model import ServingModel, load
from graftwork.policy import load_policy
from graftwork.promotion.gate import Verdict, judge
from graftwork.registry.contenders import candidate, references
from graftwork.registry.registration import register_model
from graftwork.registry.tracking import log_training
from graftwork.registry.versions import ModelVersion
from graftwork.report.facts import ReportFacts, installed_libraries, this_machine
from graftwork.settings import Settings
from graftwork.training.bundle import MODEL, ServingBundle
from graftwork.training.engine import run_stages
from graftwork.training.plan import ResolvedRun
from graftwork.training.reading import measure_reading
from graftwork.workspace import Workspace


@dataclass(frozen=True)
class Trained:
    """What `train` made in a folder."""

    folder: Path
    workspace: Workspace
    run: ResolvedRun
    bundle: ServingBundle

    @property
    def served(self) -> ServingModel:
        return load(self.workspace.store.root / self.bundle.key / MODEL, "cpu")

    def evaluate(self) -> Evaluation:
        run = self.run
        encoder = FrozenEncoder(
            run.lock.key, run.plan.pooling, run.plan.max_tokens, run.plan.precision, run.plan.pixels
        )
        return evaluate(
            self.workspace.store,
            candidate(self.workspace, self.bundle),
            references(self.workspace, self.bundle),
            run.manifest,
            encoder=encoder,
            baselines=run.evaluation.baselines,
            slices=("source",),
            samples=100,
        )

    def judge(self) -> Verdict:
        return judge(self.evaluate(), load_policy(self.folder / "policy.yaml"), self.workspace.store, look=1)

    def register(self) -> ModelVersion:
        """It as a version of its model, in the MLflow of the folder."""
        mlflow_run = log_training(self.workspace, self.run.run_id, self.run.plan, self.bundle.stages)
        return register_model(self.workspace, mlflow_run, self.bundle, self.run.manifest, self.evaluate(), self.judge())

    def tell(self, version: ModelVersion) -> ReportFacts:
        """What its page and its card are made of."""
        return ReportFacts(
            run=self.run,
            bundle=self.bundle,
            evaluation=self.evaluate(),
            verdict=self.judge(),
            version=version,
            entry=None,
            command="graftwork run recipe.yaml",
            created_at="2026-01-01T00:00:00",
            machine=this_machine(),
            libraries=installed_libraries(),
            reading=measure_reading(self.workspace.store, self.run),
        )


def train(folder: Path, *changes: str) -> Trained:
    """The folder's recipe, with these changes, to its end."""
    workspace = Workspace.open(Settings(home=folder / "home"))
    run = resolve_run(folder, workspace, *changes)
    return Trained(folder, workspace, run, run_stages(run, workspace, lambda _: None, lambda: False))
