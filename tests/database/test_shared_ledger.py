"""Writers who meet at the ledger and at a holdout, in each database that Graftwork supports."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from graftwork.database import Database
from graftwork.errors import PromotionRefused
from graftwork.promotion.ledger import Ledger, Nomination, promote
from graftwork.promotion.looks import take_look
from graftwork.promotion.witness import Witness

WRITERS = 8


def test_one_of_several_promotions_at_once_is_made(database: Database, tmp_path: Path) -> None:
    """Eight versions judged against the same champion: one follows on it, seven are refused, the chain is whole."""
    ledger, moved = Ledger(database, Witness(tmp_path)), []

    def try_to_promote(version: int) -> bool:
        nomination = Nomination(version, f"b{version}", "r", "m", "baselines", "better")
        try:
            promote(ledger, lambda *move: moved.append(move), "reviews", nomination, actor="ann", expected=None)
        except PromotionRefused:
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as pool:
        made = list(pool.map(try_to_promote, range(1, WRITERS + 1)))
    (entry,) = ledger.entries("reviews")
    assert made == [version == entry.to_version for version in range(1, WRITERS + 1)]
    assert moved == [("reviews", "champion", entry.to_version)]
    assert ledger.verify() == ()


def test_looks_taken_at_once_are_all_counted(database: Database) -> None:
    """Eight bundles look at a holdout at the same moment: the looks are numbered 1 to 8."""
    with ThreadPoolExecutor(WRITERS) as pool:
        looks = pool.map(lambda bundle: take_look(database, "reviews", "h", f"b{bundle}", "e"), range(WRITERS))
    assert sorted(looks) == list(range(1, WRITERS + 1))
