"""The gate: what an evaluation and a policy say about promoting the candidate.

A rule is a list of requirements, each a comparison with a threshold. All cleared: promote; one surely missed: keep;
else inconclusive, until more rows have landed. Not here: moving the alias, or counting the looks at a holdout.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from graftwork.errors import Problem, RecipeError
from graftwork.evaluation.comparison import Comparison, compare
from graftwork.evaluation.evaluation import CANDIDATE, Evaluation
from graftwork.evaluation.predictions import open_predictions
from graftwork.fingerprint import digest, from_json, to_json
from graftwork.policy import Policy
from graftwork.promotion.reasons import explain
from graftwork.promotion.statistics import level_of_look, rows_needed, samples_for
from graftwork.storage import Store
from graftwork.targets.catalog import TARGETS

VERDICT_VERSION = 1  # raised by hand when a rule changes its meaning
RECORD = "verdict.json"
SAMPLES = 2000
MINIMUM_GROUPS = 30  # resampling a handful of groups says nothing about the next one
HOPELESS = 100  # times the rows that are there: nobody waits for so many

Outcome = Literal["promote", "keep", "inconclusive"]
Rule = Literal["baselines", "superiority", "non-inferiority"]


@dataclass(frozen=True)
class Verdict:
    """What becomes of the candidate, and the numbers that led to it.

    level: one-sided confidence of each bound at this look. missing_rows: further holdout rows that would probably
    decide, None if no realistic number would. policy, evaluation: digests.
    """

    SCHEMA: ClassVar[int] = 1
    outcome: Outcome
    reason: str
    rule: Rule
    comparisons: tuple[Comparison, ...]
    look: int
    level: float
    missing_rows: int | None
    policy: str
    evaluation: str

    @property
    def digest(self) -> str:
        """What a ledger entry names as its evidence."""
        # What a later version added counts only where it is used, so that older digests stay.
        compared = [
            {name: value for name, value in vars(each).items() if name != "is_known" or value}
            for each in self.comparisons
        ]
        return digest(vars(self) | {"comparisons": compared})


@dataclass(frozen=True)
class Requirement:
    """The candidate must be better than `reference` by more than `threshold` (negative: worse by less).

    is_known: on the holdout rows that the reference's data had already.
    """

    reference: str
    metric: str
    threshold: float
    is_known: bool = False


def judge(evaluation: Evaluation, policy: Policy, store: Store, look: int, is_revoked: bool = False) -> Verdict:
    """The verdict on the evaluated candidate, stored; `look` counts the bundles judged on this holdout, from 1.

    is_revoked: the bundle was left by a rollback, so only a person may promote it again.
    Raises RecipeError if the policy asks for a baseline that was not evaluated.
    """
    asked = [evaluation.digest, policy.digest, look, is_revoked, VERDICT_VERSION]
    key = f"verdict/{digest(asked)}"
    stored = store.open(key)
    if stored is not None:
        return from_json(Verdict, (stored / RECORD).read_text(encoding="utf-8"))
    verdict = _decide(evaluation, policy, store, look, is_revoked)
    with store.writing(key) as folder:
        (folder / RECORD).write_text(to_json(verdict), encoding="utf-8")
    return verdict


def rule_for(evaluation: Evaluation) -> Rule:
    """No champion: beat the baselines. The champion's recipe on new data: not worse. Another recipe: better."""
    champion = evaluation.references.get("champion")
    if champion is None:
        return "baselines"
    return "non-inferiority" if champion.recipe == evaluation.recipe else "superiority"


def requirements(rule: Rule, policy: Policy) -> tuple[Requirement, ...]:
    """What the rule asks for, the deciding metric first, then the policy's guards, that of forgetting last.

    All of them have to be cleared, so each may be tested at the full level.
    """
    if rule == "baselines":
        return tuple(Requirement(baseline, policy.metric, 0.0) for baseline in policy.baselines)
    # Retraining is measured against the anchor: against the last retraining, quality could walk off in small steps.
    reference, threshold = ("champion", 0.0) if rule == "superiority" else ("anchor", -policy.margin)
    guards = [Requirement(reference, guard.metric, -guard.max_drop) for guard in policy.guards]
    if policy.forgetting is not None:
        guards.append(Requirement(reference, "accuracy", -policy.forgetting, is_known=True))
    return (Requirement(reference, policy.metric, threshold), *guards)


