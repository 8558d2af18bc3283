"""The page: complete in itself, safe whatever is in it, and true to its records."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from graftwork.data.manifest import SourceFile
from graftwork.evaluation.evaluation import Memory, Part
from graftwork.evaluation.metrics import ClassMetrics, Interval
from graftwork.report import model_card, page
from graftwork.report.facts import ReportFacts
from graftwork.training.reading import Reading, SideReading

EVIL = "<script>alert(1)</script>\"'&<img src=https://evil.example/x>"


class Reader(HTMLParser):
    """Every tag with its attributes, and all text outside of <style>."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.is_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.is_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self.is_style = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self.is_style else data


def read(html: str) -> Reader:
    """The page as a browser would take it."""
    reader = Reader()
    reader.feed(html)
    return reader


def test_page_loads_nothing_and_runs_nothing(html: str) -> None:
    """No script, no link, no address but data: and the policy in the page forbids any other."""
    tags = read(html).tags
    assert not {"script", "link", "iframe", "object", "form", "base"} & {tag for tag, _ in tags}
    addresses = [
        value for _, attributes in tags for name, value in attributes.items() if name in ("src", "srcset", "href")
    ]
    assert addresses
    assert all(value and value.startswith("data:image/png;base64,") for value in addresses)
    assert not re.search(r"url\(|@import|\bon\w+=", html)
    policy = next(a["content"] for tag, a in tags if tag == "meta" and "content-security-policy" in str(a).lower())
    assert policy is not None
    assert "default-src 'none'" in policy


def test_text_from_outside_stays_text(facts: ReportFacts, html: str) -> None:
    """Markup in class names, file names, reasons and commands is shown, not obeyed."""
    manifest = facts.run.manifest
    file = SourceFile(EVIL, EVIL, "c" * 64, 1, manifest.counts, problem=EVIL)
    hostile = replace(
        facts,
        command=EVIL,
        machine=EVIL,
        verdict=replace(facts.verdict, reason=EVIL),
        run=replace(facts.run, manifest=replace(manifest, sources=(file,))),
        evaluation=replace(
            facts.evaluation,
            classes=tuple(ClassMetrics(EVIL, 0.5, 0.5, 0.5, 1) for _ in facts.evaluation.classes),
            baselines={EVIL: facts.evaluation.metrics},
        ),
    )
    reader = read(page.render(hostile))
    assert {tag for tag, _ in reader.tags} == {tag for tag, _ in read(html).tags}
    assert len([tag for tag, _ in reader.tags if tag == "img"]) == 3
    assert reader.text.count(EVIL) >= 7


def test_every_picture_has_words_and_every_table_headers(html: str) -> None:
    """A reader who does not see the page gets each picture's figures and each cell's row and column."""
    pictures = [attributes for tag, attributes in read(html).tags if tag == "img"]
    assert all(picture.get("alt") for picture in pictures)
    assert any("tfidf 0.7520 (0.7340 to 0.7700)" in str(picture["alt"]) for picture in pictures)
    for table in re.findall(r"<table.*?</table>", html, flags=re.DOTALL):
        assert 'scope="col"' in table
        assert table.count('scope="row"') == table.count("<tr") - 1


def test_pictures_are_png(html: str) -> None:
    """A light and a dark one each for comparisons, standing and curves, and no two alike."""
    uris = re.findall(r'(?:src|srcset)="data:image/png;base64,([^"]+)"', html)
    pictures = [base64.b64decode(uri, validate=True) for uri in uris]
    assert len(set(pictures)) == 6
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)


def test_verdict_comes_first_with_its_reason(facts: ReportFacts, html: str) -> None:
    """Outcome and reason stand before any other figure."""
    text = read(html).text
    assert text.index("Promoted") < text.index(facts.verdict.reason) < text.index("What was compared")


@pytest.mark.parametrize(
    ("outcome", "references", "expected"),
    [
        ("keep", True, "The champion stays"),
        ("keep", False, "Not good enough"),
        ("inconclusive", True, "Not decided yet"),
        ("promote", True, "Would be promoted"),
    ],
)
def test_headline_says_what_became_of_it(facts: ReportFacts, outcome: str, references: bool, expected: str) -> None:
    """A run that is not registered, not promoted or the first of its model is not called what it is not."""
    evaluation = facts.evaluation if references else replace(facts.evaluation, references={})
    verdict = replace(facts.verdict, outcome=outcome, comparisons=())
    told = replace(facts, evaluation=evaluation, verdict=verdict, version=None, entry=None)
    assert page.headline(told) == expected


def test_verdict_without_a_comparison_says_so(facts: ReportFacts) -> None:
    """A holdout that is too small, or a bundle that is the champion already, leaves no empty picture."""
    text = read(page.render(replace(facts, verdict=replace(facts.verdict, comparisons=())))).text
    assert f"Nothing was compared: {facts.verdict.reason}" in text


def test_rows_add_up_as_in_the_manifest(html: str) -> None:
    """The sentence on rows is the manifest's account."""
    assert "10,662 rows read = 10,635 kept + 9 quarantined + 18 duplicates" in read(html).text


def test_what_is_cut_and_unknown_is_told(facts: ReportFacts) -> None:
    """For each side, in numbers and as a share; where no texts are read there is no such table."""
    sides = {"train": SideReading(800, 8, 10_000, 25), "holdout": SideReading(200, 0, 2_000, 500)}
    told = page.render(replace(facts, reading=Reading(sides)))
    assert "1.0 %" in told and "0.2 %" in told and "25.0 %" in told and "10,000" in told
    assert "given of the texts" in told
    assert "given of the texts" not in page.render(facts)


def test_what_was_known_and_what_is_new_stand_apart(facts: ReportFacts) -> None:
    """On the page and on the model's card, with the rows of each; a comparison says that it is of known rows alone."""
    parts = (
        Part(1200, 1190, Interval(0.8123, 0.79, 0.83), Interval(0.8321, 0.81, 0.85)),
        Part(401, 398, Interval(0.9012, 0.88, 0.92), Interval(0.7654, 0.74, 0.79)),
    )
    evaluation = replace(facts.evaluation, memory={"anchor": Memory(*parts, {})})
    first, *others = facts.verdict.comparisons
    verdict = replace(facts.verdict, comparisons=(first, *others, replace(first, is_known=True)))
    grown = replace(facts, evaluation=evaluation, verdict=verdict)
    shown = read(page.render(grown)).text
    assert "anchor, on what it knew" in shown
    for text in (shown, model_card.render(grown)):
        assert all(each in text for each in ("1,200", "0.8123", "0.8321", "401", "0.9012", "0.7654"))
    assert "What was known before" not in read(page.render(facts)).text
