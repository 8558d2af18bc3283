"""What a finished flow run hands back: the records of its steps, and where the report lies."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graftwork.evaluation.evaluation import Evaluation
from graftwork.promotion.gate import Verdict
from graftwork.promotion.history import LedgerEntry
from graftwork.registry.versions import ModelVersion
from graftwork.training.bundle import ServingBundle
from graftwork.training.estimate import Estimate, StageEstimate
from graftwork.training.plan import ResolvedRun


@dataclass(frozen=True)
class RunSummary:
    """A limited run has no version, no ledger entry and no report. estimate: what it was to take, if it was probed."""

    run: ResolvedRun
    bundle: ServingBundle
    evaluation: Evaluation
    verdict: Verdict
    version: ModelVersion | None = None
    entry: LedgerEntry | None = None
    report: Path | None = None
    estimate: Estimate | None = None

    @property
    def estimated(self) -> dict[str, StageEstimate]:
        """What each stage was to take, by the key of its result."""
        return {stage.key: stage for stage in self.estimate.stages} if self.estimate else {}

    def as_json(self) -> dict[str, Any]:
        """Plain values: what a script would ask for."""
        counts = {"rows": asdict(self.run.manifest.counts), "sides": self.run.plan.rows}
        stages = [
            {
                "stage": stage.stage,
                "seconds": stage.seconds,
                "peak_bytes": stage.peak_bytes,
                "estimated": _cost(self.estimated.get(stage.key)),
                "best_epoch": stage.best_epoch,
                "validation_loss": stage.best.validation_loss,
                "validation_accuracy": stage.best.validation_accuracy,
            }
            for stage in self.bundle.stages
        ]
        return {
            "run_id": self.run.run_id,
            "model": self.run.plan.name,
            "manifest": self.run.manifest.digest,
            "data": counts,
            "start": asdict(self.run.plan.start),
            "stages": stages,
            "bundle": self.bundle.digest,
            "evaluation": asdict(self.evaluation),
            "verdict": asdict(self.verdict),
            "version": self.version.version if self.version else None,
            "alias": self.entry.alias if self.entry else None,
            "report": str(self.report) if self.report else None,
        }


def _cost(estimate: StageEstimate | None) -> dict[str, float] | None:
    return {"seconds": estimate.seconds, "peak_bytes": estimate.peak_bytes} if estimate else None
