"""The model card and the report's folder."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from ruamel.yaml import YAML

from graftwork.fingerprint import from_json
from graftwork.promotion.gate import Verdict
from graftwork.report import model_card
from graftwork.report.facts import ReportFacts
from graftwork.report.files import store_report
from graftwork.storage import Store


def front_matter(card: str) -> dict:
    """The YAML between the first two rules."""
    return YAML(typ="safe").load(card.split("---\n")[1])


def test_front_matter_names_licence_base_and_metrics(facts: ReportFacts) -> None:
    """What a hub reads from a card is the records' own."""
    facts_read = front_matter(model_card.render(facts))
    assert facts_read["license"] == "apache-2.0"
    assert facts_read["base_model"] == facts.run.lock.source
    (result,) = facts_read["model-index"][0]["results"]
    figures = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert figures == {name: round(each.value, 4) for name, each in facts.evaluation.metrics.items()}


def test_hostile_names_break_neither_yaml_nor_table(facts: ReportFacts) -> None:
    """A licence with YAML in it stays one string; a reason with pipes, tags and line breaks stays one cell of text."""
    hostile = replace(
        facts,
        run=replace(facts.run, lock=replace(facts.run.lock, licence='x"\n---\n# evil: [', source="a | b\n<script>")),
        verdict=replace(facts.verdict, reason="line\n| cell | <b>bold</b> [link](https://evil.example)"),
    )
    card = model_card.render(hostile)
    assert front_matter(card)["license"] == 'x"\n---\n# evil: ['
    assert "<script>" not in card.partition("# review")[2]
    assert r"\[link\](https://evil.example)" in card
    for line in card.splitlines():
        if line.startswith("| checkpoint |"):
            assert line == r"| checkpoint | a \| b\\n\<script\> |"


def test_tables_are_regular(facts: ReportFacts) -> None:
    """Every row of a table has as many cells as the row above it."""
    lines = model_card.render(facts).splitlines()
    pairs = [(a, b) for a, b in pairwise(lines) if a.startswith("|") and b.startswith("|")]
    assert len(pairs) > 20
    assert all(a.count("|") == b.count("|") for a, b in pairs)


def test_report_is_made_once_for_a_verdict(facts: ReportFacts, tmp_path: Path) -> None:
    """The same run made again on another day is the stored report; another verdict is another report."""
    store = Store(tmp_path)
    first = store_report(store, facts)
    assert {path.name for path in first.iterdir()} == {
        "MANIFEST.json",
        "data.json",
        "evaluation.json",
        "learning_curves.png",
        "model_card.md",
        "report.html",
        "verdict.json",
    }
    assert store_report(store, replace(facts, created_at="2027-01-01T00:00:00.000+00:00", machine="other")) == first
    assert from_json(Verdict, (first / "verdict.json").read_text()) == facts.verdict
    assert store_report(store, replace(facts, verdict=replace(facts.verdict, look=3))) != first
