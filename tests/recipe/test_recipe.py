import json
import random
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from graftwork.documents import parse_document
from graftwork.errors import RecipeError
from graftwork.policy import load_policy
from graftwork.presets import PRESETS
from graftwork.recipe import find_root, load_recipe, recipe_schema, stages_as_yaml
from graftwork.sections.stages import StageSection

ROOT = Path(__file__).parents[2]


def load(folder: Path, text: str, *overrides: str):
    (folder / "recipe.yaml").write_text(text)
    return load_recipe(folder / "recipe.yaml", overrides)


def test_the_example_loads_from_a_clean_clone():
    """The example in the repository is valid and its root is the repository, though it lies in a subfolder."""
    recipe = load_recipe(ROOT / "recipes" / "review-sentiment.yaml", limit_rows=100)
    assert (recipe.root, recipe.limit_rows) == (ROOT, 100)
    assert (recipe.root / recipe.data.sources[0].path).is_file()
    assert recipe.stages[0].learning_rate == 3e-4
    assert load_policy(recipe.root / recipe.policy).level == 0.95


@pytest.mark.parametrize(
    ("before", "after", "place", "message"),
    [
        ("epochs: 1", "epohcs: 1", "11:30", r"unknown key stages\.1\.epohcs \(did you mean epochs\?\)"),
        ("epochs: 1", "epohcs: 1", "11:5", r"stages\.1\.epochs is missing"),
        ("epochs: 1", 'epochs: "1"', "11:30", "valid integer, found '1'"),
        ("epochs: 1", "epochs: true", "11:30", "valid integer, found True"),
        ("epochs: 1", "epochs: 0", "11:30", "greater than or equal to 1, found 0"),
        ("2e-5", ".nan", "11:41", "finite number, found nan"),
        ("top:2", "top:0", "10:31", "expected head, lora, all, top:k with k from 1 on"),
        ("name: full", "name: top", "9:1", "top is there more than once"),
        ("train: all", "train: [lora, all]", "11:5", "only the head is trained with lora"),
        ("train: all", "train: all, lora: {}", "11:5", "its `train` does not name lora"),
        ("train: all", "train: lora, layer_decay: 0.9", "11:5", "all adapters are one"),
        ("train: all", "train: lora, lora: {dropout: 0.1}, body_dropout: false", "11:5", "lora.dropout asks for what"),
        ("train: all", "train: lora, l2_sp: 0.1", "11:5", "adapters leave it there"),
        ("train: all", "train: all, keep_epoch: last, patience: 2", "11:5", "patience waits for a better epoch"),
        ("train: all", "train: lora, lora: {rank: 0}", "11:38", "greater than or equal to 1, found 0"),
        ("train: all", "train: lora, lora: {rnak: 4}", "11:38", r"stages\.1\.lora\.rnak \(did you mean rank\?\)"),
        ("policy: policies/standard.yaml\n", "", "1:1", "policy is missing"),
        ("data/movies.tsv", "../movies.tsv", "5:22", "the path leaves the project"),
        ("data/movies.tsv", "http://169.254.169.254/latest", "5:22", "for one elsewhere write url"),
        ("data/movies.tsv", '"http://127.0.0.1:80/x"', "5:22", "for one elsewhere write url"),
        ("path: data/movies.tsv", "url: http://127.0.0.1/x", "5:22", "expected a URL that begins with one of s3://"),
        (
            "path: data/movies.tsv",
            "url: s3://key:secret@bucket/x",
            "5:22",
            r"a URL holds no password.*found .s3://\*\*\*@bucket/x",
        ),
        ("path: data/movies.tsv", "url: s3://key:sec/ret@bucket/x", "5:22", r"found .s3://\*\*\*@bucket/x"),
        ("path: data/movies.tsv", "url: 'az://box/x?sig=secret'", "5:22", r"no parameters.*found .az://box/x\?\*\*\*$"),
        ("path: data/movies.tsv", "url: 's3://bucket/x::file:///etc'", "5:22", "a URL holds no password"),
        ("path: data/movies.tsv", "url: s3://bucket/../x", "5:22", "expected a bucket"),
        ("path: data/movies.tsv", "url: s3://bucket/x, path: x.tsv", "5:7", "expected either path or url"),
        ("pkg://some_package/model", "http://localhost/model", "8:14", r"should match pattern '\^\(pkg\|file\|hf\)"),
        ("[negative, positive]", "[negative]", "6:3", "at least two classes are needed"),
        ("[negative, positive]", "[a, a]", "6:39", "a is there more than once"),
        ("threshold: 0", "threshold: 0, map: {x: negative}", "6:3", "a threshold or a map, not both"),
        ("text: text", "text: [a, b, c]", "7:9", "expected a column, or a list of two"),
        ("[id, rating, text]", "[id, id]", "5:45", "id is there more than once"),
        ("name: reviews", "name: re/views", "1:1", "should match pattern"),
        ("epochs: 1", "epochs: 1, accumulate: 0", "11:41", "greater than or equal to 1, found 0"),
        ("epochs: 1", "epochs: 1, l2_sp: -1", "11:41", "greater than or equal to 0, found -1"),
        ("epochs: 1", "epochs: 1, average: {}", "11:41", r"stages\.1\.average\.ema is missing"),
        ("epochs: 1", "epochs: 1, average: {ema: 1.0}", "11:51", "less than 1, found 1"),
        ("epochs: 1", "epochs: 1, average: {ema: 0.9, after: 1.0}", "11:61", "less than 1, found 1"),
        ("epochs: 1", "epochs: 1, augment: {word_dropout: 1.0}", "11:51", "less than 1, found 1"),
        ("epochs: 1", "epochs: 1, schedule: cycle", "11:41", "one-cycle"),
        ("text: text", "text: text, pooling: sum", "7:21", "attention"),
        (
            "policy:",
            "start: {replay: 2, scratch_every: 5}\npolicy:",
            "12:1",
            "replay, scratch_every would change nothing",
        ),
        ("policy:", "start: {from: champion, replay: -1}\npolicy:", "12:25", "equal to 0, found -1"),
        ("learning_rate: 2e-5", "solver: adamw", "11:5", r"stages\.1\.learning_rate is missing"),
        ("train: all, epochs", "train: all, solver: lbfgs, epochs", "11:5", r"just the head \(train: head\)"),
        (
            "train: all",
            "train: head, solver: lbfgs",
            "11:5",
            "lbfgs finds the optimum and takes no epochs, learning_rate",
        ),
        ("epochs: 1", "epochs: 1, strength: 1.0", "11:5", "strength is for solver: lbfgs"),
        ("epochs: 1", "epochs: 1, head_start: 2.0", "11:41", "expected keep, fresh, or a factor between 0 and 1"),
        ("train: all", "train: [top:1], head_start: fresh", "11:5", "head_start is for a stage that trains the head"),
    ],
)
def test_a_fault_is_told_with_its_place(project, text, before, after, place, message):
    """What is wrong is named with file, line, column, key and what was found."""
    with pytest.raises(RecipeError) as caught:
        load(project, text.replace(before, after))
    assert caught.value.exit_code == 2
    assert any(p.where == f"{project / 'recipe.yaml'}:{place}" for p in caught.value.problems), str(caught.value)
    assert caught.match(message)


