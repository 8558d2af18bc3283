"""The command line: help that teaches, one exit code a kind, messages for a person, and one JSON document for a script.

What `run` does when nothing is wrong is shown end to end, in tests/e2e.
"""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from flows.cli import main
from graftwork.models.catalog import FAMILIES
from graftwork.promotion.history import Nomination, follow
from graftwork.registry.versions import ListedVersion, ModelVersion

# What a user has to know about each command: its arguments and options.
COMMANDS = {
    "init": ["--data", "--text", "--label", "--checkpoint", "--output", "--threshold", "--name"],
    "choose": ["RECIPE", "--checkpoint", "--set", "--limit-rows", "--json"],
    "families": ["--json"],
    "convert": ["FILE", "--architecture", "--licence", "--output", "--json"],
    "generate": ["RECIPE", "--stage", "--output", "--seconds", "--seed", "--temperature", "--set", "--json"],
    "retrieval": ["RECIPE", "DATA", "--stage", "--image", "--caption", "--group", "--set", "--json"],
    "train-vectors": ["SOURCE", "--licence", "--output", "--text", "--size", "--minimum-count", "--kind", "--json"],
    "import-vectors": ["FILE", "--licence", "--output", "--most", "--case", "--json"],
    "extract": ["MODEL", "--licence", "--output", "--json"],
    "plan": ["RECIPE", "--set", "--limit-rows", "--probe", "--json"],
    "run": ["RECIPE", "--set", "--limit-rows", "--restart", "--accept-drift", "--json"],
    "lock": ["RECIPE", "--json"],
    "stages": ["RECIPE", "--set"],
    "schema": [],
    "predict": ["MODEL", "DATA", "--output", "--json"],
    "export": ["MODEL", "DATA", "--output", "--json"],
    "models": ["MODEL", "--json"],
    "history": ["MODEL", "--json"],
    "audit": ["--json"],
    "approvals": ["MODEL", "--json"],
    "approve": ["MODEL", "VERSION", "--reason", "--approver", "--key", "--request", "--json"],
    "reject": ["MODEL", "VERSION", "--reason", "--approver", "--key", "--request", "--json"],
    "doctor": ["--json"],
    "prune": ["--keep", "--remove", "--json"],
    "up": ["--prefect-port", "--mlflow-port", "--postgres"],
    "deploy": ["RECIPES", "--json"],
    "land": ["FILE", "--recipe", "--source", "--json"],
    "adopt": ["MODEL", "--recipe", "--reason", "--json"],
    "promote": ["MODEL", "VERSION", "--reason", "--json"],
    "rollback": ["MODEL", "--reason", "--json"],
}
INTERVAL = {
    "type": "object",
    "required": ["value", "low", "high"],
    "properties": {bound: {"type": "number"} for bound in ("value", "low", "high")},
}
CANDIDATE = {
    "source": {"type": "string"},
    "architecture": {"type": "string"},
    "licence": {"type": "string"},
    "pooling": {"enum": ["mean", "cls", "last", "max"]},
    "max_tokens": {"type": ["integer", "null"]},
    "parameters": {"type": "integer", "minimum": 1},
    "size_bytes": {"type": "integer", "minimum": 1},
    "row_ms": {"type": "number", "exclusiveMinimum": 0},
    "strength": {"type": "number"},
    "accuracy": INTERVAL,
    "log_loss": INTERVAL,
    "best_against": {"type": ["object", "null"], "properties": {"difference": INTERVAL, "level": {"type": "number"}}},
    "is_distinguishable": {"type": "boolean"},
}
CHOICE_SCHEMA = {
    "type": "object",
    "required": ["rows", "candidates", "refused"],
    "additionalProperties": False,
    "properties": {
        "rows": {"required": ["train", "validation"]},
        "candidates": {
            "items": {"required": sorted(CANDIDATE), "properties": CANDIDATE, "additionalProperties": False}
        },
        "refused": {"items": {"required": ["source", "problem"]}},
    },
}
RECIPE = """\
name: reviews
problem_type: text-classification
data:
  sources: [{name: reviews, path: reviews.csv}]
  label: {from: label, classes: [bad, good]}
input: {text: text}
checkpoint: {source: "file://checkpoint", licences: [apache-2.0]}
stages: head-only
policy: policy.yaml
"""


