"""Claims: one winner, one outcome, and no claim lost with its owner."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from sqlalchemy import insert, update

from graftwork.claims import claim, open_claims, settle
from graftwork.database import Database, claims, now
from graftwork.owners import is_alive, this_owner

CLAIM_ON_CALL = """
import sys
from graftwork.claims import claim
from graftwork.database import Database
database = Database.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(claim(database, "register", "bundle").won, flush=True)
sys.stdin.readline()
"""


def leave(database: Database, owner: str) -> None:
    """An open claim as `owner` left it."""
    with database.begin() as connection:
        row = {"kind": "register", "key": "bundle", "owner": owner, "created_at": now()}
        connection.execute(insert(claims).values(row))


def test_one_of_several_processes_wins(sqlite_url: str) -> None:
    """Five living processes claim the same key at once: one has won."""
    Database.open(sqlite_url)
    command = [sys.executable, "-c", CLAIM_ON_CALL, sqlite_url]
    claimants = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(5)]
    assert [claimant.stdout.readline() for claimant in claimants] == ["ready\n"] * 5
    for claimant in claimants:
        claimant.stdin.write("go\n")
        claimant.stdin.flush()
    answers = [claimant.stdout.readline() for claimant in claimants]
    for claimant in claimants:
        claimant.communicate()
    assert sorted(answers) == ["False\n"] * 4 + ["True\n"]


def test_a_settled_claim_gives_its_first_outcome_for_ever(database: Database) -> None:
    """The outcome is kept; neither another claim nor another settlement changes it."""
    assert claim(database, "register", "bundle").won
    settle(database, "register", "bundle", "version 3")
    again = settle(database, "register", "bundle", "version 4")
    assert (again.won, again.outcome) == (False, "version 3")
    assert claim(database, "register", "bundle") == again
    assert open_claims(database, "register") == ()


def test_a_retry_in_the_same_process_has_still_won(database: Database) -> None:
    """A process that failed before it settled goes on with its own claim."""
    assert claim(database, "register", "bundle") == claim(database, "register", "bundle")


def test_a_dead_owners_claim_is_taken_over(database: Database, dead_owner: str) -> None:
    """The claim of a process that ended is listed, and won by the next one who asks."""
    leave(database, dead_owner)
    (left,) = open_claims(database, "register")
    assert (left.won, left.owner, is_alive(left.owner)) == (False, dead_owner, False)
    taken = claim(database, "register", "bundle")
    assert (taken.won, taken.owner) == (True, this_owner())


def living_parent() -> str:
    """The process that runs this one, as an owner."""
    parent = psutil.Process(os.getppid())
    return f"{socket.gethostname()}:{parent.pid}:{parent.create_time():.2f}"


@pytest.mark.parametrize("owner", ["elsewhere:1:0.00", living_parent()])
def test_a_living_owners_claim_is_left_alone(database: Database, owner: str) -> None:
    """A process that lives, or of another machine, keeps its claim."""
    leave(database, owner)
    assert not claim(database, "register", "bundle").won


def test_a_reused_process_number_is_not_the_owner() -> None:
    """Same machine and number, but begun at another time: not the same process."""
    host, pid, start = this_owner().rsplit(":", 2)
    assert is_alive(this_owner())
    assert not is_alive(f"{host}:{pid}:{float(start) - 60:.2f}")


def test_only_the_owner_settles(database: Database) -> None:
    """What another process holds stays open when this one tries to settle it."""
    leave(database, "elsewhere:1:0.00")
    assert settle(database, "register", "bundle", "mine").outcome is None


def test_two_takers_of_a_dead_claim_are_one_winner(database: Database, dead_owner: str) -> None:
    """Asked from several threads at once, the row names one owner and stays one row."""
    leave(database, dead_owner)
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda _: claim(database, "register", "bundle"), range(4)))
    assert {found.owner for found in taken} == {this_owner()}
    with database.begin() as connection:
        assert connection.execute(update(claims).values(outcome="done")).rowcount == 1
