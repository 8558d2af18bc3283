"""Rows beside those that are judged: to learn from, and never of what is judged."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from data_projects import Project, make_sentence
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graftwork.data.acceptance import WITHHELD
from graftwork.data.manifest import DatasetManifest, load_auxiliary, load_rows, validate_data
from graftwork.errors import DataError, RecipeError
from graftwork.evaluation.holdout import judged_rows
from graftwork.monitoring.landing import RecipeSources
from graftwork.recipe import load_recipe
from graftwork.targets.target import UNLABELLED

TEXTS: dict[str, Any] = {"name": "texts", "sources": [{"name": "unlabelled", "path": "texts.csv"}]}
TOPICS = {"name": "topics", "label": {"from": "topic", "classes": ["art", "sport"]}}


def validate(project: Project, *auxiliary: dict[str, Any], **rest: Any) -> DatasetManifest:
    """The manifest of a recipe with these auxiliary rows."""
    return validate_data(project.recipe(auxiliary=[*auxiliary], **rest), project.workspace)


def write_texts(project: Project, texts: Sequence[str], name: str = "texts.csv") -> None:
    project.write(name, "text\n" + "".join(f"{text}\n" for text in texts))


def kept(project: Project, manifest: DatasetManifest, name: str = "texts") -> list[str]:
    return load_auxiliary(project.workspace.store, manifest, name)["text"].tolist()


@pytest.fixture
def project(make_project: Callable[[], Project]) -> Project:
    """Two hundred labelled reviews."""
    made = make_project()
    made.write_rows("reviews.csv")
    return made


def test_texts_without_labels_are_kept_beside_the_sides(project: Project) -> None:
    """Each once, on no side, and the rows that are judged are what they were without them."""
    alone = project.validate()
    write_texts(project, [make_sentence(number) for number in (*range(1000, 1040), 1000)])
    manifest = validate(project, TEXTS)
    (facts,) = manifest.auxiliary
    assert sorted(kept(project, manifest)) == sorted(make_sentence(number) for number in range(1000, 1040))
    assert set(load_auxiliary(project.workspace.store, manifest, "texts")["label"]) == {UNLABELLED}
    assert (facts.counts.read, facts.counts.kept, facts.counts.duplicates, facts.target) == (41, 40, 1, None)
    assert (manifest.rows_digest, manifest.holdout_digest) == (alone.rows_digest, alone.holdout_digest)
    assert manifest.counts == alone.counts
    assert manifest.digest != alone.digest


def test_nothing_that_is_judged_is_learnt_from(project: Project) -> None:
    """A text of the holdout or of validation, also where one word of it differs, is set aside with the reason."""
    write_texts(project, [*map(make_sentence, range(200)), *(f"{make_sentence(n)} indeed" for n in range(200))])
    manifest = validate(project, TEXTS)
    rows = load_rows(project.workspace.store, manifest)
    sides = dict(zip(rows["text"], rows["side"], strict=True))
    found = kept(project, manifest)
    assert {sides[text.removesuffix(" indeed")] for text in found} == {"train"}
    assert len(found) == 2 * manifest.side_rows["train"]
    judged = manifest.side_rows["validation"] + manifest.side_rows["holdout"]
    assert manifest.auxiliary[0].withheld == 2 * judged > 0
    assert project.report(manifest).count(WITHHELD) == 2 * judged


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 260)), min_size=1, max_size=60))
def test_groups_of_what_is_judged_are_not_learnt_from(
    make_project: Callable[[], Project], rows: list[tuple[int, int]]
) -> None:
    """Where both read one file: whatever its other labels say, no row shares a group or a text with one judged."""
    project = make_project()
    lines = [f"{n % 31},{make_sentence(n)},{('bad', 'good')[n % 2]},{('art', 'sport')[n % 2]}" for n in range(200)]
    lines += [f"{group},{make_sentence(300 + n)},,{('art', 'sport')[n % 2]}" for group, n in rows]
    project.write("reviews.csv", "group,text,label,topic\n" + "\n".join([*lines, f"99,{make_sentence(999)},,art"]))
    source = {"path": "reviews.csv", "group": "group"}
    project.data |= {"sources": [{"name": "reviews"} | source], "quarantine_tolerance": 0.99}
    manifest = validate(project, TOPICS | {"sources": [{"name": "again"} | source]})
    every, found = (
        load_rows(project.workspace.store, manifest),
        load_auxiliary(project.workspace.store, manifest, "topics"),
    )
    judged = every[every["side"] != "train"]
    assert not set(found["group"]) & set(judged["group"])
    assert not set(found["text"]) & set(judged["text"])
    counts = manifest.auxiliary[0].counts
    assert counts.read == counts.kept + counts.quarantined + counts.duplicates == len(lines) + 1


def test_what_was_learnt_is_never_judged(project: Project) -> None:
    """Rows that land among the others after they were learnt from are trained on there, too, and their groups."""
    write_texts(project, [make_sentence(number) for number in range(1000, 1100)])
    validate(project, TEXTS)
    write_texts(project, [make_sentence(5000)])
    project.write_rows("reviews.csv", range(200, 300))
    rows = "".join(f"{n},{make_sentence(n)},{('bad', 'good')[n % 2]}\n" for n in (*range(200), *range(1000, 1100)))
    project.write("reviews.csv", f"id,text,label\n{rows}")
    manifest = validate(project, TEXTS)
    learnt = load_rows(project.workspace.store, manifest)
    learnt = learnt[learnt["text"].isin({make_sentence(number) for number in range(1000, 1100)})]
    assert len(learnt) == 100
    assert set(learnt["side"]) == {"train"}


def test_a_model_that_learnt_them_elsewhere_is_not_judged_by_them(
    project: Project, make_project: Callable[[], Project]
) -> None:
    """As any row that it was trained on, whichever lineage that was."""
    manifest = project.validate()
    judged = load_rows(project.workspace.store, manifest, sides=("holdout",))
    project.write("texts.csv", "\n".join(["text", *judged["text"][:5], *map(make_sentence, range(3000, 3010))]))
    project.write_rows("reviews.csv", range(400, 600))
    other = validate(project, TEXTS, name="other")
    assert len(kept(project, other)) == 15
    rows, known = judged_rows(project.workspace.store, manifest, [other.digest])
    assert known == 5
    assert not set(rows["text"]) & set(judged["text"][:5])


@pytest.mark.parametrize("path", ["reviews.csv", "./landing/../reviews.csv"])
def test_a_record_that_is_judged_is_not_learnt_from_by_another_column(project: Project, path: str) -> None:
    """Whatever its place is called."""
    (project.root / "landing").mkdir()
    rows = [f"{n},{make_sentence(n)},{make_sentence(n + 5000)},{('bad', 'good')[n % 2]}" for n in range(200)]
    project.write("reviews.csv", "\n".join(["id,text,summary,label", *rows]))
    project.data["sources"] = [{"name": "reviews", "path": "reviews.csv", "id": "id"}]
    summaries = {"name": "s", "columns": "summary", "sources": [{"name": "again", "path": path, "id": "id"}]}
    manifest = validate(project, summaries)
    found = load_auxiliary(project.workspace.store, manifest, "s")
    sides = load_rows(project.workspace.store, manifest).set_index("row_id")["side"]
    assert {sides[row_id.replace("again/", "reviews/")] for row_id in found["row_id"]} == {"train"}
    assert len(found) == manifest.side_rows["train"]


def test_a_place_that_several_sources_share_is_refused(project: Project) -> None:
    """Nobody could tell whose groups these are."""
    project.data["sources"] = [{"name": name, "path": "reviews.csv"} for name in ("one", "two")]
    with pytest.raises(RecipeError, match=r"'again' lies where several of `data` do \(one, two\)"):
        validate(project, TEXTS | {"sources": [{"name": "again", "path": "reviews.csv"}]})


def test_bad_auxiliary_rows_are_counted_apart(project: Project) -> None:
    """What is set aside of them is measured by the tolerance; what is withheld because it is judged is not."""
    lines = [f"{make_sentence(number)},{('art', 'sport')[number % 2]}" for number in range(200)]
    project.write("topics.csv", "\n".join(["text,topic", *lines]))
    topics = TOPICS | {"sources": [{"name": "topics", "path": "topics.csv"}]}
    assert validate(project, topics).auxiliary[0].withheld > 0
    wrong = [f"{make_sentence(number)},war" for number in range(300, 330)]
    project.write("topics.csv", "\n".join(["text,topic", *wrong]))
    with pytest.raises(DataError, match=r"auxiliary 'topics': 30 of 30 rows are set aside.*all of them are in"):
        validate(project, topics)
    project.write("topics.csv", "\n".join(["text,topic", *lines, *wrong]))
    with pytest.raises(DataError, match=r"auxiliary 'topics': 30 of 230 rows are set aside"):
        validate(project, topics)


@pytest.mark.parametrize(
    ("section", "lines", "message"),
    [
        (TEXTS, [make_sentence(n) for n in range(0)], "has no rows"),
        (
            {"name": "n", "label": {"from": "text"}, "learns": "regression"},
            ["3.5", "3.5"],
            r"every row is labelled 3\.5",
        ),
        (
            {"name": "n", "label": {"from": "text", "map": {"a": "x", "b": "y"}, "classes": ["x", "y"]}},
            ["a"],
            "every row is labelled x",
        ),
    ],
)
def test_what_can_t_be_learnt_from_is_refused(
    project: Project, section: dict[str, Any], lines: list[str], message: str
) -> None:
    """With the name of the set."""
    write_texts(project, lines)
    with pytest.raises(DataError, match=message):
        validate(project, TEXTS | section)


def test_if_all_of_it_is_judged_there_is_nothing_to_learn_from(project: Project) -> None:
    manifest = project.validate()
    rows = load_rows(project.workspace.store, manifest, sides=("holdout",))
    write_texts(project, rows["text"].tolist())
    with pytest.raises(DataError, match="auxiliary 'texts': no rows to learn from"):
        validate(project, TEXTS)


def test_when_it_grows_sides_stay_and_the_watch_counts_its_rows(project: Project) -> None:
    """As with any landing."""
    write_texts(project, [make_sentence(number) for number in range(1000, 1040)])
    first = validate(project, TEXTS)
    write_texts(project, [make_sentence(number) for number in range(1000, 1050)])
    second = validate(project, TEXTS)
    assert second.parent == first.digest
    assert second.rows_digest == first.rows_digest
    sources = RecipeSources(load_recipe(project.root / "recipe.yaml"), project.workspace)
    listed = sources.list()
    assert sources.rows_changed(second.digest, first.digest) == 10
    write_texts(project, [make_sentence(number) for number in range(1000, 1060)])
    assert sources.list() != listed


def test_a_quick_try_takes_as_few_of_them(project: Project) -> None:
    write_texts(project, [make_sentence(number) for number in range(1000, 1100)])
    manifest = validate_data(project.recipe(limit_rows=60, auxiliary=[TEXTS]), project.workspace)
    assert (len(kept(project, manifest)), manifest.auxiliary[0].counts.not_taken) == (60, 40)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"sources": [{"name": "reviews", "path": "texts.csv"}]}, "reviews is there more than once"),
        ({"columns": ["text", "other"]}, "a row is read by 1 columns"),
        ({"learns": "regression"}, "learns says what is learnt of a label"),
        (
            {"label": {"from": "x", "threshold": 1, "classes": ["a", "b"]}, "learns": "regression"},
            "is not for regression",
        ),
        ({"label": {"from": "x"}}, "label.classes is missing"),
    ],
)
def test_a_recipe_that_can_t_be_meant_is_refused(project: Project, section: dict[str, Any], message: str) -> None:
    """Before a file is opened."""
    with pytest.raises(RecipeError, match=message):
        project.recipe(auxiliary=[TEXTS | section])
