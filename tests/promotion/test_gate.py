"""Verdicts: each rule, each obstacle, and how often the gate lets an equal model through."""

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest

from graftwork.errors import RecipeError
from graftwork.evaluation.evaluation import Evaluation
from graftwork.fingerprint import digest
from graftwork.policy import Guard, Policy
from graftwork.promotion.gate import judge, rule_for
from graftwork.promotion.statistics import level_of_look
from graftwork.storage import Store

POLICY = Policy(baselines=("majority", "tfidf"), minimum_rows=200)
RETRAINED = {"champion": "new", "anchor": "old"}
CHANGED = {"champion": "old"}
Evaluations = Callable[..., Evaluation]


def right(*counts: tuple[int, bool]) -> np.ndarray:
    """Whether a model is right, row by row: so many rows that it gets right, so many that it does not, and so on."""
    return np.concatenate([np.full(count, is_right) for count, is_right in counts])


def accuracy(share: float, rows: int = 1000) -> np.ndarray:
    """Right on the first rows, wrong on the rest."""
    return np.arange(rows) < share * rows


def test_a_first_model_has_to_beat_every_baseline(evaluation_of: Evaluations, store: Store) -> None:
    """Above both: promoted, and the reason speaks of the stronger. Below one of them: kept, and that one is named."""
    above = evaluation_of(accuracy(0.9), majority=accuracy(0.5), tfidf=accuracy(0.8))
    verdict = judge(above, POLICY, store, look=1)
    assert (verdict.outcome, verdict.rule, len(verdict.comparisons)) == ("promote", "baselines", 2)
    assert "0.9000 against 0.8000 of the tfidf baseline on 1000 rows: better than" in verdict.reason
    below = evaluation_of(accuracy(0.7), majority=accuracy(0.5), tfidf=accuracy(0.8))
    verdict = judge(below, POLICY, store, look=1)
    assert (verdict.outcome, verdict.missing_rows) == ("keep", 0)
    assert "not better than the tfidf baseline, with 97.5 % confidence (difference -10.0 points" in verdict.reason


def test_a_changed_recipe_has_to_be_better_than_the_champion(evaluation_of: Evaluations, store: Store) -> None:
    """Better, worse, and better by too little to tell."""
    champion = right((800, True), (200, False))
    cases = {
        "promote": right((800, True), (60, True), (140, False)),
        "keep": right((60, False), (740, True), (200, False)),
        "inconclusive": right((20, False), (780, True), (26, True), (174, False)),
    }
    for outcome, candidate in cases.items():
        found = evaluation_of(candidate, recipes=CHANGED, champion=champion, anchor=champion)
        verdict = judge(found, POLICY, store, look=1)
        assert (verdict.outcome, verdict.rule) == (outcome, "superiority"), verdict.reason
    assert verdict.missing_rows is not None
    assert f"about {verdict.missing_rows} more holdout rows would decide" in verdict.reason


def test_the_missing_rows_decide(evaluation_of: Evaluations, store: Store) -> None:
    """With the rows that were missing, in the same proportions, the open question is settled."""
    counts = np.array([20, 780, 26, 174])

    def judged(scale: float) -> tuple[str, int | None]:
        lost, both, won, neither = (counts * scale).round().astype(int)
        champion = right((lost + both, True), (won + neither, False))
        candidate = right((lost, False), (both + won, True), (neither, False))
        verdict = judge(evaluation_of(candidate, recipes=CHANGED, champion=champion), POLICY, store, look=1)
        return verdict.outcome, verdict.missing_rows

    outcome, missing = judged(1)
    assert outcome == "inconclusive"
    assert missing is not None
    assert judged(1 + missing / 1000) == ("promote", 0)
    assert judged(1 + missing / 10_000)[0] == "inconclusive"


def test_a_retraining_is_measured_against_the_anchor(evaluation_of: Evaluations, store: Store) -> None:
    """Not worse than the last champion but clearly worse than the anchor: kept, so quality can't walk off in steps."""
    candidate = accuracy(0.80, 3000)
    drifted = evaluation_of(candidate, recipes=RETRAINED, champion=candidate, anchor=accuracy(0.83, 3000))
    verdict = judge(drifted, POLICY, store, look=1)
    assert (verdict.outcome, verdict.rule) == ("keep", "non-inferiority")
    assert "more than 1.0 points worse than the anchor" in verdict.reason
    level = evaluation_of(candidate, recipes=RETRAINED, champion=candidate, anchor=accuracy(0.80, 3000))
    assert judge(level, POLICY, store, look=1).outcome == "promote"


