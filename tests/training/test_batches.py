"""Batches of an epoch: a pure function that loses no row."""

from hypothesis import given
from hypothesis import strategies as st

from graftwork.data.batches import deal, epoch_batches

LENGTHS = st.lists(st.integers(1, 60), min_size=0, max_size=300)


@given(lengths=LENGTHS, budget=st.integers(20, 500), seed=st.integers(0, 99))
def test_every_row_once_and_within_the_budget(lengths: list[int], budget: int, seed: int) -> None:
    """Each row is in exactly one batch; a padded batch holds at most the budget, but for a single longer row."""
    batches = epoch_batches(lengths, budget, (seed, 0, 1))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= budget


@given(lengths=LENGTHS, budget=st.integers(1, 500), seed=st.integers(0, 99), least=st.integers(1, 6))
def test_no_batch_has_fewer_rows_than_it_needs(lengths: list[int], budget: int, seed: int, least: int) -> None:
    """As far as there are so many; each row once, and over the budget only by what joined a batch."""
    batches = epoch_batches(lengths, budget, (seed, 0, 1), least)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(len(batch) >= min(least, len(lengths)) for batch in batches)
    if least == 1:
        assert batches == epoch_batches(lengths, budget, (seed, 0, 1))


@given(rows=st.integers(2, 300), budget=st.integers(8, 200), seed=st.integers(0, 99))
def test_pictures_are_over_the_budget_by_one(rows: int, budget: int, seed: int) -> None:
    """All of one length: where two must be together, a single one that is left joins a whole batch."""
    for batch in epoch_batches([4] * rows, budget, (seed, 0, 1), 2):
        assert 2 <= len(batch) <= max(2, budget // 4) + 1


@given(lengths=LENGTHS, seed=st.integers(0, 99))
def test_the_same_seed_gives_the_same_batches(lengths: list[int], seed: int) -> None:
    """Nothing but the arguments decides."""
    assert epoch_batches(lengths, 100, (seed, 1, 2)) == epoch_batches(lengths, 100, (seed, 1, 2))


def test_epochs_differ() -> None:
    """Another epoch has other batches, not only another order of the same."""
    lengths = [1 + index % 40 for index in range(500)]
    first, second = (epoch_batches(lengths, 200, (7, 0, epoch)) for epoch in (1, 2))
    assert {frozenset(batch) for batch in first}.isdisjoint({frozenset(batch) for batch in second})


def test_batches_hold_rows_of_like_length() -> None:
    """Little is padded: under a tenth of all tokens, against a third in batches made at random."""
    lengths = [1 + (index * 37) % 60 for index in range(5000)]
    batches = epoch_batches(lengths, 400, (7, 0, 1))
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)


@given(lengths=LENGTHS, processes=st.integers(1, 9))
def test_rows_are_dealt_out_once_and_evenly(lengths: list[int], processes: int) -> None:
    """Each row is in one share, in its order; no two shares differ by more than the longest row."""
    rows = [1000 + place for place in range(len(lengths))]
    shares = deal(rows, lengths, processes)
    assert sorted(row for share in shares for row in share) == rows
    assert all(share == sorted(share) for share in shares)
    tokens = [sum(lengths[row - 1000] for row in share) for share in shares]
    assert len(shares) == processes
    assert max(tokens) - min(tokens) <= max(lengths, default=0)