def test_a_solved_head_needs_no_rate(project, text):
    """Neither rate nor epochs; a head with hidden layers, or smoothed labels, can't be solved for."""
    start, end = text.index("stages:"), text.index("policy:")
    solved = (
        text[:start] + "stages: [{name: probe, train: head, solver: lbfgs, class_weights: balanced}]\n" + text[end:]
    )
    recipe = load(project, solved)
    assert (recipe.stages[0].epochs, recipe.stages[0].learning_rate) == (None, None)
    with pytest.raises(RecipeError, match=r"9:1: stages: solver lbfgs of probe is for a head without hidden layers"):
        load(project, solved, "head.layers=[8]")
    with pytest.raises(RecipeError, match="lbfgs of late is for pooling that learns nothing"):
        late = "start={from: champion, stages: [{name: late, train: head, solver: lbfgs}]}"
        load(project, text, "input.pooling=attention", late)
    with pytest.raises(RecipeError, match="takes no label_smoothing"):
        load(project, solved, "stages.0.label_smoothing=0.1")


def test_all_faults_are_told_at_once(project, text):
    """Three faults in three sections are one error with three problems."""
    broken = (
        text.replace("epochs: 1", "epochs: 0")
        .replace("threshold: 0", "treshold: 0")
        .replace("name: reviews", "name: 7")
    )
    with pytest.raises(RecipeError) as caught:
        load(project, broken)
    assert len(caught.value.problems) == 3


