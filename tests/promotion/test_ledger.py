"""The ledger: compare-and-set, rollbacks, crashes between it and the alias, and whoever meddles with it."""

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import insert, text

from graftwork.database import ledger as table
from graftwork.errors import AuditError, PromotionRefused
from graftwork.promotion.history import LedgerEntry, follow, replay
from graftwork.promotion.ledger import Ledger, Nomination, promote, reconcile, rollback

MODEL = "reviews"
Promote = Callable[..., LedgerEntry]

PROMOTE_TWO = """
import sys
from pathlib import Path
from graftwork.database import Database
from graftwork.promotion.ledger import Ledger, Nomination, promote
from graftwork.promotion.witness import Witness
ledger = Ledger(Database.open(sys.argv[1]), Witness(Path(sys.argv[3])))
nomination = Nomination(2, "b2", "r", "m", "superiority", "better")
promote(ledger, lambda model, alias, version: Path(sys.argv[2]).write_text(str(version)), "reviews", nomination,
        actor="ann", expected=1)
"""


class Registry:
    """Aliases of one model, as a registry keeps them: the last writer wins."""

    def __init__(self) -> None:
        self.aliases: dict[str, int] = {}

    def move(self, model: str, alias: str, version: int) -> None:
        assert model == MODEL
        self.aliases[alias] = version


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def promoted(ledger: Ledger, registry: Registry) -> Promote:
    """Promotes a version whose bundle is named after it; by default what is there now is expected."""

    def promoted(version: int, rule: str = "superiority", **given: object) -> LedgerEntry:
        champion = ledger.champion(MODEL)
        chosen = {"actor": "ann", "expected": champion and champion.to_version} | given
        nomination = Nomination(version, f"b{version}", "r", "m", rule, f"version {version} is better")
        return promote(ledger, registry.move, MODEL, nomination, **chosen)

    return promoted


def back(ledger: Ledger, registry: Registry, leaving: int, reason: str = "complaints") -> LedgerEntry:
    return rollback(ledger, registry.move, MODEL, leaving=leaving, actor="bob", reason=reason)


def test_a_promotion_is_written_down_and_the_alias_follows(
    ledger: Ledger, registry: Registry, promoted: Promote
) -> None:
    """Who, what, why and from where; the first comes from nowhere, each next one from the one before."""
    first, second = promoted(1, "baselines"), promoted(2)
    assert (first.from_version, first.to_version, first.sequence) == (None, 1, 1)
    assert (second.from_version, second.to_version, second.previous_hash) == (1, 2, first.hash)
    assert ledger.entries(MODEL) == (first, second)
    assert registry.aliases == {"champion": 2}


def test_a_promotion_against_a_champion_that_is_gone_is_refused(
    ledger: Ledger, registry: Registry, promoted: Promote
) -> None:
    """Judged against version 1, but the champion is 2 by now: nothing moves, and both are named."""
    promoted(1, "baselines")
    promoted(2)
    with pytest.raises(PromotionRefused, match=r"version 3.*version 1, the champion is version 2"):
        promoted(3, expected=1)
    assert len(ledger.entries(MODEL)) == 2
    assert registry.aliases == {"champion": 2}


def test_promoting_the_champion_again_adds_nothing(ledger: Ledger, promoted: Promote) -> None:
    """A repeated promotion gives the entry that is there, whatever it expected."""
    first = promoted(1, "baselines")
    assert promoted(1, "baselines", expected=None) == first
    assert len(ledger.entries(MODEL)) == 1


def test_the_anchor_is_the_last_that_earned_it(ledger: Ledger, registry: Registry, promoted: Promote) -> None:
    """Retrainings that are only 'not worse' leave the anchor where it was; a rollback takes it back too."""
    anchors = []
    for version, rule in enumerate(["baselines", "non-inferiority", "superiority", "non-inferiority", "by hand"], 1):
        promoted(version, rule)
        anchors.append(ledger.anchor(MODEL).to_version)
    assert anchors == [1, 1, 3, 3, 5]
    back(ledger, registry, leaving=5)
    assert (ledger.champion(MODEL).to_version, ledger.anchor(MODEL).to_version) == (4, 3)


