"""The gate's policy: what a model must show before it may serve, in a file of its own with an owner of its own.

Its digest goes into the ledger beside each promotion. Neither a recipe nor `--set` can change it.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from graftwork.documents import Section, read_document, validate_document
from graftwork.fingerprint import digest

MetricName = Literal["accuracy", "balanced_accuracy", "macro_f1", "log_loss", "brier"]
BaselineName = Literal["majority", "tfidf", "frozen-head"]
Count = Annotated[int, Field(strict=True, ge=1)]
Amount = Annotated[float, Field(strict=True, ge=0)]


class Guard(Section):
    """A second metric that may not get worse than the champion's by more than `max_drop`, in its own unit."""

    metric: MetricName
    max_drop: Amount


class Policy(Section):
    """What `judge` asks for."""

    metric: MetricName = Field(default="accuracy", description="The metric that decides.")
    level: float = Field(default=0.95, strict=True, ge=0.5, lt=1, description="Confidence of each one-sided bound.")
    margin: Amount = Field(
        default=0.01, description="The same recipe on new data may be this much worse than the anchor."
    )
    baselines: tuple[BaselineName, ...] = Field(
        default=("majority", "tfidf"), description="What a first model must beat."
    )
    minimum_rows: Count = Field(default=200, description="Fewer holdout rows than this decide nothing.")
    guards: tuple[Guard, ...] = ()
    max_looks: Count = Field(default=20, description="How often one holdout may judge models of one name.")

    @property
    def digest(self) -> str:
        """Changes with what the policy asks for, not with how its file is written."""
        return digest(self.model_dump(mode="json"))


def load_policy(path: Path) -> Policy:
    """The policy file, checked. Raises RecipeError with line and column."""
    return validate_document(read_document(path), Policy)