def _decide(evaluation: Evaluation, policy: Policy, store: Store, look: int, is_revoked: bool) -> Verdict:
    rule, level = rule_for(evaluation), level_of_look(policy.level, look)
    compared: list[Comparison] = []
    obstacle = _obstacle(evaluation, policy, look, is_revoked)
    if obstacle is not None:
        outcome, reason, missing = obstacle
    else:
        compared += _compare_all(evaluation, store, requirements(rule, policy), level)
        outcome = _outcome(compared)
        missing = _missing_rows(compared) if outcome == "inconclusive" else 0
        reason = explain(compared, outcome, missing)
    digests = (policy.digest, evaluation.digest)
    return Verdict(outcome, reason, rule, tuple(compared), look, level, missing, *digests)


def _obstacle(
    evaluation: Evaluation, policy: Policy, look: int, is_revoked: bool
) -> tuple[Outcome, str, int | None] | None:
    """What settles the matter before any comparison: the outcome, the reason, and how many rows are missing."""
    champion = evaluation.references.get("champion")
    if champion is not None and champion.bundle == evaluation.bundle:
        return "keep", f"This bundle is the champion already (version {champion.version}).", 0
    if is_revoked:
        return "keep", "This bundle was left by a rollback: only a person may promote it again, with a reason.", 0
    if look > policy.max_looks:
        reason = f"This holdout has judged {policy.max_looks} models, as many as the policy allows: land new rows."
        return "inconclusive", reason, None
    if evaluation.rows < policy.minimum_rows:
        missing = policy.minimum_rows - evaluation.rows
        reason = f"There are {evaluation.rows} holdout rows, the policy wants {policy.minimum_rows}: {missing} more."
        return "inconclusive", reason, missing
    if evaluation.groups < MINIMUM_GROUPS:
        reason = f"The {evaluation.rows} holdout rows are only {evaluation.groups} groups: {MINIMUM_GROUPS} are needed."
        return "inconclusive", reason, MINIMUM_GROUPS - evaluation.groups
    return _obstacle_of_memory(evaluation, policy)


def _obstacle_of_memory(evaluation: Evaluation, policy: Policy) -> tuple[Outcome, str, int | None] | None:
    """As `_obstacle`, of what is to be asked about rows that a reference knew."""
    for each in requirements(rule_for(evaluation), policy):
        memory = evaluation.memory.get(each.reference) if each.is_known else None
        groups = memory.known.groups if memory is not None and memory.known is not None else 0
        if memory is not None and groups < MINIMUM_GROUPS:
            known = f"The {each.reference} knew {groups} groups of the holdout rows"
            return "inconclusive", f"{known}: {MINIMUM_GROUPS} are needed to tell what is forgotten.", None
    return None


def _compare_all(
    evaluation: Evaluation, store: Store, required: Sequence[Requirement], level: float
) -> Iterator[Comparison]:
    unknown = sorted({each.reference for each in required} - evaluation.predictions.keys())
    if unknown:
        hint = "add it to the recipe's evaluation.baselines"
        raise RecipeError(Problem(f"the policy asks for {', '.join(unknown)}, which was not evaluated", hint=hint))
    for each in required:
        memory = evaluation.memory.get(each.reference) if each.is_known else None
        keys = evaluation.predictions if memory is None else memory.predictions
        yield compare(
            open_predictions(store, keys[each.reference]),
            open_predictions(store, keys[CANDIDATE]),
            name=each.reference,
            metric=each.metric,
            threshold=each.threshold,
            level=level,
            samples=samples_for(level, SAMPLES),
            is_known=memory is not None,
            target=TARGETS[evaluation.target],
        )


def _outcome(compared: Sequence[Comparison]) -> Outcome:
    if any(each.is_missed for each in compared):
        return "keep"
    return "promote" if all(each.is_cleared for each in compared) else "inconclusive"


def _missing_rows(compared: Sequence[Comparison]) -> int | None:
    """Further rows at which what was observed, if it is true, clears or misses each open threshold."""
    open_ones = [each for each in compared if not each.is_cleared]
    if any(each.is_known for each in open_ones):
        return None  # what lands is new
    needed = max(
        rows_needed(each.rows, each.standard_error, each.difference.value - each.threshold, each.level)
        for each in open_ones
    )
    rows = open_ones[0].rows
    return None if needed > HOPELESS * rows else max(1, math.ceil(needed) - rows)