def test_a_rollback_revokes_what_it_leaves(ledger: Ledger, registry: Registry, promoted: Promote) -> None:
    """The left bundle is promoted again by a person only; after that it is in good standing."""
    promoted(1, "baselines")
    promoted(2)
    entry = back(ledger, registry, leaving=2)
    assert (entry.rule, entry.from_version, entry.to_version, entry.bundle_digest) == ("rollback", 2, 1, "b1")
    assert registry.aliases == {"champion": 1}
    assert (ledger.is_revoked(MODEL, "b2"), ledger.is_revoked(MODEL, "b1")) == (True, False)
    with pytest.raises(PromotionRefused, match="only a person"):
        promoted(2)
    promoted(2, "by hand")
    assert not ledger.is_revoked(MODEL, "b2")


def test_a_second_rollback_goes_further_back(ledger: Ledger, registry: Registry, promoted: Promote) -> None:
    """From 3 to 2 to 1, never to one that was left, and not beyond the first."""
    for version in (1, 2, 3):
        promoted(version, "by hand")
    assert [back(ledger, registry, leaving=version).to_version for version in (3, 2)] == [2, 1]
    with pytest.raises(PromotionRefused, match="no champion before version 1"):
        back(ledger, registry, leaving=1)
    promoted(4)
    assert back(ledger, registry, leaving=4).to_version == 1


def test_a_champion_that_came_twice_is_left_once(ledger: Ledger, registry: Registry, promoted: Promote) -> None:
    """1, 2, 1, 2 by hand: leaving 2 gives 1, and leaving that finds only bundles that were left."""
    for version in (1, 2, 1, 2):
        promoted(version, "by hand")
    assert back(ledger, registry, leaving=2).to_version == 1
    with pytest.raises(PromotionRefused, match="no champion before version 1"):
        back(ledger, registry, leaving=1)


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_nothing_moves_without_a_reason(ledger: Ledger, registry: Registry, promoted: Promote, reason: str) -> None:
    """Neither a promotion nor a rollback."""
    promoted(1, "baselines")
    promoted(2)
    with pytest.raises(PromotionRefused, match="needs a reason"):
        back(ledger, registry, leaving=2, reason=reason)
    unreasoned = Nomination(3, "b3", "r", "m", "by hand", reason)
    with pytest.raises(PromotionRefused, match="needs a reason"):
        promote(ledger, registry.move, MODEL, unreasoned, actor="ann", expected=2)
    assert registry.aliases == {"champion": 2}


@pytest.mark.parametrize("leaving", [1, 7])
def test_only_the_champion_is_left(ledger: Ledger, registry: Registry, promoted: Promote, leaving: int) -> None:
    """A rollback from a version that no longer serves was meant for another state of things."""
    promoted(1, "baselines")
    promoted(2)
    with pytest.raises(PromotionRefused, match=f"the champion is version 2, not version {leaving}"):
        back(ledger, registry, leaving=leaving)


def test_a_rollback_without_history_is_refused(ledger: Ledger, registry: Registry) -> None:
    """There is no champion to leave."""
    with pytest.raises(PromotionRefused, match="the champion is none"):
        back(ledger, registry, leaving=1)


@pytest.mark.parametrize("point", ["promotion.after_ledger", "promotion.after_alias"])
def test_a_killed_promotion_is_mended_by_the_next_call(
    ledger: Ledger,
    registry: Registry,
    promoted: Promote,
    point: str,
    tmp_path: Path,
) -> None:
    """Killed between entry and alias, or after both: the entry is there once, and the alias ends where it says."""
    promoted(1, "baselines")
    url, alias = str(ledger.database.engine.url), tmp_path / "alias"
    command = [sys.executable, "-c", PROMOTE_TWO, url, str(alias), str(ledger.witness.folder)]
    killed = subprocess.run(command, env=os.environ | {"GRAFTWORK_FAULT": point}, check=False)
    assert killed.returncode == -signal.SIGKILL
    registry.aliases["champion"] = int(alias.read_text()) if alias.exists() else 1
    assert registry.aliases["champion"] == (1 if point.endswith("ledger") else 2)
    assert reconcile(ledger, registry.move, MODEL, registry.aliases) == ()
    assert registry.aliases == {"champion": 2}
    assert [entry.to_version for entry in ledger.entries(MODEL)] == [1, 2]


