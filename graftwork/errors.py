"""The errors a user can meet: one class for each decision a caller can take, one exit code a kind.

Not here: bugs of our own. Those stay ordinary exceptions and end with exit code 1.
"""

from collections.abc import Iterable
from dataclasses import dataclass

SHOWN_VALUE = 80
SHOWN_PROBLEMS = 20


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: what, where, and what to do about it."""

    message: str
    where: str = ""
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.hint})" if self.hint else text


class GraftworkError(Exception):
    """Problems found together, raised once; `exit_code` tells a shell which kind they are."""

    exit_code = 1

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(p if isinstance(p, Problem) else Problem(p) for p in problems)
        super().__init__(*self.problems)

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems[:SHOWN_PROBLEMS]]
        if len(self.problems) > SHOWN_PROBLEMS:
            lines.append(f"and {len(self.problems) - SHOWN_PROBLEMS} more")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[type, tuple[Problem, ...]]:
        return type(self), self.problems


class RecipeError(GraftworkError):
    """The recipe, the policy or the command line says something that can't be done."""

    exit_code = 2


class DataError(GraftworkError):
    """The data can't be read, breaks its contract, or is not enough to train on."""

    exit_code = 3


class CheckpointError(GraftworkError):
    """The pretrained checkpoint is not the pinned one, not safe, or not usable."""

    exit_code = 4


class TrainingError(GraftworkError):
    """Training can't start, diverged, or its process died."""

    exit_code = 5


class RegistryError(GraftworkError):
    """The model registry does not hold what it should."""

    exit_code = 6


class PromotionRefused(RegistryError):
    """The ledger or the policy does not allow this promotion."""


class ServiceUnavailable(GraftworkError):
    """A service that the run needs does not answer: worth another try."""

    exit_code = 7


class AuditError(GraftworkError):
    """An audit, or the doctor, found something that a person should look at."""

    exit_code = 8


class Paused(GraftworkError):
    """The run was asked to stop and can go on: start it again."""

    exit_code = 75


def raise_if(problems: Iterable[Problem], error: type[GraftworkError]) -> None:
    """Raise every problem at once as `error`; do nothing where there is none."""
    found = tuple(problems)
    if found:
        raise error(*found)


def shorten(value: object, limit: int = SHOWN_VALUE) -> str:
    """The value on one line, control characters escaped, cut to `limit` characters."""
    text = str(value)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