class CommandLine:
    """A project with 60 rows, a recipe and a tiny checkpoint, and the command line in it."""

    def __init__(self, folder: Path, checkpoint: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capture = folder, capture
        rows = [f"{n},{('dull', 'warm')[n % 2]} film number {n} {n * 7919},{('bad', 'good')[n % 2]}" for n in range(60)]
        self.write("reviews.csv", "\n".join(["id,text,label", *rows, ""]))
        self.write("recipe.yaml", RECIPE)
        self.write("policy.yaml", "minimum_rows: 10\n")
        shutil.copytree(checkpoint, folder / "checkpoint")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def __call__(self, *arguments: str) -> tuple[int | str | None, str, str]:
        """Exit code, standard output, standard error."""
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        printed = self.capture.readouterr()
        return ended.value.code, printed.out, printed.err


@pytest.fixture
def graftwork(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[CommandLine]:
    """The command line in a small project; what it sets in this process is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRAFTWORK_HOME", str(tmp_path / ".graftwork"))
    (tmp_path / ".graftwork").mkdir()
    handler = signal.getsignal(signal.SIGTERM)
    yield CommandLine(tmp_path, tiny_checkpoint, capsys)
    signal.signal(signal.SIGTERM, handler)


def test_help_lists_every_command(graftwork):
    """`graftwork --help` names each command and what the exit codes mean, and nothing on the way is an error."""
    code, out, err = graftwork("--help")
    assert (code, err) == (0, "")
    assert all(f" {command} " in out for command in COMMANDS)
    assert "Exit codes" in out


def test_families_are_listed(graftwork):
    """For a person and for a script: every architecture, with what a recipe has to know of it."""
    code, out, _ = graftwork("families")
    assert code == 0
    code, listed, _ = graftwork("families", "--json")
    assert code == 0
    assert [family["architecture"] for family in json.loads(listed)] == list(FAMILIES)
    assert all(name in out for name in FAMILIES)


def test_an_export_goes_to_a_new_folder(graftwork):
    """One that is there is not written into, whatever the model."""
    code, out, err = graftwork("export", "nosuch", "reviews.csv", "-o", "checkpoint")
    assert (code, out) == (2, "")
    assert "checkpoint: it is there already (choose another with -o)" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_a_command(graftwork, command):
    """`graftwork COMMAND --help` says what it does and names each of its arguments."""
    code, out, err = graftwork(command, "--help")
    assert (code, err) == (0, "")
    assert f"graftwork {command}" in out
    assert [name for name in COMMANDS[command] if name not in out] == []


def no_recipe(cli: CommandLine) -> list[str]:
    return ["run", "nosuch.yaml"]


def unknown_key(cli: CommandLine) -> list[str]:
    cli.write("recipe.yaml", RECIPE.replace("stages:", "stagse:"))
    return ["run", "recipe.yaml"]


def unknown_override(cli: CommandLine) -> list[str]:
    return ["plan", "recipe.yaml", "--set", "train.sede=1"]


def unknown_option(cli: CommandLine) -> list[str]:
    return ["plan", "recipe.yaml", "--epochs", "3"]


def missing_argument(cli: CommandLine) -> list[str]:
    return ["promote", "reviews", "1"]


def no_such_command(cli: CommandLine) -> list[str]:
    return ["trian", "recipe.yaml"]


def label_outside(cli: CommandLine) -> list[str]:
    cli.write("reviews.csv", "id,text,label\n" + "".join(f"{n},a film {n} {n * 31},meh\n" for n in range(60)))
    return ["plan", "recipe.yaml"]


def nothing_landed(cli: CommandLine) -> list[str]:
    (cli.folder / "reviews.csv").unlink()
    return ["plan", "recipe.yaml"]


def unsupported_checkpoint(cli: CommandLine) -> list[str]:
    config = json.loads((cli.folder / "checkpoint/config.json").read_text())
    cli.write("checkpoint/config.json", json.dumps(config | {"auto_map": {"AutoModel": "modeling.Ours"}}))
    return ["plan", "recipe.yaml"]


def unfit_vectors(cli: CommandLine) -> list[str]:
    cli.write("vectors.txt", "2 2\na 1 2\nb 1 nan\n")
    return ["import-vectors", "vectors.txt", "-o", "vectors", "--licence", "mit"]


def no_size(cli: CommandLine) -> list[str]:
    return ["train-vectors", "recipe.yaml", "-o", "vectors", "--licence", "mit", "--size", "0"]


def no_such_version(cli: CommandLine) -> list[str]:
    return ["promote", "nosuch", "1", "--reason", "why not"]


def no_policy(cli: CommandLine) -> list[str]:
    (cli.folder / "policy.yaml").unlink()
    return ["plan", "recipe.yaml"]


def no_rows(cli: CommandLine) -> list[str]:
    return ["plan", "recipe.yaml", "--limit-rows", "0"]


# case: exit code, and what the message must hold for the person who has to act
MISTAKES: dict[Callable[[CommandLine], list[str]], tuple[int, list[str]]] = {
    no_recipe: (2, ["nosuch.yaml", "graftwork init"]),
    unknown_key: (2, ["recipe.yaml:8:1", "stagse", "stages"]),
    unknown_override: (2, ["--set train.sede", "seed"]),
    unknown_option: (2, ["--epochs", "graftwork --help"]),
    missing_argument: (2, ["--reason"]),
    no_such_command: (2, ["trian"]),
    label_outside: (3, ["reviews.csv", "label"]),
    nothing_landed: (3, ["reviews.csv"]),
    unsupported_checkpoint: (4, ["config.json", "auto_map"]),
    no_policy: (2, ["policy.yaml"]),
    no_rows: (2, ["--limit-rows"]),
    unfit_vectors: (4, ["vectors.txt: line 3: number 2 of its vector is nan"]),
    no_size: (2, ["--size"]),
    no_such_version: (6, ["nosuch"]),
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_ends_with_the_code_of_its_kind(graftwork, mistake):
    """A user's mistake: the exit code of its kind, what and where on standard error, no traceback, no output."""
    expected, words = MISTAKES[mistake]
    code, out, err = graftwork(*mistake(graftwork))
    assert (code, out) == (expected, ""), err
    assert [word for word in words if word not in err] == [], err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(graftwork):
    """With --debug, wherever it stands, the traceback comes before the same message and the same exit code."""
    code, _, err = graftwork("--debug", "run", "nosuch.yaml")
    assert (code, "Traceback" in err) == (2, True)
    assert err.endswith(graftwork("run", "nosuch.yaml")[2])


def test_a_bug_of_ours_says_so(graftwork, monkeypatch):
    """An error that is no user's mistake ends with 1, is called a bug, and says how to see more."""

    def broken(model):
        return 1 / 0

    monkeypatch.setattr("graftwork.api.history", broken)
    code, _, err = graftwork("history", "reviews")
    assert (code, "a bug of ours: ZeroDivisionError" in err, "--debug" in err) == (1, True, True)
    assert "Traceback" not in err


def test_ctrl_c_pauses(graftwork, monkeypatch):
    """Ctrl-C is no error: exit code 75, and the message says how to go on."""

    def interrupted(model):
        raise KeyboardInterrupt

    monkeypatch.setattr("graftwork.api.history", interrupted)
    code, _, err = graftwork("history", "reviews")
    assert (code, err) == (75, "paused: the same command goes on where it stopped\n")


@pytest.mark.parametrize(
    "arguments",
    [["plan", "recipe.yaml"], ["choose", "recipe.yaml"], ["lock", "recipe.yaml"], ["models"], ["history", "nosuch"]],
    ids=" ".join,
)
def test_json_is_one_document(graftwork, arguments):
    """With --json, standard output is one JSON document and nothing else."""
    code, out, err = graftwork(*arguments, "--json")
    assert code == 0, err
    json.loads(out)


def test_plan_tells_what_a_run_would_do(graftwork):
    """The plan counts the rows and names the stages with their parameters; for a person in a table, and as JSON."""
    _, table, _ = graftwork("plan", "recipe.yaml")
    planned = json.loads(graftwork("plan", "recipe.yaml", "--json")[1])
    counts = planned["manifest"]["counts"]
    assert counts["read"] == counts["kept"] + counts["quarantined"] + counts["duplicates"] == 60
    assert planned["is_stored"] == {"head": False, "bundle": False}
    (stage,) = planned["plan"]["stages"]
    assert f"{stage['trainable']:,} of {planned['plan']['parameters']:,}" in table
    assert "to be trained" in table


def test_plan_tells_the_options_of_a_stage(graftwork):
    """Those that are on, in words, and that augmentation computes nothing once."""
    options = "augment: {word_dropout: 0.1}, accumulate: 4, average: {ema: 0.99}, l2_sp: 0.01, schedule: one-cycle"
    _, table, _ = graftwork("plan", "recipe.yaml", "--set", f"stages={{preset: head-only, {options}}}")
    said = "stage head: word dropout 0.1, 4 batches a step, L2-SP 0.01, averaged weights (EMA 0.99), one-cycle rates"
    assert said in table
    assert "nothing: augmented" in table
    assert "stage head:" not in graftwork("plan", "recipe.yaml")[1]


def test_plan_tells_of_a_solved_head(graftwork):
    """That it has no rate, what it is computed on, and with which head the next stage begins."""
    solved = "{name: probe, train: head, solver: lbfgs}"
    top = "{name: top, train: [head, 'top:1'], epochs: 1, learning_rate: 1e-4, head_start: fresh}"
    _, table, _ = graftwork("plan", "recipe.yaml", "--set", f"stages=[{solved}, {top}]")
    assert "pooled vectors" in table and "solved" in table
    assert "stage top: a fresh head" in table


def test_plan_tells_of_adapters(graftwork):
    """Their kind, rank and number."""
    _, table, _ = graftwork("plan", "recipe.yaml", "--set", "stages={preset: lora, lora: {rank: 4, blocks: 'top:1'}}")
    assert "stage lora: LoRA of rank 4 beside 6 layers" in table


def test_choose_compares_checkpoints(graftwork):
    """A row for each, and why one is missing; as JSON, an object for each with all that a script would sort by."""
    shutil.copytree(graftwork.folder / "checkpoint", graftwork.folder / "twin")
    arguments = ["choose", "recipe.yaml", "--checkpoint", "file://twin", "--checkpoint", "file://nosuch"]
    code, table, err = graftwork(*arguments)
    assert (code, err) == (0, "")
    assert "not distinguishable" in table and "file://checkpoint" in table and "apache-2.0" in table
    assert "–  file://nosuch: there is no such folder" in table
    found = json.loads(graftwork(*arguments, "--json")[1])
    Draft202012Validator(CHOICE_SCHEMA).validate(found)
    assert [each["source"] for each in found["candidates"]] == ["file://checkpoint", "file://twin"]


def test_vectors_are_made_for_a_recipe(graftwork):
    """Trained on its rows, or taken from a file, they are a checkpoint that it can be planned with."""
    graftwork.write("others.txt", "a 1 2\nfilm 3 4\n")
    made = [
        "train-vectors",
        "recipe.yaml",
        "-o",
        "ours",
        "--licence",
        "apache-2.0",
        "--size",
        "2",
        "--minimum-count",
        "1",
    ]
    taken = ["import-vectors", "others.txt", "-o", "theirs", "--licence", "apache-2.0", "--most", "1"]
    for command, folder, words in ((made, "ours", None), (taken, "theirs", 3)):
        code, out, err = graftwork(*command, "--json")
        assert code == 0, err
        told = json.loads(out)
        assert told["source"] == f"file://{folder}"
        assert words in (None, told["words"])
        changes = [f"checkpoint.source=file://{folder}", f"name={folder}"]
        (graftwork.folder / "recipe.lock.json").unlink(missing_ok=True)
        code, out, err = graftwork("plan", "recipe.yaml", *(f"--set={change}" for change in changes), "--json")
        assert code == 0, err
        assert json.loads(out)["checkpoint"]["architecture"] == "word-vectors"


@pytest.mark.e2e
def test_a_probe_tells_what_a_run_will_take(graftwork):
    """Time and memory of each stage, for a person and as JSON; without it, there is no estimate."""
    assert json.loads(graftwork("plan", "recipe.yaml", "--json")[1])["estimate"] is None
    code, out, err = graftwork("plan", "recipe.yaml", "--probe", "--json")
    estimate = json.loads(out)["estimate"]
    assert (code, estimate["fits"], estimate["proposal"]) == (0, True, None), err
    (stage,) = estimate["stages"]
    assert stage["stage"] == "head" and stage["seconds"] > 0
    assert 0 < stage["peak_bytes"] < estimate["free_bytes"]


@pytest.mark.e2e
def test_a_probe_that_is_killed_for_want_of_memory_says_so(graftwork, monkeypatch):
    """As the system kills it: no traceback, no error, but the word that it does not fit."""
    monkeypatch.setenv("GRAFTWORK_FAULT", "probe.step:1")
    code, out, err = graftwork("plan", "recipe.yaml", "--probe", "--set", "train.batch_tokens=16")
    assert (code, err) == (0, "")
    assert "it does not fit: it ran out of memory" in out and "nothing smaller that was tried" in out


def test_schema_knows_what_a_recipe_needs(graftwork):
    """The schema is a JSON schema whose required keys are those that a recipe can't do without."""
    schema = json.loads(graftwork("schema")[1])
    assert {"name", "data", "checkpoint", "stages"} <= set(schema["required"]) <= set(schema["properties"])


def test_stages_can_be_pasted_into_a_recipe(graftwork):
    """What `stages` prints for a preset, put in its place, is the same plan."""
    preset = json.loads(graftwork("plan", "recipe.yaml", "--json")[1])
    graftwork.write("recipe.yaml", RECIPE.replace("stages: head-only\n", graftwork("stages", "recipe.yaml")[1]))
    assert json.loads(graftwork("plan", "recipe.yaml", "--json")[1]) == preset


def test_a_reason_may_hold_any_letter(graftwork, monkeypatch):
    """Square brackets are no markup: a ledger can't be mended afterwards."""
    entry = follow((), "reviews", "champion", Nomination(1, "b", "r", "m", "by hand", "see [/wip] [bold]"), "ann")
    monkeypatch.setattr("graftwork.api.history", lambda model: (entry,))
    code, out, err = graftwork("history", "reviews")
    assert (code, "[/wip] [bold]" in " ".join(out.split())) == (0, True), err


def test_models_are_told_to_scripts_as_records(graftwork, monkeypatch):
    """A version is an object, not the text of one."""
    version = ModelVersion("reviews", 3, "b", "k", "i", "r", "2026-01-01")
    monkeypatch.setattr("graftwork.api.models", lambda model: [ListedVersion(version, ("champion",), {}, {})])
    assert json.loads(graftwork("models", "--json")[1])[0]["version"]["version"] == 3