def test_a_cut_off_rollback_is_not_done_twice(ledger: Ledger, registry: Registry, promoted: Promote) -> None:
    """The alias move failed after the entry; the same command again finishes it and goes no further back."""
    for version in (1, 2, 3):
        promoted(version, "by hand")

    def fail(model: str, alias: str, version: int) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        rollback(ledger, fail, MODEL, leaving=3, actor="bob", reason="complaints")
    assert registry.aliases == {"champion": 3}
    assert back(ledger, registry, leaving=registry.aliases["champion"]).to_version == 2
    assert registry.aliases == {"champion": 2}
    assert len(ledger.entries(MODEL)) == 4


def test_an_alias_moved_by_hand_is_reported_and_left(ledger: Ledger, registry: Registry, promoted: Promote) -> None:
    """Moved where the ledger never had it, removed, or set without any entry: each is told, none is touched."""
    promoted(1, "baselines")
    promoted(2)
    for aliases in ({"champion": 7}, {}, {"champion": 2, "challenger": 5}):
        (problem,) = reconcile(ledger, registry.move, MODEL, aliases)
        assert "by hand" in problem.hint
    assert registry.aliases == {"champion": 2}


def test_aliases_have_histories_of_their_own(ledger: Ledger, registry: Registry, promoted: Promote) -> None:
    """A challenger is entered beside the champion and changes nothing there."""
    promoted(1, "baselines")
    promoted(2, "registered", alias="challenger", expected=None)
    assert registry.aliases == {"champion": 1, "challenger": 2}
    assert ledger.champion(MODEL).to_version == 1
    assert ledger.entries(MODEL, "challenger")[0].rule == "registered"
    assert reconcile(ledger, registry.move, MODEL, registry.aliases) == ()


MEDDLING = {
    "UPDATE ledger SET reason = 'none' WHERE sequence = 2": ["entry 2: it was altered"],
    "UPDATE ledger SET created_at = '2020' WHERE sequence = 3": ["entry 3: it was altered"],
    "DELETE FROM ledger WHERE sequence = 2": ["entry 3: entries 2 to 2 are missing", "entry 2: it was taken out"],
    "DELETE FROM ledger WHERE sequence = 1": ["entry 2: entries 1 to 1 are missing", "entry 1: it was taken out"],
    "DELETE FROM ledger WHERE sequence = 3": ["entry 3: it was taken out"],
    "DELETE FROM ledger": [f"entry {number}: it was taken out" for number in (1, 2, 3)],
    "UPDATE ledger SET previous_hash = hash WHERE sequence = 2": ["entry 2: it was altered", "entry 2: it does not"],
}


@pytest.mark.parametrize("statement", MEDDLING)
def test_what_was_meddled_with_is_found(ledger: Ledger, promoted: Promote, statement: str) -> None:
    """Past the triggers, by whoever owns the file: an edited or removed row breaks the chain at a named place."""
    for version in (1, 2, 3):
        promoted(version, "by hand")
    assert ledger.verify() == ()
    with ledger.database.begin() as connection:
        for verb in ("update", "delete"):
            connection.execute(text(f"DROP TRIGGER ledger_no_{verb}"))
        connection.execute(text(statement))
    found = [str(problem) for problem in ledger.verify()]
    assert [any(part in line for line in found) for part in MEDDLING[statement]] == [True] * len(MEDDLING[statement])
    assert len(found) == len(MEDDLING[statement])


