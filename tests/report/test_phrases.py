"""Phrases, against examples written by hand."""

import pytest

from graftwork.phrases import duration, peak_rates, trained_groups


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (["head"], "head"),
        (["block.6", "head"], "block.6, head"),
        (["block.3", "block.4", "head"], "blocks 3 to 4, head"),
        (["embeddings", "block.1", "block.2", "block.3", "head"], "embeddings, blocks 1 to 3, head"),
        (["block.1", "block.3", "head"], "block.1, block.3, head"),
    ],
)
def test_neighbouring_blocks_are_named_together(groups: list[str], expected: str) -> None:
    """Blocks in a row are one item; blocks with a gap are not drawn together."""
    assert trained_groups(groups) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (3_900, "1 h 5 min")]
)
def test_durations_read_as_people_say_them(seconds: float, expected: str) -> None:
    """Seconds, minutes and hours, rounded once."""
    assert duration(seconds) == expected


def test_equal_rates_are_said_once() -> None:
    """One rate, or the lowest and the highest; a stage that is solved has none."""
    assert peak_rates({"head": 2e-4, "block.5": 2e-4}) == "2.0e-04"
    assert peak_rates({"head": 2e-3, "block.5": 2e-4}) == "2.0e-04 to 2.0e-03"
    assert peak_rates({"head": 0.0}) == "solved"