def test_a_link_out_of_the_project_is_refused(project, text, tmp_path_factory):
    """A folder that a symbolic link puts outside the project is outside."""
    (project / "data").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(RecipeError, match="the path leaves the project"):
        load(project, text)


@pytest.mark.parametrize("mark", [".graftwork", "pyproject.toml", ".git"])
def test_the_root_is_the_nearest_marked_folder(tmp_path, mark):
    """Each mark makes a root, the nearest one wins, and without one it is the recipe's own folder."""
    recipe = tmp_path / "a" / "b" / "recipe.yaml"
    recipe.parent.mkdir(parents=True)
    assert find_root(recipe) == recipe.parent
    (tmp_path / mark).mkdir()
    assert find_root(recipe) == tmp_path
    (tmp_path / "a" / "pyproject.toml").touch()
    assert find_root(recipe) == tmp_path / "a"


@pytest.mark.parametrize("override", ["policy=other.yaml", "policy.level=0.5", " policy =x", "author=somebody"])
def test_the_policy_can_not_be_overridden(project, override):
    """The gate has its own owner: --set can't touch it, nor say that somebody else wrote the recipe."""
    with pytest.raises(RecipeError, match="not to be set for one run"):
        load_recipe(project / "recipe.yaml", [override])


def test_an_override_is_validated_like_the_file(project):
    """An override changes the recipe, and a wrong one is told by its own name."""
    assert load_recipe(project / "recipe.yaml", ["stages.1.epochs=3"]).stages[1].epochs == 3
    with pytest.raises(
        RecipeError, match=r"--set stages\.1\.epoch: unknown key stages\.1\.epoch \(did you mean epochs\?\)"
    ):
        load_recipe(project / "recipe.yaml", ["stages.1.epoch=3"])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_printed_preset_is_the_preset(project, text, preset):
    """A preset, and the stages it prints pasted into the recipe, give the same recipe."""
    start, end = text.index("stages:"), text.index("policy:")
    named = load(project, text[:start] + f"stages: {preset}\n" + text[end:])
    pasted = load(project, text[:start] + stages_as_yaml(named.stages) + text[end:])
    assert pasted.stages == named.stages
    assert pasted.digest == named.digest


def test_a_preset_takes_changes(project, text):
    """{preset: name, key: value} sets the key in each stage; an unknown preset lists the known ones."""
    start, end = text.index("stages:"), text.index("policy:")
    recipe = load(project, text[:start] + "stages: {preset: gradual, weight_decay: 0.1}\n" + text[end:])
    assert [stage.weight_decay for stage in recipe.stages] == [0.1, 0.1, 0.1]
    with pytest.raises(
        RecipeError,
        match="9:1: stages: no such preset; there are head-only, full, thorough, lora, gradual, ulmfit, found 'gradul'",
    ):
        load(project, text[:start] + "stages: gradul\n" + text[end:])


