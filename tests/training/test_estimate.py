"""What is proposed where a recipe does not fit, on machines whose memory follows a law that is known."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graftwork.training.estimate import (
    ROUND_TOKENS,
    SPARE,
    Outcome,
    StageEstimate,
    Trial,
    estimate_run,
)
from graftwork.training.plan import ResolvedRun

MIB = 1 << 20
BATCH = 4096


@pytest.fixture
def run(resolve: Callable[..., ResolvedRun]) -> ResolvedRun:
    """Two stages that train three and five depth groups, in large batches."""
    stages = "stages=[{name: a, train: [head, 'top:2'], epochs: 1, learning_rate: 1e-3}, "
    stages += "{name: b, train: all, epochs: 1, learning_rate: 1e-3}]"
    return resolve(stages, f"train.batch_tokens={BATCH}")


class Machine:
    """One that a stage takes `fixed` bytes of, and so much for each group it trains and each token of a batch.

    What takes half as much again as is free is killed. tried: everything that was measured, and what it gave.
    """

    def __init__(self, run: ResolvedRun, free: int, fixed: int, group: int, token: int) -> None:
        self.stages = {stage.key: len(stage.rates) for stage in run.plan.stages}
        self.free, self.fixed, self.group, self.token = free, fixed, group, token
        self.tried: list[tuple[Trial, Outcome]] = []

    def __call__(self, trial: Trial) -> Outcome:
        stages = []
        for key, groups in self.stages.items():
            needed = self.fixed + self.group * min(groups, trial.groups) + self.token * trial.batch_tokens
            if needed <= 1.5 * self.free:
                costs = (9, 0, 1.0, 0.0, 0.1, needed + MIB, MIB, trial.batch_tokens, self.token)
                stages.append(StageEstimate(key, key, *costs))
        self.tried.append((trial, Outcome(self.free, tuple(stages), is_whole=len(stages) == 2)))
        return self.tried[-1][1]


sizes = st.integers(0, 2000).map(lambda mib: mib * MIB)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(free=st.integers(100, 4000).map(lambda mib: mib * MIB), fixed=sizes, group=sizes, token=st.integers(0, MIB))
def test_a_proposal_fits_and_is_the_largest_that_does(
    run: ResolvedRun, free: int, fixed: int, group: int, token: int
) -> None:
    """One is made exactly where the recipe does not fit and the least training does; batches go before groups."""
    machine = Machine(run, free, fixed, group, token)
    estimate = estimate_run(run, machine)
    tried = list(machine.tried)
    least = machine(Trial(run.plan.max_tokens, 1))
    assert estimate.fits == tried[0][1].fits
    assert (estimate.proposal is None) == (estimate.fits or not least.fits)
    if estimate.proposal is None:
        return
    (before, broke), (trial, probe) = tried[-2:]
    assert probe.fits and estimate.proposal.overrides == trial.overrides(run.plan, machine.stages)
    if broke.is_whole and trial.groups == before.groups:
        larger = machine(replace(trial, batch_tokens=trial.batch_tokens + ROUND_TOKENS))
        assert any(stage.needed_bytes > SPARE * free for stage in larger.stages)
    if trial.groups < before.groups:
        assert before.batch_tokens == run.plan.max_tokens or broke.is_whole


def test_what_is_proposed_is_said_as_the_recipe_says_it(run: ResolvedRun, resolve: Callable[..., ResolvedRun]) -> None:
    """Given after --set, it is the plan that was tried."""
    trial = Trial(160, 2)
    last = run.plan.stages[1].key
    overrides = trial.overrides(run.plan, [stage.key for stage in run.plan.stages])
    assert trial.overrides(run.plan, [last]) == overrides[::2]
    assert overrides == ("train.batch_tokens=160", "stages.0.train=[block.2, head]", "stages.1.train=[block.2, head]")
    stages = "stages=[{name: a, train: [head, 'top:2'], epochs: 1, learning_rate: 1e-3}, "
    stages += "{name: b, train: all, epochs: 1, learning_rate: 1e-3}]"
    changed, tried = resolve(stages, *overrides).plan, trial.apply(run.plan)
    assert changed.batch_tokens == tried.batch_tokens
    assert [stage.rates for stage in changed.stages] == [stage.rates for stage in tried.stages]
