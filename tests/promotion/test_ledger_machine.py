"""Any sequence of promotions, rollbacks, crashes and stale writers, against a list kept by hand."""

import os
from collections.abc import Iterator
from itertools import count

import pytest
from _pytest.outcomes import Failed
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from graftwork.database import Database
from graftwork.errors import GraftworkError, PromotionRefused
from graftwork.promotion.history import CHAMPION, LedgerEntry, Standing, replay
from graftwork.promotion.ledger import Ledger, Nomination, find_misplaced, promote, reconcile, rollback
from graftwork.promotion.witness import Witness

# `make simulate` runs 2,000 histories of 50 steps.
HISTORIES, STEPS = (int(number) for number in os.environ.get("LEDGER_HISTORIES", "40x20").split("x"))
RULES = st.sampled_from(["superiority", "non-inferiority", "by hand"])
NAMES = count()


class CutOffError(Exception):
    """The process ended between the ledger and the alias."""


class Promotions(RuleBasedStateMachine):
    """Versions are numbered from 1 and stand for their bundles; `reigns` and `revoked` are what ought to be."""

    ledger: Ledger

    def __init__(self) -> None:
        super().__init__()
        self.model = f"model-{next(NAMES)}"
        self.aliases: dict[str, int] = {}
        self.reigns: list[tuple[int, str]] = []
        self.revoked: set[int] = set()
        self.seen: tuple[object, ...] = ()
        self.versions = 0

    @property
    def champion(self) -> int | None:
        return self.reigns[-1][0] if self.reigns else None

    def move(self, model: str, alias: str, version: int) -> None:
        self.aliases[alias] = version

    def cut_off(self, model: str, alias: str, version: int) -> None:
        raise CutOffError

    def promote(self, version: int, grounds: str, expected: int | None, is_cut_off: bool = False) -> None:
        nomination = Nomination(version, f"b{version}", "r", "m", grounds, "because")
        move = self.cut_off if is_cut_off else self.move
        try:
            promote(self.ledger, move, self.model, nomination, actor="ann", expected=expected)
        except CutOffError:
            self.recover()

    def recover(self) -> None:
        assert reconcile(self.ledger, self.move, self.model, self.aliases) == ()

    @rule(grounds=RULES, is_cut_off=st.booleans())
    def promote_a_new_version(self, grounds: str, is_cut_off: bool) -> None:
        self.versions += 1
        self.promote(self.versions, grounds, self.champion, is_cut_off)
        self.reigns.append((self.versions, grounds))

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), is_cut_off=st.booleans())
    def promote_an_old_version_by_hand(self, data: st.DataObject, is_cut_off: bool) -> None:
        version = data.draw(st.integers(1, self.versions))
        self.promote(version, "by hand", self.champion, is_cut_off)
        if version != self.champion:
            self.reigns.append((version, "by hand"))
            self.revoked.discard(version)

    @precondition(lambda self: self.revoked)
    @rule(data=st.data())
    def promote_a_revoked_version_automatically(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(sorted(self.revoked)))
        with pytest.raises(PromotionRefused):
            self.promote(version, "superiority", self.champion)

    @precondition(lambda self: self.champion)
    @rule(data=st.data())
    def promote_against_a_stale_champion(self, data: st.DataObject) -> None:
        stale = data.draw(st.none() | st.integers(1, self.versions + 1))
        if stale != self.champion:
            with pytest.raises(PromotionRefused):
                self.promote(self.versions + 1, "by hand", stale)

    @precondition(lambda self: self.champion)
    @rule(is_cut_off=st.booleans())
    def roll_back(self, is_cut_off: bool) -> None:
        leaving = self.champion
        assert leaving is not None
        left = self.revoked | {leaving}
        targets = [place for place, (version, _) in enumerate(self.reigns) if version not in left]
        move = self.cut_off if is_cut_off else self.move
        arguments = {"leaving": leaving, "actor": "bob", "reason": "because"}
        if not targets:
            with pytest.raises(PromotionRefused):
                rollback(self.ledger, move, self.model, **arguments)
            return
        try:
            rollback(self.ledger, move, self.model, **arguments)
        except CutOffError:
            rollback(self.ledger, self.move, self.model, **arguments)
        self.revoked.add(leaving)
        self.reigns = self.reigns[: targets[-1] + 1]

    @precondition(lambda self: self.champion)
    @rule(data=st.data())
    def move_the_alias_by_hand(self, data: st.DataObject) -> None:
        """It is found, and left where it is; unless it is where a promotion that was cut off would have left it."""
        version = data.draw(st.integers(1, self.versions + 1))
        if version == self.champion:
            return
        self.aliases["champion"] = version
        (found,) = find_misplaced(self.ledger, self.model, self.aliases)
        assert (found.found, found.due) == (version, self.champion)
        is_cut_off = version == self.ledger.entries(self.model)[-1].from_version
        assert len(reconcile(self.ledger, self.move, self.model, self.aliases)) == (0 if is_cut_off else 1)
        assert self.aliases["champion"] == (self.champion if is_cut_off else version)
        self.aliases["champion"] = self.champion

    @invariant()
    def the_alias_is_where_the_ledger_says(self) -> None:
        standing = self.ledger.standing(self.model)
        anchors = [version for version, grounds in self.reigns if grounds != "non-inferiority"]
        assert [entry.to_version for entry in standing.reigns] == [version for version, _ in self.reigns]
        assert self.aliases.get("champion") == self.champion
        assert (standing.anchor.to_version if standing.anchor else None) == (anchors[-1] if anchors else None)
        assert standing.revoked == {f"b{version}" for version in self.revoked}

    @invariant()
    def the_ledger_only_grows(self) -> None:
        entries = self.ledger.entries(self.model)
        assert entries[: len(self.seen)] == self.seen
        self.seen = entries


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """One database for all histories, each under a model name of its own."""
    folder = tmp_path_factory.mktemp("ledger")
    database = Database.open(f"sqlite:///{folder / 'graftwork.db'}")
    yield Ledger(database, Witness(folder / "seen"))
    database.engine.dispose()


