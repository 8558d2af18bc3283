"""What the README and docs/ say is what happens: their commands are run, their keys and links exist."""

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
from projects import ROOT, Project

from graftwork.recipe import recipe_schema

ROWS = 700
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(page: Path) -> list[str]:
    """The lines of the page's sh blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


@pytest.mark.e2e
def test_the_commands_for_your_own_data_run_in_order(tmp_path: Path) -> None:
    """Every graftwork command of the README, on a CSV of another shape than the demo's."""
    with (tmp_path / "reviews.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["review_id", "text", "label"])
        lines = (ROOT / "examples/reviews/movies.tsv").read_bytes().decode("utf-8").split("\r\n")
        for row, rating, text in (line.split("\t") for line in lines[:ROWS]):
            writer.writerow([row, text, "good" if float(rating) > 0 else "bad"])
    project = Project(tmp_path)
    ours = [shlex.split(line)[1:] for line in commands(ROOT / "README.md") if line.startswith("graftwork ")]
    assert len(ours) >= 8
    for arguments in ours:
        project.call(*arguments)
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == ROWS
    assert list(rows[0]) == ["review_id", "text", "label", "predicted_label", "predicted_p_bad", "predicted_p_good"]


def test_every_make_target_that_is_named_exists() -> None:
    """`make X` in a page is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name for page in PAGES for name in re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)$", page.read_text(), re.M)
    }
    assert {one or other for one, other in named} <= targets


def test_every_link_to_a_file_leads_somewhere() -> None:
    """Relative links of all pages."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_key_of_a_recipe_is_explained() -> None:
    """docs/recipe.md names each key of the schema."""
    text = (ROOT / "docs/recipe.md").read_text(encoding="utf-8")
    schema = recipe_schema()
    sections = [schema, *(s for s in schema["$defs"].values() if "properties" in s)]
    keys = {key for section in sections for key in section["properties"]}
    missing = {key for key in keys if not re.search(rf"[`{{ ]{re.escape(key)}[`:}}]", text)}
    assert not missing, json.dumps(sorted(missing))
