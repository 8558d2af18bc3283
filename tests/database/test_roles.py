"""What a GPU worker's user of the database may do, by the statements of docs/server.md: save its training, no more."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError

from graftwork.claims import claim, settle
from graftwork.database import Database
from graftwork.promotion.ledger import Ledger, Nomination
from graftwork.promotion.witness import Witness
from graftwork.training.lease import hold

PAGE = Path(__file__).parents[2] / "docs/server.md"


@pytest.fixture
def trainer(postgres_url: str) -> Iterator[Database]:
    """The team's database, as a GPU worker opens it."""
    Database.open(postgres_url).engine.dispose()
    administrator = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    (script,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    with administrator.connect() as connection:
        connection.execute(text(script))
        yield (opened := Database.open(make_url(postgres_url).set(username="trainer").render_as_string(False)))
        opened.engine.dispose()
        connection.execute(text("DROP OWNED BY trainer"))
        connection.execute(text("DROP ROLE trainer"))
    administrator.dispose()


def test_it_may_say_how_far_a_run_is(trainer: Database) -> None:
    """Leases, heads and claims are what training and its flow run write."""
    with hold(trainer, "run1", 60, on_wait=lambda owner: None) as lease:
        lease.advance("d" * 64)
    claim(trainer, "attempt", "flow/1")
    settle(trainer, "attempt", "flow/1", "ended")


def test_it_may_not_promote(trainer: Database, tmp_path: Path) -> None:
    """Nor look at who did."""
    ledger = Ledger(trainer, Witness(tmp_path))
    nomination = Nomination(1, "b", "r", "m", "by hand", "because")
    with pytest.raises(ProgrammingError, match="permission denied for table ledger"):
        ledger.append("m", nomination, actor="mallory", expected=None)
    with pytest.raises(ProgrammingError, match="permission denied for table ledger"):
        ledger.all_entries()
    assert list(tmp_path.iterdir()) == []
