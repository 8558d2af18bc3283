"""The files of a report, kept in the store: made once for a verdict, found again by a run that changed nothing."""

import shutil
from pathlib import Path

from graftwork.fingerprint import digest, to_json
from graftwork.report.facts import ReportFacts
from graftwork.storage import Store, make_folder, whole_file

REPORT_VERSION = 2  # raised by hand when a page made again would tell more
PAGE = "report.html"


def store_report(store: Store, facts: ReportFacts) -> Path:
    """The folder with report.html, model_card.md, learning_curves.png, and verdict, evaluation and data as JSON.

    When and on what machine it was made is no part of its key: a report is not made again for that.
    """
    key = f"report/{digest(_essence(facts))}"
    place = store.open(key)
    if place is None:
        with store.writing(key) as folder:
            _write(facts, folder)
        place = store.open(key)
    assert place is not None
    return place


def copy_page(folder: Path, target: Path) -> Path:
    """The report's page at a place with a name that a person can remember, replaced as a whole."""
    make_folder(target.parent)
    with whole_file(target) as aside:
        shutil.copyfile(folder / PAGE, aside)
    return target


def _essence(facts: ReportFacts) -> list[object]:
    version = facts.version.uri if facts.version else None
    entry = facts.entry.hash if facts.entry else None
    judged = [facts.bundle.digest, facts.evaluation.digest, facts.verdict.digest]
    return [REPORT_VERSION, facts.run.run_id, *judged, version, entry, facts.command]


def _write(facts: ReportFacts, folder: Path) -> None:
    from graftwork.report import charts, model_card, page

    (folder / PAGE).write_text(page.render(facts), encoding="utf-8")
    (folder / "model_card.md").write_text(model_card.render(facts), encoding="utf-8")
    (folder / "learning_curves.png").write_bytes(
        charts.learning_curves(facts.bundle.stages, charts.LIGHT, facts.run.plan.target.score)
    )
    for name, record in (("verdict", facts.verdict), ("evaluation", facts.evaluation), ("data", facts.run.manifest)):
        (folder / f"{name}.json").write_text(to_json(record), encoding="utf-8")