def test_ulmfit_unfreezes_one_block_an_epoch(project, text):
    """As many as it is told, from the top, then all; each rate is 2.6 times that of the block below."""
    start, end = text.index("stages:"), text.index("policy:")
    recipe = load(project, text[:start] + "stages: {preset: ulmfit, blocks: 3, clip_norm: 2.0}\n" + text[end:])
    trained = [("head",), ("head", "top:1"), ("head", "top:2"), ("head", "top:3"), ("all",)]
    assert [stage.train for stage in recipe.stages] == trained
    assert {(stage.epochs, stage.clip_norm) for stage in recipe.stages} == {(1, 2.0)}
    assert {round(1 / stage.layer_decay, 1) for stage in recipe.stages[1:]} == {2.6}
    assert len(load(project, text[:start] + "stages: ulmfit\n" + text[end:]).stages) == 8


@pytest.mark.parametrize("blocks", ["0", "201", "true", '"6"', "2.0"])
def test_a_number_of_blocks_is_a_number(project, text, blocks):
    """What is none is refused with what is expected, and another preset has no such key."""
    start, end = text.index("stages:"), text.index("policy:")
    with pytest.raises(RecipeError, match="blocks: expected a whole number from 1 to 200"):
        load(project, text[:start] + f"stages: {{preset: ulmfit, blocks: {blocks}}}\n" + text[end:])
    with pytest.raises(RecipeError, match=r"unknown key stages\.0\.blocks"):
        load(project, text[:start] + "stages: {preset: full, blocks: 6}\n" + text[end:])


def shuffled(value, chance: random.Random):
    """The same document with the keys of each mapping in another order."""
    if isinstance(value, dict):
        keys = chance.sample(list(value), len(value))
        return {key: shuffled(value[key], chance) for key in keys}
    return [shuffled(item, chance) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("lora", ["", ", lora: {}", ", lora: {rank: 8, targets: all-linear, blocks: [all]}"])
def test_adapters_as_they_are_by_default_keep_the_digest(project, text, lora):
    """Written out, in part or not at all."""
    recipe = load(project, text.replace("train: all", f"train: lora{lora}"))
    assert recipe.digest == load(project, text.replace("train: all", "train: [lora]")).digest
    assert recipe.digest != load(project, text.replace("train: all", "train: lora, lora: {dora: true}")).digest


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), comment=st.text("ab #:", max_size=9), folder=st.sampled_from(["x", "y/z"]))
def test_the_spelling_does_not_change_the_digest(tmp_path_factory, text, seed, comment, folder):
    """Keys in another order, comments, a moved data folder and a default written out keep the digest."""
    data = parse_document(text, "doc").data
    data["data"]["sources"][0]["path"] = f"{folder}/movies.tsv"
    data["train"] = {"batch_tokens": 4096}
    stream = StringIO(f"# {comment}\n")
    stream.seek(0, 2)
    YAML().dump(shuffled(data, random.Random(seed)), stream)
    place = tmp_path_factory.mktemp("project")
    assert load(place, stream.getvalue()).digest == load(place, text).digest


@pytest.mark.parametrize(
    ("change", "is_new"),
    [
        ("stages.0.learning_rate=3e-4", True),
        ("stages.0.epochs=3", True),
        ("stages.0.train=lora", True),
        ("train.seed=1", True),
        ("start.from=champion", True),
        ("head.dropout=0.2", True),
        ("data.split.seed=1", True),
        ("data.label.threshold=1", True),
        ("checkpoint.source=pkg://other/model", True),
        ("input.max_tokens=64", True),
        ("name=other", True),
        ("resources.pool=gpu", False),
        ("retrain.quiet=5m", False),
        ("evaluation.bootstrap=10", False),
        ("checkpoint.licences=[mit]", False),
        ("data.contract=contracts/x.yaml", False),
        ("stages.0.name=first", False),
        ("data.quarantine_tolerance=0.5", False),
        ("data.sources.0.path=elsewhere/movies.tsv", False),
    ],
)
def test_the_digest_follows_what_the_model_depends_on(project, change, is_new):
    """What changes the model changes the digest; place, schedule, gate and tolerance do not."""
    recipe = project / "recipe.yaml"
    assert (load_recipe(recipe, [change]).digest != load_recipe(recipe).digest) is is_new


