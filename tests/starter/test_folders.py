"""A first recipe from data and checkpoint alone: a folder of pictures or sounds, a table whose columns are plain."""

import shutil
from pathlib import Path

import pytest
from tiny import resolve_run, write_checkpoint, write_stripes, write_tones

from graftwork.errors import CheckpointError, DataError, RecipeError
from graftwork.recipe import load_recipe
from graftwork.settings import Settings
from graftwork.starter import write_recipe
from graftwork.workspace import Workspace

WRITERS = {"vit": write_stripes, "wav2vec2": write_tones}
KINDS = {"vit": "image", "wav2vec2": "audio"}


@pytest.fixture(params=WRITERS)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def project(tmp_path: Path, architecture: str) -> Path:
    """A checkpoint, and a folder `data` of 80 files of what it reads."""
    (tmp_path / ".graftwork").mkdir()
    write_checkpoint(tmp_path / "checkpoint", architecture)
    WRITERS[architecture](tmp_path / "data", 40)
    return tmp_path


def start(project: Path, data: str = "data", **changes: str) -> Path:
    output = project / "recipe.yaml"
    write_recipe(project / data, None, None, "file://checkpoint", output, **changes)
    return output


def test_a_folder_and_a_checkpoint_are_enough(project: Path, architecture: str) -> None:
    """The recipe can be planned as it is; kind of problem, classes and family are what data and checkpoint tell."""
    output = start(project)
    recipe = load_recipe(output)
    assert recipe.problem_type == f"{KINDS[architecture]}-classification"
    assert recipe.data.label.classes == ("no", "yes")
    assert "tfidf" not in recipe.evaluation.baselines
    run = resolve_run(project, Workspace.open(Settings(home=project / "home")))
    assert run.lock.architecture == architecture
    assert sum(run.plan.rows.values()) == 80
    assert [stage.name for stage in run.plan.stages] == ["head", "top", "full"]  # few rows: from the head down


def test_a_checkpoint_that_reads_something_else_is_refused(project: Path) -> None:
    shutil.rmtree(project / "checkpoint")
    write_checkpoint(project / "checkpoint", "bert")
    with pytest.raises(CheckpointError, match="reads texts, and the data is"):
        start(project)


def test_files_that_belong_together_by_their_names_are_told(project: Path) -> None:
    """Where a part of the names is in several classes; a name that tells the class alone is no group."""
    assert "group:" not in start(project).read_text(encoding="utf-8")
    for path in list((project / "data").rglob("*.*")):
        path.rename(path.with_name(f"voice{int(path.stem) % 7}_{path.name}"))
    (project / "recipe.yaml").unlink()
    written = start(project).read_text(encoding="utf-8")
    assert '# group: {from: name, before: "_"}' in written
    grouped = written.replace("# group: {", "group: {")
    (project / "recipe.yaml").write_text(grouped, encoding="utf-8")
    run = resolve_run(project, Workspace.open(Settings(home=project / "home")))
    assert run.manifest.counts.kept == 80


def test_what_is_no_folder_of_classes_is_told(project: Path) -> None:
    (project / "empty").mkdir()
    with pytest.raises(DataError, match="neither pictures nor sounds are in it"):
        start(project, "empty")
    with pytest.raises(DataError, match="lie in 1 folders, expected 2 to 50"):
        start(project, "data/yes")
    WRITERS["wav2vec2"](project / "data", 1)
    WRITERS["vit"](project / "data", 1)
    with pytest.raises(DataError, match="both pictures and sounds are in it"):
        start(project)
    with pytest.raises(RecipeError, match="a folder tells the labels by the folders in it"):
        write_recipe(project / "data", "text", None, "file://checkpoint", project / "recipe.yaml")


def table(folder: Path, header: str, *rows: str) -> Path:
    path = folder / "data.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    (tmp_path / ".graftwork").mkdir()
    write_checkpoint(tmp_path / "checkpoint")
    return "file://checkpoint"


def test_plain_columns_need_no_names(tmp_path: Path, encoder: str) -> None:
    """The text is the column of most words; of several columns with few values the one that is called a label."""
    rows = [f"{n},word{n} and more of it,{'ab'[n % 2]},{n % 3}" for n in range(60)]
    write_recipe(table(tmp_path, "id,body,mood,label", *rows), None, None, encoder, tmp_path / "recipe.yaml")
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert (recipe.input.text, recipe.data.label.column) == ("body", "label")
    (tmp_path / "recipe.yaml").unlink()
    path = table(tmp_path, "id,body,mood,colour", *rows)
    with pytest.raises(RecipeError, match="which column is the label can't be told: it could be 'mood' or 'colour'"):
        write_recipe(path, None, None, encoder, tmp_path / "recipe.yaml")
    write_recipe(path, "body", "mood", encoder, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml").input.text == "body"


def test_a_label_that_is_nowhere_is_asked_for(tmp_path: Path, encoder: str) -> None:
    path = table(tmp_path, "id,body", *(f"{n},word{n} and more" for n in range(60)))
    with pytest.raises(RecipeError, match="no column has a few values over and over"):
        write_recipe(path, None, None, encoder, tmp_path / "recipe.yaml")
