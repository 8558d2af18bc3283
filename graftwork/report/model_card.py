"""The model card: Markdown with YAML front matter, from the same facts as the page."""

import re

from graftwork.errors import shorten
from graftwork.report.facts import ReportFacts
from graftwork.report.page import commands, contenders, environment, headline, lineage

CELL_CHARACTERS = 400
# What Markdown or the HTML that it lets through would take for more than text.
MARKUP = re.compile(r"([\\`*_{}\[\]<>#|!~&])")


def render(facts: ReportFacts) -> str:
    """The card as Markdown; names and reasons from outside are escaped."""
    templates = environment()
    templates.filters["cell"] = cell
    return templates.get_template("model_card.md.j2").render(
        facts=facts,
        headline=headline(facts),
        contenders=contenders(facts),
        commands=commands(facts),
        lineage=lineage(facts),
    )


def cell(value: object) -> str:
    """Text that is only text, on one line, also in a table."""
    return MARKUP.sub(r"\\\1", shorten(value, CELL_CHARACTERS))
