"""The gate's policy: what a model must show before it may serve, in a file of its own with an owner of its own.

Its digest goes into the ledger beside each promotion. Neither a recipe nor `--set` can change it.
"""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from graftwork.documents import Section, read_document, validate_document
from graftwork.fields import Amount, Count, Duration, Word
from graftwork.fingerprint import digest
from graftwork.keys import public_key

MetricName = Literal[
    "accuracy",
    "balanced_accuracy",
    "entity_f1",
    "word_accuracy",
    "macro_f1",
    "micro_f1",
    "exact_match",
    "log_loss",
    "brier",
    "mae",
    "rmse",
    "r2",
    "spearman",
    "rouge_l",
    "token_f1",
    "chrf",
]
BaselineName = Literal["majority", "tfidf", "word-features", "frozen-head", "zero-shot"]


class Guard(Section):
    """A second metric that may not get worse than the champion's by more than `max_drop`, in its own unit."""

    metric: MetricName
    max_drop: Amount


def _ssh_key(line: str) -> str:
    try:
        public_key(line)
    except ValueError as error:
        raise ValueError("expected a line of an OpenSSH .pub file: ssh-ed25519 AAAA… name") from error
    return " ".join(line.split()[:2])  # without its comment


class ApprovalSection(Section):
    """Who may let a candidate serve that the gate wants to promote; until one of them does, it stays challenger."""

    approvers: Annotated[dict[Word, Annotated[str, AfterValidator(_ssh_key)]], Field(min_length=1)]
    valid: Duration = Field(default=timedelta(days=7), description="After this a request is not decided any more.")
    four_eyes: bool = Field(default=True, strict=True, description="Not by the recipe's author.")


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
    forgetting: Amount | None = Field(
        default=None,
        description="Largest loss of accuracy on holdout rows that the champion's data had; None: the whole counts.",
    )
    max_looks: Count = Field(default=20, description="How often one holdout may judge models of one name.")
    approval: ApprovalSection | None = Field(default=None, description="None: the gate promotes by itself.")

    @property
    def digest(self) -> str:
        """Changes with what the policy asks for, not with how its file is written."""
        # What a later version added counts only where it is used, so that older digests stay.
        added = {name for name in ("approval", "forgetting") if getattr(self, name) is None}
        return digest(self.model_dump(mode="json", exclude=added))


def load_policy(path: Path) -> Policy:
    """The policy file, checked. Raises RecipeError with line and column."""
    return validate_document(read_document(path), Policy)
