"""The stages that docs/scenarios.md shows are stages that can be trained."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from graftwork.training.plan import ResolvedRun

PAGE = (Path(__file__).parents[2] / "docs/scenarios.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^## (.+?)\n.*?```yaml\n(.+?)\n```", PAGE, re.MULTILINE | re.DOTALL)


def test_every_scenario_shows_its_stages() -> None:
    """Headings and blocks come in pairs."""
    assert [heading for heading, _ in SHOWN] == re.findall(r"^## (.+)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("block", [block for _, block in SHOWN], ids=[heading for heading, _ in SHOWN])
def test_the_stages_of_a_scenario_are_planned(block: str, resolve: Callable[..., ResolvedRun]) -> None:
    """As they are written."""
    lines = [line.removeprefix("- ") for line in block.splitlines()]
    run = resolve("start.from=champion", f"stages=[{', '.join(lines)}]")
    assert [stage.name for stage in run.plan.stages] == re.findall(r"{name: (\w+)", block)
