"""A first recipe: it runs as it is, says what was seen, and quotes whatever the columns are called."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from graftwork.checkpoints.references import parse_reference
from graftwork.checkpoints.retrieve import retrieve_checkpoint
from graftwork.data.manifest import validate_data
from graftwork.data.survey import count_classes
from graftwork.documents import parse_document
from graftwork.errors import CheckpointError, DataError, GraftworkError, RecipeError
from graftwork.models.catalog import FAMILIES
from graftwork.policy import load_policy
from graftwork.recipe import Recipe, load_recipe
from graftwork.settings import Settings
from graftwork.starter import as_yaml, write_recipe
from graftwork.training.plan import plan_training
from graftwork.workspace import Workspace

HUB = "hf://some/encoder@" + "0" * 40


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def sentence(number: int, words: int = 12) -> str:
    return " ".join(f"w{(number * 7919 + place * 104729) % 99991}" for place in range(words))


def labelled(rows: int, share: float = 0.5) -> list[tuple[object, ...]]:
    """Rows of an id, a text and a label; so large a share of them is `good`."""
    return [(f"{n:04}", sentence(n), "good" if n % 10 < 10 * share else "bad") for n in range(rows)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a data file of 400 rows in a folder of its own."""
    (tmp_path / ".graftwork").mkdir()
    (tmp_path / "recipes").mkdir()
    write_csv(tmp_path / "data" / "reviews.csv", ["review_id", "body", "mood"], labelled(400))
    return tmp_path


def start(project: Path, data: Path | None = None, **changes: object) -> Recipe:
    """The recipe that is written for the project's file, loaded."""
    output = project / "recipes" / "recipe.yaml"
    given = {"text": "body", "label": "mood", "checkpoint": HUB} | changes
    write_recipe(data or project / "data" / "reviews.csv", output=output, **given)
    return load_recipe(output)


