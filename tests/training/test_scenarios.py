"""The stages that docs/scenarios.md shows are stages that can be trained."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import REVIEWS, write_family_project, write_image_project, write_pair, write_stripes

from graftwork.training.plan import ResolvedRun

PAGE = (Path(__file__).parents[2] / "docs/scenarios.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^## (.+?)\n.*?```yaml\n(.+?)\n```", PAGE, re.MULTILINE | re.DOTALL)
OTHER = {"Sounds without labels": "wavenet"}  # scenarios that are not of texts, and of which family
CAPTIONED = "Pictures and their captions"  # of which the recipe has a head of prompts
TOLD = "auxiliary=[{name: told, sources: [{name: captions, path: told}], caption: caption}]"
# The auxiliary rows that the page speaks of.
UNLABELLED = "{name: unlabelled, sources: [{name: more, path: more.csv}]}"
STARS = "{name: stars, sources: [{name: rated, path: more.csv}], label: {from: stars}, learns: regression}"


def test_every_scenario_shows_its_stages() -> None:
    """Headings and blocks come in pairs."""
    assert [heading for heading, _ in SHOWN] == re.findall(r"^## (.+)$", PAGE, re.MULTILINE)


def write_captioned(folder: Path) -> None:
    """Pictures to judge by, others with captions, and two towers."""
    write_pair(folder / "checkpoint", "clip")
    write_image_project(folder, folder / "checkpoint")
    write_stripes(folder / "told", 5, first=500)
    lines = [f"{path.parent.name}/{path.name},the film" for path in (folder / "told").rglob("*.png")]
    (folder / "told/captions.csv").write_text("\n".join(["file,caption", *lines]) + "\n")


@pytest.mark.parametrize(("heading", "block"), SHOWN, ids=[heading for heading, _ in SHOWN])
def test_the_stages_of_a_scenario_are_planned(
    heading: str, block: str, resolve: Callable[..., ResolvedRun], tmp_path: Path
) -> None:
    """As they are written."""
    if heading in OTHER:
        write_family_project(tmp_path, OTHER[heading])
    (tmp_path / "more.csv").write_text("\n".join(["text,stars", *(f"{text},{len(text)}" for text in REVIEWS)]))
    beside: tuple[str, ...] = () if heading in OTHER else (f"auxiliary=[{UNLABELLED}, {STARS}]",)
    if heading == CAPTIONED:
        write_captioned(tmp_path)
        beside = (TOLD, "head.prompts=the {}")
    lines = [line.removeprefix("- ") for line in block.splitlines()]
    run = resolve("start.from=champion", *beside, f"stages=[{', '.join(lines)}]")
    assert [stage.name for stage in run.plan.stages] == re.findall(r"{name: (\w+)", block)