class TrustsAnyone(Ledger):
    """Compares with the champion that is there, not with the one that the caller saw."""

    def append(
        self, model: str, nomination: Nomination, *, actor: str, expected: int | None, alias: str = CHAMPION
    ) -> LedgerEntry:
        champion = self.champion(model)
        return super().append(
            model, nomination, actor=actor, expected=champion.to_version if champion else None, alias=alias
        )


class ForgetsWhatItLeft(Ledger):
    """Goes back by a promotion, which revokes nothing."""

    def roll_back(self, model: str, *, leaving: int, actor: str, reason: str) -> LedgerEntry:
        target = self.standing(model).predecessor
        if target is None:
            return super().roll_back(model, leaving=leaving, actor=actor, reason=reason)
        grounds = (target.bundle_digest, target.recipe_digest, target.manifest_digest)
        back = Nomination(target.to_version, *grounds, rule="by hand", reason=reason)
        return self.append(model, back, actor=actor, expected=leaving)


class LooksAtTheLastOnly(Ledger):
    """Forgets who was champion before. (To delete what was before, the database itself refuses.)"""

    def standing(self, model: str, alias: str = CHAMPION) -> Standing:
        return replay(self.entries(model, alias)[-1:])


def run_machine(ledger: Ledger, how: settings) -> None:
    """Histories in this ledger."""
    Promotions.ledger = ledger
    run_state_machine_as_test(Promotions, settings=settings(how, stateful_step_count=STEPS, deadline=None))


def test_ledger_and_alias_agree_whatever_happens(ledger: Ledger) -> None:
    """After any history the champion, the anchor, the alias and the revoked bundles are what a list says they are."""
    run_machine(ledger, settings(max_examples=HISTORIES))
    assert ledger.verify() == ()


@pytest.mark.parametrize("faulty", [TrustsAnyone, ForgetsWhatItLeft, LooksAtTheLastOnly])
def test_a_seeded_fault_is_found(ledger: Ledger, faulty: type[Ledger]) -> None:
    """The machine would notice a ledger that does not compare, does not revoke, or does not remember."""
    with pytest.raises((AssertionError, GraftworkError, Failed)):
        run_machine(
            faulty(ledger.database, ledger.witness),
            settings(max_examples=10 * HISTORIES, derandomize=True, phases=[Phase.generate]),
        )