def test_a_margin_that_the_holdout_can_not_carry_is_said(evaluation_of: Evaluations, store: Store) -> None:
    """An equal model with many rows judged differently: the reason names the margin and what these rows can tell."""
    anchor = right((100, True), (300, True), (100, False))
    candidate = right((100, False), (300, True), (100, True))
    found = evaluation_of(candidate, recipes=RETRAINED, champion=anchor, anchor=anchor)
    verdict = judge(found, POLICY, store, look=1)
    assert verdict.outcome == "inconclusive"
    assert "a margin of 1.0 points is finer than 500 rows can tell" in verdict.reason
    assert f"about {verdict.missing_rows} more are needed" in verdict.reason


def test_a_guard_holds_back_a_better_model(evaluation_of: Evaluations, store: Store) -> None:
    """More right in all, bought with the rare class: kept, and the reason names the guard's metric."""
    labels = np.repeat([0, 1], [900, 100])
    champion = right((800, True), (100, False), (80, True), (20, False))
    candidate = right((890, True), (10, False), (40, True), (60, False))
    found = evaluation_of(candidate, recipes=CHANGED, labels=labels, champion=champion)
    assert judge(found, POLICY, store, look=1).outcome == "promote"
    guarded = POLICY.model_copy(update={"guards": (Guard(metric="balanced_accuracy", max_drop=0.02),)})
    verdict = judge(found, guarded, store, look=1)
    assert verdict.outcome == "keep"
    assert "Balanced accuracy 0.6944 against 0.8444" in verdict.reason
    assert "more than 2.0 points worse than the champion" in verdict.reason


@pytest.mark.parametrize("recipes", [CHANGED, RETRAINED])
def test_the_champion_itself_is_not_promoted_again(
    evaluation_of: Evaluations, store: Store, recipes: dict[str, str]
) -> None:
    """Nothing changed, nothing to decide, whatever the rule."""
    same = accuracy(0.8)
    found = evaluation_of(same, bundle="champion", recipes=recipes, champion=same, anchor=same)
    verdict = judge(found, POLICY, store, look=1)
    assert (verdict.outcome, verdict.comparisons) == ("keep", ())
    assert "champion already (version 3)" in verdict.reason


def test_equal_predictions_are_kept_back_by_superiority(evaluation_of: Evaluations, store: Store) -> None:
    """Another bundle that predicts the same rows the same way is no better: at any look, never promoted."""
    same = accuracy(0.8)
    found = evaluation_of(same, recipes=CHANGED, champion=same)
    assert {judge(found, POLICY, store, look=look).outcome for look in (1, 2, 5)} == {"keep"}


def test_a_revoked_bundle_waits_for_a_person(evaluation_of: Evaluations, store: Store) -> None:
    """However good its figures, what a rollback left is not promoted automatically."""
    found = evaluation_of(accuracy(0.95), recipes=CHANGED, champion=accuracy(0.5))
    assert judge(found, POLICY, store, look=1).outcome == "promote"
    verdict = judge(found, POLICY, store, look=1, is_revoked=True)
    assert (verdict.outcome, "rollback" in verdict.reason) == ("keep", True)


def test_too_few_rows_or_groups_decide_nothing(evaluation_of: Evaluations, store: Store) -> None:
    """A hundred rows of two hundred wanted; and a thousand rows that are five groups."""
    few = evaluation_of(accuracy(1, 100), recipes=CHANGED, champion=accuracy(0, 100))
    verdict = judge(few, POLICY, store, look=1)
    assert (verdict.outcome, verdict.missing_rows) == ("inconclusive", 100)
    lots = [f"g{row % 5}" for row in range(1000)]
    lumped = evaluation_of(accuracy(1), recipes=CHANGED, groups=lots, champion=accuracy(0))
    verdict = judge(lumped, POLICY, store, look=1)
    assert (verdict.outcome, "5 groups" in verdict.reason) == ("inconclusive", True)


def test_a_holdout_is_used_up(evaluation_of: Evaluations, store: Store) -> None:
    """Each look asks for more confidence than the one before, and after the last the holdout judges no more."""
    found = evaluation_of(accuracy(0.95), recipes=CHANGED, champion=accuracy(0.5))
    levels = [judge(found, POLICY, store, look=look).level for look in (1, 2, 3)]
    assert levels == [level_of_look(0.95, look) for look in (1, 2, 3)] == sorted(levels)
    verdict = judge(found, POLICY, store, look=POLICY.max_looks + 1)
    assert (verdict.outcome, "land new rows" in verdict.reason) == ("inconclusive", True)


def test_a_baseline_that_was_not_evaluated_is_named(evaluation_of: Evaluations, store: Store) -> None:
    """The policy asks for tfidf, the recipe left it out: an error, never a silent pass."""
    with pytest.raises(RecipeError, match=r"tfidf.*evaluation\.baselines"):
        judge(evaluation_of(accuracy(0.9), majority=accuracy(0.5)), POLICY, store, look=1)