def test_a_row_written_anew_with_a_fitting_hash_is_found(ledger: Ledger, promoted: Promote) -> None:
    """Whoever edits a row and recomputes its hash breaks the link of the next one."""
    from graftwork.fingerprint import digest

    entries = [promoted(version, "by hand") for version in (1, 2, 3)]
    fields = dataclasses.asdict(entries[1]) | {"actor": "mallory"}
    del fields["hash"]
    with ledger.database.begin() as connection:
        connection.execute(text("DROP TRIGGER ledger_no_update"))
        change = text("UPDATE ledger SET actor = 'mallory', hash = :hash WHERE sequence = 2")
        connection.execute(change, {"hash": digest(fields)})
    assert [problem.where for problem in ledger.verify()] == [f"{MODEL}@champion, entry {number}" for number in (3, 2)]


def test_a_ledger_that_was_written_anew_is_found(ledger: Ledger, promoted: Promote) -> None:
    """A whole chain with another actor and fitting hashes: only who saw the first one knows."""
    for version in (1, 2, 3):
        promoted(version, "by hand")
    forged: list[LedgerEntry] = []
    for entry in ledger.entries(MODEL):
        grounds = {field.name: getattr(entry, field.name) for field in dataclasses.fields(Nomination)[1:]}
        forged.append(follow(forged, MODEL, "champion", Nomination(entry.to_version, **grounds), "mallory"))
    with ledger.database.begin() as connection:
        connection.execute(text("DROP TRIGGER ledger_no_delete"))
        connection.execute(text("DELETE FROM ledger"))
        connection.execute(insert(table), [dataclasses.asdict(entry) for entry in forged])
    found = [str(problem) for problem in ledger.verify()]
    assert [problem.split(" (")[0] for problem in found] == [
        f"{MODEL}@champion, entry {number}: another entry was put in its place" for number in (1, 2, 3)
    ]
    assert str(ledger.witness.folder) in found[0]


def test_what_a_crash_kept_from_the_witness_is_shown_to_it(
    ledger: Ledger, registry: Registry, promoted: Promote, tmp_path: Path
) -> None:
    """Killed between the entry and its witness: the same promotion again brings the file, and the alias."""
    promoted(1, "baselines")
    alias = tmp_path / "alias"
    command = [sys.executable, "-c", PROMOTE_TWO, str(ledger.database.engine.url), str(alias)]
    command.append(str(ledger.witness.folder))
    killed = subprocess.run(command, env=os.environ | {"GRAFTWORK_FAULT": "promotion.before_witness"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    first, second = ledger.entries(MODEL)
    assert (ledger.witness.place(first).exists(), ledger.witness.place(second).exists()) == (True, False)
    subprocess.run(command, check=True)
    assert (alias.read_text(), ledger.entries(MODEL)) == ("2", (first, second))
    assert ledger.witness.place(second).exists()


def test_a_witness_is_heard_once(ledger: Ledger, promoted: Promote) -> None:
    """What it saw stays, whatever it is shown later; a file that was altered is told."""
    entry = promoted(1, "baselines")
    ledger.witness.see([dataclasses.replace(entry, actor="mallory")])
    assert ledger.verify() == ()
    ledger.witness.place(entry).write_text("{}")
    (problem,) = ledger.verify()
    assert problem.where == str(ledger.witness.place(entry))


@pytest.mark.parametrize("model", ["a/b", "..", "../..", "a b@c", "ü"])
def test_no_name_leads_out_of_the_folder(ledger: Ledger, promoted: Promote, model: str) -> None:
    """Names that others gave: each has a folder of its own in the witness's."""
    place = ledger.witness.place(dataclasses.replace(promoted(1, "baselines"), model=model))
    assert place.resolve().parent.parent == ledger.witness.folder.resolve()


def test_a_history_that_can_not_be_is_refused(ledger: Ledger, promoted: Promote) -> None:
    """A rollback to a version that was never champion is for an audit, not for a guess."""
    entry = promoted(1, "baselines")
    impossible = dataclasses.replace(entry, rule="rollback", to_version=9, sequence=2)
    with pytest.raises(AuditError, match="entry 2 goes back to version 9"):
        replay([entry, impossible])
