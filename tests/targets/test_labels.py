"""What becomes of label cells, and of recipes that ask for what means nothing."""

from pathlib import Path

import numpy as np
import pytest
from data_projects import Project, make_sentence
from hypothesis import given
from hypothesis import strategies as st

from graftwork.errors import DataError, RecipeError
from graftwork.models.serving.outputs import OUTPUTS
from graftwork.targets.catalog import MULTI_LABEL, TARGETS
from graftwork.targets.target import LabelRule, Unread

CLASSES = ("a", "b", "c d")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def write(project: Project, labels: list[str], header: str = "label") -> None:
    """A CSV of good rows with these labels, in turn."""
    rows = "".join(f"{n},{make_sentence(n)},{labels[n % len(labels)]}\n" for n in range(200))
    project.write("reviews.csv", f"id,text,{header}\n{rows}")


def test_bundles_know_how_to_tell_every_target() -> None:
    """What travels with them has no table of ours to look at."""
    assert OUTPUTS.keys() == TARGETS.keys()


@given(st.sets(st.sampled_from(CLASSES)), st.sampled_from(["|", "; "]))
def test_labels_come_back_from_a_cell(names: set[str], separator: str) -> None:
    """Listed in any order and with white space around, none too, they are the digits of their classes."""
    read = MULTI_LABEL.reader(LabelRule(CLASSES, separator=separator))
    label = read([separator.join(f" {name} " for name in names)])
    assert isinstance(label, str)
    assert {CLASSES[index] for index in MULTI_LABEL.members(label)} == names
    assert MULTI_LABEL.learning.as_array([label]).tolist() == [[float(name in names) for name in CLASSES]]


def test_columns_of_flags_are_labels() -> None:
    """0 and 1 as tables write them; of anything else it is said which column."""
    read = MULTI_LABEL.reader(LabelRule(("a", "b", "c")))
    assert read(["1", "0.0", "TRUE"]) == "101"
    assert read(["1", "2", "0"]) == Unread("neither 0 nor 1", 1)


def test_numbers_that_are_none_are_set_aside(project: Project) -> None:
    """NaN, infinity, words and nothing; the others are stored as they are, and described side by side."""
    write(project, ["1.5", "-2", "1e3"])
    with (project.root / "reviews.csv").open("a") as stream:
        stream.writelines(f"x{n},bad {n},{cell}\n" for n, cell in enumerate(("nan", "inf", "four", "")))
    project.data["label"] = {"from": "label"}
    manifest = project.validate_as("text-regression")
    assert manifest.counts.quarantined == 4
    assert project.report(manifest).count("not a number") == 3
    labels = {side: [] for side in manifest.sides}
    for row in project.rows(manifest).values():
        labels[row["side"]].append(row["label"])
    for side, found in labels.items():
        told = manifest.numbers[side]
        assert set(found) == {1.5, -2, 1000}
        assert (told.mean, told.std) == pytest.approx((np.mean(found), np.std(found)))
        assert manifest.sides[side] == {"label": len(found)}
    assert (manifest.classes, manifest.target) == (("label",), "regression")


def test_numbers_of_one_text_are_averaged_unless_they_are_kept(project: Project) -> None:
    """Equal texts are one row with the mean of what people gave it, in any order of the rows."""
    write(project, ["1", "2"])
    with (project.root / "reviews.csv").open("a") as stream:
        stream.write("x,two minds,1\ny,Two  minds,2\nz,two minds,6\n")
    project.data["label"] = {"from": "label"}
    averaged = project.validate_as("text-regression")
    assert (averaged.counts.kept, averaged.counts.duplicates) == (201, 2)
    assert [row["label"] for row in project.rows(averaged).values() if row["text"].lower().startswith("two")] == [3]
    project.data["conflicts"] = "keep"
    assert project.validate_as("text-regression").counts.kept == 203


def test_one_number_for_all_is_refused(project: Project) -> None:
    """There is nothing to learn."""
    write(project, ["2.5"])
    project.data["label"] = {"from": "label"}
    with pytest.raises(DataError, match=r"every row is labelled 2\.5"):
        project.validate_as("text-regression")