def test_the_rule_follows_from_the_champion(evaluation_of: Evaluations) -> None:
    """No champion, the champion's recipe, another recipe."""
    same = accuracy(0.8)
    assert rule_for(evaluation_of(same)) == "baselines"
    assert rule_for(evaluation_of(same, recipes=RETRAINED, champion=same, anchor=same)) == "non-inferiority"
    assert rule_for(evaluation_of(same, recipes=CHANGED, champion=same, anchor=same)) == "superiority"


def test_a_verdict_is_stored_and_the_same_again(evaluation_of: Evaluations, store: Store) -> None:
    """Asked again it is read, not computed: it survives the loss of the predictions."""
    found = evaluation_of(accuracy(0.9), recipes=CHANGED, champion=accuracy(0.8))
    verdict = judge(found, POLICY, store, look=1)
    for key in found.predictions.values():
        (store.root / key / "predictions.parquet").unlink()
    assert judge(found, POLICY, store, look=1) == verdict


FORGETFUL = {"champion": right((400, True), (600, False))}  # rows that it knew are the first 400


def test_what_is_forgotten_is_weighed_on_what_was_known(evaluation_of: Evaluations, store: Store) -> None:
    """Better in all by what it learnt on new rows, worse on the known: kept by the policy that asks, else promoted."""
    champion = right((380, True), (20, False), (300, True), (300, False))
    candidate = right((320, True), (80, False), (560, True), (40, False))
    found = evaluation_of(candidate, recipes=CHANGED, champion=champion, known=FORGETFUL)
    assert judge(found, POLICY, store, look=1).outcome == "promote"
    asking = POLICY.model_copy(update={"forgetting": 0.05})
    verdict = judge(found, asking, store, look=1)
    assert verdict.outcome == "keep"
    assert (
        "Accuracy 0.8000 against 0.9500 of the champion on 400 rows that it knew: more than 5.0 points"
        in verdict.reason
    )
    last = verdict.comparisons[-1]
    assert (last.rows, last.is_known, last.against) == (400, True, "champion, on what it knew")
    lenient = POLICY.model_copy(update={"forgetting": 0.25})
    assert judge(found, lenient, store, look=1).outcome == "promote"


def test_known_rows_that_can_not_tell_are_a_person_s_to_decide(evaluation_of: Evaluations, store: Store) -> None:
    """No landing makes more of them, so no number of rows is asked for; of less than thirty nothing is said."""
    champion = right((360, True), (40, False), (300, True), (300, False))
    candidate = right((20, False), (340, True), (15, True), (25, False), (560, True), (40, False))
    asking = POLICY.model_copy(update={"forgetting": 0.02})
    found = evaluation_of(candidate, recipes=CHANGED, champion=champion, known=FORGETFUL)
    verdict = judge(found, asking, store, look=1)
    assert (verdict.outcome, verdict.missing_rows) == ("inconclusive", None)
    assert "does not grow with what lands, so a person has to decide" in verdict.reason
    few = evaluation_of(candidate, recipes=CHANGED, champion=champion, known={"champion": np.arange(1000) < 12})
    verdict = judge(few, asking, store, look=1)
    assert (verdict.outcome, verdict.comparisons) == ("inconclusive", ())
    assert "knew 12 groups of the holdout rows: 30 are needed" in verdict.reason


def test_where_nothing_is_new_the_whole_holdout_is_what_was_known(evaluation_of: Evaluations, store: Store) -> None:
    """An evaluation without a memory is one of a reference on the same data, or of a model made elsewhere."""
    found = evaluation_of(accuracy(0.85), recipes=RETRAINED, champion=accuracy(0.8), anchor=accuracy(0.84))
    verdict = judge(found, POLICY.model_copy(update={"forgetting": 0.01}), store, look=1)
    assert [(each.reference, each.rows, each.is_known) for each in verdict.comparisons] == [("anchor", 1000, False)] * 2


def test_a_first_model_has_nothing_to_forget(evaluation_of: Evaluations, store: Store) -> None:
    """Baselines know nothing."""
    found = evaluation_of(accuracy(0.9), majority=accuracy(0.5), tfidf=accuracy(0.8))
    asking = POLICY.model_copy(update={"forgetting": 0.01})
    assert judge(found, asking, store, look=1).comparisons == judge(found, POLICY, store, look=1).comparisons


def test_a_verdict_that_asks_for_no_memory_keeps_its_digest(evaluation_of: Evaluations, store: Store) -> None:
    """The ledger names it as evidence; so it does a policy."""
    found = evaluation_of(accuracy(0.85), recipes=CHANGED, champion=accuracy(0.8))
    verdict = judge(found, POLICY, store, look=1)
    plain = asdict(verdict)
    for each in plain["comparisons"]:
        del each["is_known"]
    assert verdict.digest == digest(plain)
    assert Policy(forgetting=0.01).digest != Policy().digest
