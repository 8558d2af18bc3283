"""One process holds a run, and one that lost it changes nothing."""

import threading
from pathlib import Path

import pytest
from sqlalchemy import update

from graftwork.database import Database, now, run_heads
from graftwork.errors import Paused
from graftwork.training.lease import Replaced, hold

RUN = "a1"
LEASE_S = 0.4


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database.open(f"sqlite:///{tmp_path / 'graftwork.db'}")


def refuse(owner: str) -> None:
    raise AssertionError(f"nobody is to be waited for, but {owner} was")


def become_the_other(database: Database, owner: str) -> None:
    """The head's holder is another process, which shows life once."""
    with database.begin() as connection:
        connection.execute(update(run_heads).values(owner=owner, fence=run_heads.c.fence + 1, updated_at=now()))


def test_the_next_holder_finds_what_the_last_one_left(database: Database) -> None:
    """At once, and with a greater fencing number."""
    with hold(database, RUN, LEASE_S, refuse) as first:
        first.advance("s1")
    with hold(database, RUN, LEASE_S, refuse) as second:
        assert (second.state, second.fence) == ("s1", first.fence + 1)


def test_a_dead_process_is_not_waited_for(database: Database, dead_owner: str) -> None:
    """Its process has ended on this machine, so nobody beats."""
    with hold(database, RUN, LEASE_S, refuse):
        become_the_other(database, dead_owner)
    with hold(database, RUN, 1000, refuse):
        pass


def test_one_that_shows_no_life_is_replaced_after_the_lease(database: Database) -> None:
    """Of a process on another machine nothing is known but whether its head moves."""
    with hold(database, RUN, LEASE_S, refuse):
        become_the_other(database, "elsewhere:1:1.0")
    waited: list[str] = []
    with hold(database, RUN, LEASE_S, waited.append) as lease:
        assert waited == ["elsewhere:1:1.0"]
        lease.advance("s2")


def test_one_that_shows_life_is_waited_for(database: Database) -> None:
    """As long as it beats; a request to stop is heard meanwhile."""
    with hold(database, RUN, LEASE_S, refuse):
        become_the_other(database, "elsewhere:1:1.0")
    is_over, asked = threading.Event(), threading.Event()

    def beat() -> None:
        while not is_over.wait(LEASE_S / 4):
            with database.begin() as connection:
                connection.execute(update(run_heads).values(updated_at=now()))

    other = threading.Thread(target=beat)
    other.start()
    threading.Timer(4 * LEASE_S, asked.set).start()
    try:
        with pytest.raises(Paused, match="elsewhere"), hold(database, RUN, LEASE_S, str, asked.is_set):
            raise AssertionError("it was not waited for")
    finally:
        is_over.set()
        other.join()


def test_a_replaced_holder_changes_nothing(database: Database) -> None:
    """It wakes up, writes, and is told; the head is the other's. Its end does not free the run either."""
    with hold(database, RUN, 1000, refuse) as lease:
        lease.advance("mine")
        become_the_other(database, "elsewhere:1:1.0")
        with pytest.raises(Replaced, match=r"elsewhere:1:1\.0 has taken this run over"):
            lease.advance("late")
        with pytest.raises(Replaced):
            lease.check()
    with database.begin() as connection:
        head = connection.execute(run_heads.select()).one()
    assert (head.state_digest, head.owner) == ("mine", "elsewhere:1:1.0")


def test_a_beat_finds_out_too(database: Database) -> None:
    """Between two saves, so that no step is computed for nothing for long."""
    with hold(database, RUN, 1000, refuse) as lease:
        become_the_other(database, "elsewhere:1:1.0")
        lease.beat()
        with pytest.raises(Replaced):
            lease.check()
