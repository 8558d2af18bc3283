"""A file that is handed in lands whole in the one folder that is meant, and replaces nothing."""

from pathlib import Path

import pytest
from data_projects import Project

from graftwork.data.handover import hand_in
from graftwork.errors import DataError, RecipeError

ROWS = "id,text,label\n1,a lamp by the river,good\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "new.csv"
    path.write_text(ROWS)
    return path


@pytest.fixture
def landing(project: Project) -> Project:
    """A project with one landing folder beside a file."""
    project.data["sources"] = [{"name": "old", "path": "old.csv"}, {"name": "new", "path": "landing"}]
    return project


def test_a_file_lands_once(landing: Project, file: Path) -> None:
    """In a folder that is made for it; handed in again it is there already."""
    first, again = hand_in(landing.recipe(), file), hand_in(landing.recipe(), file)
    assert (Path(first.place), Path(first.place).read_text()) == (landing.root / "landing/new.csv", ROWS)
    assert (first.was_there, again.was_there, first.source, first.recipe) == (False, True, "new", "recipe.yaml")
    assert [path.name for path in Path(first.place).parent.iterdir()] == ["new.csv"]


def test_another_file_of_that_name_stays(landing: Project, file: Path) -> None:
    hand_in(landing.recipe(), file)
    file.write_text(ROWS * 2)
    with pytest.raises(DataError, match="another file of that name has landed"):
        hand_in(landing.recipe(), file)
    assert (landing.root / "landing/new.csv").read_text() == ROWS


@pytest.mark.parametrize(("name", "told"), [("new.txt", "not a supported format"), ("none.csv", "no such file")])
def test_what_can_t_be_taken_is_told(landing: Project, tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "new.txt").write_text("")
    with pytest.raises(DataError, match=told):
        hand_in(landing.recipe(), tmp_path / name)
    assert not (landing.root / "landing").exists()


def test_the_folder_that_is_meant_has_to_be_clear(landing: Project, file: Path) -> None:
    """A single file is no landing folder, and of several one is named."""
    with pytest.raises(RecipeError, match="no source 'old' is a landing folder"):
        hand_in(landing.recipe(), file, "old")
    landing.data["sources"].append({"name": "more", "path": "more"})
    with pytest.raises(RecipeError, match=r"those that are: new, more; say which with --source"):
        hand_in(landing.recipe(), file)
    assert hand_in(landing.recipe(), file, "more").place == str(landing.root / "more/new.csv")