def test_rows_of_several_labels_are_counted_with_each(project: Project) -> None:
    """An empty cell is a row without any, an unknown label sets it aside, and other labels of one text contradict."""
    write(project, ["a|b", "b", "", "c d"])
    with (project.root / "reviews.csv").open("a") as stream:
        stream.write("x,some words,a|what\ny,two minds,a\nz,two minds,a|b\n")
    project.data["label"] = {"from": "label", "separator": "|", "classes": list(CLASSES)}
    manifest = project.validate_as("text-multi-label")
    told = project.report(manifest)
    assert (told.count("label outside the set"), told.count("equal texts with different labels")) == (1, 2)
    rows = project.rows(manifest)
    assert len(rows) == manifest.counts.kept == sum(manifest.side_rows.values()) == 200
    digits = [row["label"] for row in rows.values()]
    assert {each: digits.count(each) for each in set(digits)} == {"110": 50, "010": 50, "000": 50, "001": 50}
    assert {name: sum(side[name] for side in manifest.sides.values()) for name in CLASSES} == {
        "a": 50,
        "b": 100,
        "c d": 50,
    }


def test_a_column_for_each_label(project: Project) -> None:
    """Their names are the classes, and a cell that is missing or no flag sets its row aside."""
    write(project, ["0,1", "1,1", "0,0"], header="toxic,insult")
    with (project.root / "reviews.csv").open("a") as stream:
        stream.write("x,some words,,1\ny,other words,0,maybe\n")
    project.data["label"] = {"from": ["toxic", "insult"]}
    manifest = project.validate_as("text-multi-label")
    assert manifest.classes == ("toxic", "insult")
    told = project.report(manifest)
    assert ("toxic,missing" in told, "insult,neither 0 nor 1,maybe" in told) == (True, True)


@pytest.mark.parametrize(
    ("problem_type", "label", "message"),
    [
        ("text-classification", {"from": "x"}, "label.classes is missing"),
        (
            "text-classification",
            {"from": ["x", "y"], "classes": ["a", "b"]},
            "a list of columns is not for",
        ),
        ("text-classification", {"from": "x", "separator": "|", "classes": ["a", "b"]}, "separator is not for"),
        ("text-regression", {"from": "x", "classes": ["a", "b"]}, "classes is not for regression"),
        ("text-regression", {"from": "x", "threshold": 1.0, "classes": ["a", "b"]}, "is not for regression"),
        ("text-multi-label", {"from": "x", "classes": ["a", "b"]}, "say which separator"),
        ("text-multi-label", {"from": "x", "separator": "|"}, "label.classes is missing"),
        ("text-multi-label", {"from": ["x", "y"], "classes": ["a"]}, "2 columns tell as many classes"),
        ("text-multi-label", {"from": ["x", "x"]}, "x is there more than once"),
        ("image-regression", {"from": "x"}, "does not go with input.text"),
    ],
)
def test_a_label_that_is_not_of_the_target_is_refused(
    project: Project, problem_type: str, label: object, message: str
) -> None:
    """With the key that is wrong, before anything is read."""
    project.data["label"] = label
    with pytest.raises(RecipeError, match=message):
        project.recipe(problem_type=problem_type)


@pytest.mark.parametrize(
    "key", ["class_weights: balanced", "label_smoothing: 0.1", "keep_epoch: accuracy", "objective: contrastive"]
)
@pytest.mark.parametrize("problem_type", ["text-regression", "text-multi-label"])
def test_what_is_of_one_class_is_refused(project: Project, problem_type: str, key: str) -> None:
    """Classes that weigh the same, or are brought together, are those of rows that have one."""
    name, _, value = key.partition(": ")
    plain = {"name": "one", "train": "all", "epochs": 1, "learning_rate": 1e-4}
    stages = [plain | {name: float(value) if value[0] == "0" else value}, plain | {"name": "two"}]
    label = {"from": ["x", "y"]} if problem_type == "text-multi-label" else {"from": "x"}
    with pytest.raises(RecipeError, match="of one is not for"):
        project.recipe(problem_type=problem_type, stages=stages, data=project.data | {"label": label})


def test_numbers_of_equal_texts_are_no_conflict(project: Project) -> None:
    """So none is set aside for it, and a recipe that asks for that is told."""
    project.data |= {"label": {"from": "x"}, "conflicts": "quarantine"}
    with pytest.raises(RecipeError, match="the mean is taken"):
        project.recipe(problem_type="text-regression")