def test_the_digest_is_what_it_was(project):
    """The digest of a recipe stays as it is over releases: another one would retrain every model that exists."""
    digest = "b6af33c070a7f88ecc3309c7cdc81d8628fcbd4be968429c3c0347bc36232810"
    assert load_recipe(project / "recipe.yaml").digest == digest


IMAGES = ["problem_type=image-classification", "input={image: file}", "evaluation.baselines=[majority]"]


@pytest.mark.parametrize("likeness", [0.8, 0.9, 0.95])
def test_a_likeness_of_pictures_that_is_asked_for_is_told(project, likeness):
    """Also where it is what texts have by default: another one may split the rows otherwise."""
    default, asked = (
        load_recipe(project / "recipe.yaml", [*IMAGES, *more])
        for more in ([], [f"data.split.near_duplicate={likeness}"])
    )
    assert asked.near_duplicate == likeness
    assert default.digest != asked.digest
    assert default.told_data({}) != asked.told_data({})


def test_a_likeness_of_texts_that_is_the_default_is_not(project):
    texts = [load_recipe(project / "recipe.yaml", more) for more in ([], ["data.split.near_duplicate=0.8"])]
    assert texts[0].digest == texts[1].digest
    assert texts[0].told_data({}) == texts[1].told_data({})


def test_editors_get_the_same_rules(project, text):
    """The JSON schema accepts the example and refuses an unknown key, for an independent validator."""
    validator = Draft202012Validator(recipe_schema())
    example = parse_document((ROOT / "recipes" / "review-sentiment.yaml").read_text(), "doc").data
    assert list(validator.iter_errors(example)) == []
    assert list(validator.iter_errors(example | {"stages": "gradual"})) == []
    assert list(validator.iter_errors(example | {"stagse": []}))


LORA = st.fixed_dictionaries(
    {},
    optional={
        "rank": st.integers(1, 64),
        "alpha": st.floats(0.1, 99),
        "targets": st.sampled_from([("attention",), ("query", "value")]),
        "blocks": st.just(("top:2",)),
        "dora": st.booleans(),
    },
)


@given(
    stage=st.fixed_dictionaries(
        {"name": st.just("s")},
        optional={
            "warmup": st.floats(0, 0.9),
            "patience": st.integers(1, 9),
            "keep_epoch": st.sampled_from(["log-loss", "accuracy"]),
            "augment": st.fixed_dictionaries(
                {"word_dropout": st.floats(0, 0.9)},
                optional={
                    "rand": st.fixed_dictionaries({"operations": st.integers(1, 9)}),
                    "mixup": st.floats(0.1, 9),
                },
            ),
            "accumulate": st.integers(1, 99),
            "average": st.fixed_dictionaries({"ema": st.floats(0.1, 0.9)}, optional={"after": st.floats(0, 0.9)}),
            "schedule": st.sampled_from(["linear", "cosine", "constant", "one-cycle"]),
        },
    ),
    trained=st.one_of(
        st.fixed_dictionaries(
            {"train": st.sampled_from([("head",), ("top:3", "head"), ("all",)])},
            optional={"layer_decay": st.floats(0.1, 1), "l2_sp": st.floats(0, 10), "head_start": st.just(0.5)},
        ),
        st.fixed_dictionaries({"train": st.sampled_from([("lora",), ("head", "lora")])}, optional={"lora": LORA}),
    ),
    epochs=st.integers(1, 99),
    rate=st.floats(1e-12, 1),
)
def test_printed_stages_are_read_back(stage, trained, epochs, rate):
    """Stages survive being printed as YAML and read again, exactly."""
    section = StageSection(**stage, **trained, epochs=epochs, learning_rate=rate)
    again = parse_document(stages_as_yaml([section]), "doc").data["stages"]
    assert [StageSection.model_validate(item) for item in again] == [section]


def test_a_recipe_is_plain_json():
    """What a run stores of its recipe is plain JSON."""
    recipe = load_recipe(ROOT / "recipes" / "review-sentiment.yaml")
    assert json.loads(json.dumps(recipe.model_dump(mode="json")))["name"] == "review-sentiment"