def test_a_stray_label_is_no_class(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is left out, said, and its rows are set aside by the run; the recipe is that of the other classes."""
    stray = [("x1", sentence(9001), "n/a"), ("x2", sentence(9002), "n/a")]
    data = write_csv(project / "data" / "stray.csv", ["review_id", "body", "mood"], [*labelled(400), *stray])
    recipe = start(project, data)
    assert recipe.data.label.classes == ("bad", "good")
    assert "class 'n/a' has only 2 rows" in caplog.text
    assert "#   n/a: 2 rows, left out" in (project / "recipes/recipe.yaml").read_text()
    assert {stage.class_weights for stage in recipe.stages} == {"none"}
    manifest = validate_data(recipe, Workspace.open(Settings(home=project / ".graftwork")))
    assert manifest.counts.quarantined == 2


def test_data_of_a_first_recipe_is_accepted_as_it_is(project: Path) -> None:
    """What is written loads, and its data goes through validation with nothing set aside."""
    recipe = start(project)
    workspace = Workspace.open(Settings(home=project / ".graftwork"))
    counts = validate_data(recipe, workspace).counts
    assert (counts.read, counts.quarantined) == (400, 0)


def test_recipe_says_what_was_seen(project: Path) -> None:
    """Columns, classes in order, the id, and paths from the project's root."""
    recipe = start(project)
    (source,) = recipe.data.sources
    assert recipe.name == source.name == "reviews"
    assert (source.path, recipe.policy) == (Path("data/reviews.csv"), Path("recipes/policy.yaml"))
    assert (source.id, source.group) == ("review_id", None)
    assert (recipe.data.label.column, recipe.data.label.classes) == ("mood", ("bad", "good"))
    assert recipe.input.text == "body"
    assert {stage.class_weights for stage in recipe.stages} == {"none"}


def test_data_outside_the_project_is_named_by_its_absolute_path(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also where a path inside the project only links to it."""
    outside = write_csv(tmp_path_factory.mktemp("elsewhere") / "x.csv", ["body", "mood"], [r[1:] for r in labelled(40)])
    (project / "data" / "link.csv").symlink_to(outside)
    assert start(project, project / "data" / "link.csv").data.sources[0].path == outside.resolve()


def test_pairs_of_texts(project: Path) -> None:
    """A second column of text is written as a pair."""
    assert start(project, text_pair="review_id").input.text == ("body", "review_id")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_recipe(suffix: str, project: Path) -> None:
    """The same rows in another format: the same classes, ids and lengths."""
    rows = labelled(100)
    path = project / "data" / f"same.{suffix}"
    names = ("id", "body", "mood")
    if suffix == "csv":
        write_csv(path, names, rows)
    elif suffix == "tsv":
        path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [names, *rows]))
    elif suffix == "jsonl":
        pairs = (", ".join(f'"{name}": "{cell}"' for name, cell in zip(names, row, strict=True)) for row in rows)
        path.write_text("".join(f"{{{pair}}}\n" for pair in pairs))
    else:
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        parquet.write_table(pyarrow.table(columns), path)
    recipe = start(project, path)
    assert recipe.data.sources[0].id == "id"
    assert recipe.data.label.classes == ("bad", "good")
    assert recipe.input.max_tokens == 32


def test_group_is_suggested_and_not_decided(project: Path) -> None:
    """Values that repeat in a column called like a group are told in a comment."""
    rows = [(f"u{n % 20}", text, label) for n, (_, text, label) in enumerate(labelled(100))]
    recipe = start(project, write_csv(project / "data" / "g.csv", ["user_id", "body", "mood"], rows))
    assert recipe.data.sources[0].group is None
    assert "# group: user_id  # 20 values, 5.0 rows each" in recipe.path.read_text()


def test_rare_class_changes_weights_and_metric(project: Path) -> None:
    """Under a fifth of the rows: classes weigh the same, and the gate does not look at accuracy."""
    path = write_csv(project / "data" / "rare.csv", ["id", "body", "mood"], labelled(400, share=0.1))
    recipe = start(project, path)
    assert {stage.class_weights for stage in recipe.stages} == {"balanced"}
    assert load_policy(project / recipe.policy).metric == "macro_f1"


@pytest.mark.parametrize(("rows", "minimum"), [(40, 10), (400, 40), (6000, 500)])
def test_small_data_lowers_what_the_policy_asks_and_says_so(rows: int, minimum: int, project: Path) -> None:
    """Below the standard the reason stands beside the number; from 5,000 rows on it is the standard."""
    recipe = start(project, write_csv(project / "data" / "n.csv", ["id", "body", "mood"], labelled(rows)))
    policy = project / recipe.policy
    assert load_policy(policy).minimum_rows == minimum
    assert ("The standard is 500" in policy.read_text()) == (minimum < 500)


@pytest.mark.parametrize(("rows", "first"), [(400, "head"), (2000, "full")])
def test_few_rows_are_trained_from_the_head_down(rows: int, first: str, project: Path) -> None:
    """Many rows train everything at once; the head alone is never all of it."""
    recipe = start(project, write_csv(project / "data" / "n.csv", ["id", "body", "mood"], labelled(rows)))
    assert recipe.stages[0].name == first
    assert recipe.stages[-1].train == ("all",)


@pytest.mark.parametrize(("words", "tokens"), [(10, 32), (30, 64), (80, 128), (1000, 256)])
def test_max_tokens_covers_the_texts_up_to_a_limit(words: int, tokens: int, project: Path) -> None:
    """1.4 tokens a word, the next size of four."""
    rows = [(sentence(n, words), ("a", "b")[n % 2]) for n in range(40)]
    assert start(project, write_csv(project / "data" / "w.csv", ["body", "mood"], rows)).input.max_tokens == tokens


def test_a_script_without_spaces_is_counted_by_characters(project: Path) -> None:
    """Sixty Chinese characters are no single word."""
    rows = [("汉" * 60 + str(n), ("a", "b")[n % 2]) for n in range(40)]
    assert start(project, write_csv(project / "data" / "w.csv", ["body", "mood"], rows)).input.max_tokens == 128


def test_numbers_as_classes_stay_text(project: Path) -> None:
    """Stars are classes, in the order of the numbers, and no YAML reader turns them into numbers."""
    rows = [(sentence(n), 1 + n % 10) for n in range(100)]
    recipe = start(project, write_csv(project / "data" / "stars.csv", ["body", "mood"], rows))
    assert recipe.data.label.classes == tuple(map(str, range(1, 11)))


@pytest.mark.parametrize("threshold", [0, -0.5, 1e-7, 1234567.25])
def test_threshold_makes_two_classes(threshold: float, project: Path) -> None:
    """The number is written so that it reads back as the same number."""
    rows = [(sentence(n), threshold + n - 20) for n in range(40)]
    recipe = start(project, write_csv(project / "data" / "r.csv", ["body", "mood"], rows), threshold=threshold)
    assert (recipe.data.label.threshold, recipe.data.label.classes) == (threshold, ("low", "high"))


@pytest.mark.parametrize(
    ("cells", "threshold", "message"),
    [
        ([str(n / 10) for n in range(-20, 20)], None, r"40 values from -2 to 1\.9 .*--threshold -0\.1 "),
        (["1", "2", "3"], 3.0, "--threshold 3 leaves a class empty: 'mood' has 3 values from 1 to 3"),
        (["1", "2"], float("nan"), "leaves a class empty"),
        (["good", "bad"], 0.0, "no numbers"),
        (["good"] * 3, None, "'mood' has 1 values, expected 2 to 50"),
        ([None, " "], None, "'mood' has 0 values"),
        ([f"text {n}" for n in range(51)], None, "51 values, expected 2 to 50"),
    ],
)
def test_a_column_without_classes_is_refused(cells: list[str | None], threshold: float | None, message: str) -> None:
    """What the column holds is told, and what to say for a measure."""
    with pytest.raises(RecipeError, match=message):
        count_classes(cells, "mood", threshold)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=21, unique=True))
def test_suggested_threshold_can_be_taken(numbers: list[float]) -> None:
    """Whatever the numbers, the threshold in the message leaves no class empty."""
    cells = [repr(number) for number in numbers]
    with pytest.raises(RecipeError) as caught:
        count_classes(cells, "mood")
    suggested = caught.value.problems[0].hint.partition("--threshold ")[2].split()[0]
    assert all(count_classes(cells, "mood", float(suggested)).values())


def test_unknown_columns_are_named_together(project: Path) -> None:
    """Both at once, with the columns there are and the nearest of them."""
    with pytest.raises(RecipeError, match=r"did you mean 'body'.*there are review_id, body, mood") as caught:
        start(project, text="boby", label="stars")
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"label": "body"}, RecipeError, "must be different columns"),
        ({"name": "my model"}, RecipeError, "for instance my-model"),
        ({"checkpoint": "bert-base"}, CheckpointError, "not a checkpoint reference"),
        ({"checkpoint": "pkg://no_such_package_here/model"}, CheckpointError, "not installed"),
    ],
)
def test_what_can_not_be_meant_is_refused(
    changes: dict[str, str], error: type[GraftworkError], message: str, project: Path
) -> None:
    """Nothing is written."""
    with pytest.raises(error, match=message):
        start(project, **changes)
    assert list((project / "recipes").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "there is no such file"),
        ("a.xlsx", "x", "the format can't be told from the suffix"),
        ("a.csv", "", "nothing landed"),
        ("a.jsonl", "\n", "nothing landed"),
        ("a.csv", "body,mood\n", "the file has no rows"),
        ("a.csv", "body,body,mood\n1,2,3\n", "column 'body' is there more than once"),
        ("a.csv", "body,mood\n1,2,3\n4\n", "not one of 2 rows can be read"),
        ("a.csv", "body,mood\ncaf\xe9,1\n".encode("latin-1"), r"a\.csv:2: byte 13 \(0xe9\) is not utf-8"),
        ("a.parquet", "PAR1", "not a whole Parquet file"),
    ],
)
def test_file_that_can_not_be_used_is_named(
    name: str, content: str | bytes | None, message: str, project: Path
) -> None:
    """In the words in which a run would tell it."""
    path = project / "data" / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((DataError, RecipeError), match=message):
        start(project, path)


@pytest.mark.parametrize(("limit", "said"), [(4096, "the first 4,096 rows"), (5000, "after a look at 5,000 rows")])
def test_a_long_file_is_not_read_to_its_end(
    limit: int, said: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the recipe says so."""
    monkeypatch.setattr("graftwork.data.survey.LOOKED_AT_ROWS", limit)
    path = write_csv(project / "data" / "long.csv", ["id", "body", "mood"], labelled(5000))
    assert said in start(project, path).path.read_text()


def test_damaged_rows_are_told(project: Path) -> None:
    """They do not keep a recipe from being written: a run sets them aside."""
    path = write_csv(project / "data" / "d.csv", ["id", "body", "mood"], [*labelled(40), ("short",)])
    assert "40 rows (1 more damaged)" in start(project, path).path.read_text()


def test_nothing_is_overwritten(project: Path) -> None:
    """A recipe that is there is refused, a policy that is there is kept."""
    policy = project / "recipes" / "policy.yaml"
    policy.write_text("metric: brier\n")
    recipe = start(project)
    assert policy.read_text() == "metric: brier\n"
    before = recipe.path.read_text()
    with pytest.raises(RecipeError, match="not overwritten"):
        start(project)
    assert recipe.path.read_text() == before


def test_licence_is_what_the_checkpoint_says(project: Path, tiny_checkpoint: Path) -> None:
    """Read where the checkpoint is here; else those that are usually free to use."""
    assert start(project, checkpoint=f"file://{tiny_checkpoint}").checkpoint.licences == ("apache-2.0",)
    (project / "recipes" / "recipe.yaml").unlink()
    assert start(project).checkpoint.licences == ("apache-2.0", "mit")


def test_word_vectors_have_stages_of_their_own(project: Path, make_checkpoint: Callable[..., Path]) -> None:
    """They have no blocks: what the recipe trains is there, and can be planned as it is written."""
    folder = make_checkpoint("word-vectors")
    recipe = start(project, checkpoint=f"file://{folder}")
    assert [(stage.name, stage.train) for stage in recipe.stages] == [("head", ("head",)), ("words", ("all",))]
    workspace = Workspace.open(Settings(home=project / ".graftwork"))
    lock = retrieve_checkpoint(recipe, workspace, FAMILIES)
    plan = plan_training(recipe, validate_data(recipe, workspace), lock, folder)
    assert [set(stage.rates) for stage in plan.stages] == [{"head"}, {"embeddings", "head"}]


def test_unpinned_checkpoint_is_written_with_what_to_do(project: Path) -> None:
    """Once, so that `graftwork lock` can put the commit in its place."""
    recipe = start(project, checkpoint="hf://some/encoder@main")
    text = recipe.path.read_text()
    assert not parse_reference(recipe.checkpoint.source).is_pinned
    assert "graftwork lock" in text
    assert text.count("hf://some/encoder@main") == 1


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(TEXT)
@example("a: b # c")
@example("'\"\\")
@example("no")
@example("007")
@example("\x85\u2028\ufeff\x7f{{ x }}")
def test_any_text_survives_its_quotes(text: str) -> None:
    """Read back by our own reader, as a value, a key, and an item of a list."""
    document = parse_document(f"{{key: {as_yaml(text)}, list: {as_yaml([text, text])}}}", "test")
    assert document.data == {"key": text, "list": [text, text]}


@settings(max_examples=25, deadline=None)
@given(st.lists(TEXT.filter(str.strip), min_size=3, max_size=3, unique=True), st.lists(TEXT, min_size=2, unique=True))
def test_any_column_and_class_names_round_trip(
    tmp_path_factory: pytest.TempPathFactory, columns: list[str], classes: list[str]
) -> None:
    """Whatever the columns and the labels are called, the recipe loads and names them exactly."""
    folder = tmp_path_factory.mktemp("named")
    names = [name.replace("\r", " ").replace("\n", " ").replace("\0", " ") for name in columns]
    values = {f"{value.strip()}!" for value in classes} | {"other"}
    table = pyarrow.table(
        {
            names[0]: [sentence(n) for n in range(len(values))],
            f"{names[1]}-": sorted(values),
            f"{names[2]}--user": ["u"] * len(values),
        }
    )
    parquet.write_table(table, folder / "data.parquet")
    write_recipe(folder / "data.parquet", names[0], f"{names[1]}-", HUB, folder / "recipe.yaml")
    recipe = load_recipe(folder / "recipe.yaml")
    assert (recipe.input.text, recipe.data.label.column) == (names[0], f"{names[1]}-")
    assert set(recipe.data.label.classes) == values
