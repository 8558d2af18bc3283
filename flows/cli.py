"""The command line. Commands check their arguments, call one function, and print what it gives.

Everything heavy is imported when a command runs, so that `--help` answers at once.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Group, Parameter

from graftwork.errors import AuditError, GraftworkError, Paused, RecipeError, raise_if

if TYPE_CHECKING:
    from graftwork.promotion.approval import Outcome
    from graftwork.settings import Settings

HELP = """Fine-tuning pipelines that a team can leave alone.

A recipe (one YAML file) names data, a pretrained checkpoint, and the stages of training. Start with
`graftwork init`, look with `graftwork plan`, then `graftwork run`; run it again whenever data has landed.
Any command takes `--debug`, which shows the traceback behind an error.

Exit codes: 0 done (whatever the verdict), 1 our bug, 2 recipe or usage, 3 data, 4 checkpoint, 5 training,
6 registry or promotion refused, 7 a service is away, 8 audit or doctor found something, 75 paused: run again to go on.
"""

MAKE, RUN, USE, GOVERN = (
    Group(name, sort_key=index)
    for index, name in enumerate(("Make a model", "Leave it alone", "Use it", "Answer for it"))
)

app = App(
    name="graftwork",
    help=HELP,
    help_format="markdown",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # it has an exit code of its own, 75
)

Json = Annotated[bool, Parameter("--json", negative="", help="Print one JSON document instead of a table.")]
Set = Annotated[
    tuple[str, ...],
    Parameter("--set", negative="", help="KEY=VALUE in the recipe for this run, as in --set stages.0.epochs=1."),
]
LimitRows = Annotated[
    int | None,
    Parameter("--limit-rows", help="A quick try on this many rows; it neither registers nor promotes."),
]
Probe = Annotated[
    bool,
    Parameter(
        "--probe",
        negative="",
        help="Measure a few steps of each stage, too: how long the run will take and how much memory, and what fits.",
    ),
]
Restart = Annotated[
    bool,
    Parameter("--restart", negative="", help="Begin a stage that was left in its middle again, from its first step."),
]
AcceptDrift = Annotated[
    tuple[str, ...],
    Parameter(
        "--accept-drift",
        negative="",
        help="Go on although this field of the environment has changed; recorded on the model version.",
    ),
]
Served = Annotated[str, Parameter(help="MODEL@ALIAS or MODEL/VERSION; MODEL alone means its champion.")]
NewFolder = Annotated[Path, Parameter(("--output", "-o"), help="A folder that is not there yet.")]
Reason = Annotated[str, Parameter("--reason", help="Why, in a sentence: it goes into the ledger with your name.")]


@Parameter(name="*")
@dataclass(frozen=True)
class SignedWord:
    """Who decides on a request for approval, why, and by which key."""

    reason: Reason
    approver: Annotated[str, Parameter("--approver", help="Who decides: a name among the policy's approvers.")]
    key: Annotated[
        Path, Parameter("--key", help="The approver's OpenSSH private key, Ed25519, such as ~/.ssh/id_ed25519.")
    ]
    request: Annotated[
        str | None,
        Parameter(
            "--request", help="Sign this request and print the decision, for the form `decide`; nothing is reached."
        ),
    ] = None


@app.command(group=MAKE)
def init(
    *,
    data: Annotated[
        Path,
        Parameter(help="A CSV, TSV, JSONL or Parquet file with a header, or a folder of pictures or sounds by class."),
    ],
    checkpoint: Annotated[str, Parameter(help="pkg://…, file://… or hf://owner/name@COMMIT.")],
    text: Annotated[str | None, Parameter(help="The column with the text; by default that of most words.")] = None,
    label: Annotated[str | None, Parameter(help="The column with the label; by default the one that looks so.")] = None,
    threshold: Annotated[float | None, Parameter(help="For a numeric label: the second class is above it.")] = None,
    text_pair: Annotated[str | None, Parameter(help="A second column, for pairs of texts.")] = None,
    name: Annotated[str | None, Parameter(help="The registered model's name; by default the file's.")] = None,
    output: Annotated[Path, Parameter(("--output", "-o"), help="Where to write; not overwritten.")] = Path(
        "recipe.yaml"
    ),
    json: Json = False,
) -> None:
    """Look at a data file or a folder and write a commented recipe for it, with a policy beside it."""
    from graftwork import api

    written = api.init(data, text, label, checkpoint, output, threshold=threshold, name=name, text_pair=text_pair)
    lines = [*(f"wrote {path}" for path in written), f"next: graftwork plan {output}"]
    _print(json, {"written": [str(path) for path in written]}, *lines)


@app.command(group=MAKE)
def choose(
    recipe: Path,
    *,
    checkpoint: Annotated[
        tuple[str, ...],
        Parameter(
            "--checkpoint",
            negative="",
            help="Another candidate: pkg://…, file://… or hf://owner/name@COMMIT; may be given several times.",
        ),
    ] = (),
    set_: Set = (),
    limit_rows: LimitRows = None,
    json: Json = False,
) -> None:
    """Compare checkpoints on the recipe's data in minutes, before one of them is fine-tuned.

    The recipe's own and each --checkpoint is used as it comes: logistic regression on its frozen features, fitted on
    the training rows and judged on the validation rows. The holdout is not looked at. Beside the accuracy stands what
    the checkpoint costs, and whether the first in the table is better by more than chance.
    """
    from flows import console
    from graftwork import api

    with _project(recipe), console.progress("features") as on_progress:
        found = api.choose(recipe, checkpoint, set_, limit_rows, on_progress=on_progress)
    _print(json, found.as_json(), *console.choice_lines(found))


@app.command(group=MAKE)
def families(*, json: Json = False) -> None:
    """List the architectures that can be trained: what they are known as, how they are cut, pooled and adapted."""
    from flows import console
    from graftwork import api

    found = api.families()
    _print(json, [asdict(family) for family in found], console.families_table(found))


@app.command(group=MAKE)
def convert(
    file: Annotated[Path, Parameter(help="A .pth file: what torch.save(model.state_dict(), FILE) wrote.")],
    *,
    architecture: Annotated[
        str, Parameter(help="As torchvision calls it: alexnet, or vgg11, vgg13, vgg16 or vgg19, each also with _bn.")
    ],
    licence: Annotated[str, Parameter(help="Of the weights, for instance bsd-3-clause: you answer for it.")],
    output: NewFolder,
    json: Json = False,
) -> None:
    """Write weights of VGG or AlexNet as a checkpoint that a recipe can start from: source: file://FOLDER.

    A .pth file is a pickle, which may run code when it is loaded. It is read in a process of its own, by torch's
    unpickler for tensors alone, and refused if it asks for anything else. The layer that tells its own classes stays
    behind; only safetensors and configuration are written, and the folder is kept only if it loads as the model.
    """
    from graftwork import api

    done = api.convert(file, architecture, licence, output)
    left_out = f", without {', '.join(done.left_out)}" if done.left_out else ""
    _print(json, done.as_json(), f"{architecture}, {done.parameters:,} parameters{left_out} -> {output}")


@app.command(group=MAKE)
def train_vectors(
    source: Annotated[
        Path, Parameter(help="A recipe (.yaml), or a CSV, TSV, JSONL or Parquet file with a column that --text names.")
    ],
    *,
    licence: Annotated[str, Parameter(help="Of the vectors, for instance mit: you answer for it.")],
    output: NewFolder,
    text: Annotated[str | None, Parameter(help="The column with the texts; a recipe says it itself.")] = None,
    size: Annotated[int, Parameter(help="Numbers of a vector.")] = 100,
    window: Annotated[int, Parameter(help="Words on either side of a word that are looked at.")] = 5,
    epochs: Annotated[int, Parameter(help="How often the texts are gone through; few texts want many.")] = 5,
    minimum_count: Annotated[int, Parameter(help="Words that are rarer are unknown words.")] = 2,
    seed: int = 1,
    kind: Annotated[
        Literal["skip-gram", "cbow"],
        Parameter(help="Tell the words around from a word (better on few texts), or it from them (quicker)."),
    ] = "skip-gram",
    case: Annotated[Literal["lower", "keep"], Parameter(help="Whether Film is another word than film.")] = "lower",
    json: Json = False,
) -> None:
    """Train Word2Vec on your texts, as a checkpoint that a recipe can start from: source: file://FOLDER.

    Of a recipe's data the training rows are taken and no others, so that nothing it is judged on has shaped the
    vectors; labels are not looked at. Of a table all rows are taken: let it hold none of a recipe's holdout. The same
    texts and options give the same vectors. Needs `pip install 'graftwork[vectors]'`.

    graftwork train-vectors recipe.yaml -o vectors --licence mit --epochs 20
    """
    from flows import console
    from graftwork import api
    from graftwork.models.word_vectors import VectorTraining

    training = VectorTraining(size, window, epochs, minimum_count, seed, kind)
    with _home_of(source), console.progress("texts") as on_progress:
        done = api.train_vectors(source, output, licence, training, text=text, case=case, on_progress=on_progress)
    _print(json, done.as_json(), f"{done.words:,} words of {done.texts:,} texts, {done.size} numbers each -> {output}")


@app.command(group=MAKE)
def import_vectors(
    file: Annotated[Path, Parameter(help="word2vec's format, text or binary, or GloVe's text; it may be gzipped.")],
    *,
    licence: Annotated[str, Parameter(help="Under which the vectors came, for instance pddl: you answer for it.")],
    output: NewFolder,
    most: Annotated[
        int | None,
        Parameter(help="Keep so many words, from the first on: files are sorted by how frequent words are."),
    ] = None,
    case: Annotated[
        Literal["auto", "lower", "keep"],
        Parameter(help="Whether texts are put into lower case; auto: if the words of the file are."),
    ] = "auto",
    json: Json = False,
) -> None:
    """Make word vectors that others trained a checkpoint that a recipe can start from: source: file://FOLDER.

    The file is read word by word, and refused by line if it is not whole and sound; gensim's own format is a pickle,
    and is not read. Words that the vectors lack share the mean of all, or the vector of `<unk>` where there is one.

    graftwork import-vectors glove.6B.100d.txt -o glove --licence pddl --most 50000
    """
    from flows import console
    from graftwork import api

    with console.progress("bytes") as on_progress:
        done = api.import_vectors(file, output, licence, most=most, case=case, on_progress=on_progress)
    told = "texts in lower case" if done.is_lowered else "texts as they are"
    _print(json, done.as_json(), f"{done.words:,} words, {done.size} numbers each, {told} -> {output}")


@app.command(group=MAKE)
def plan(
    recipe: Path, *, set_: Set = (), limit_rows: LimitRows = None, probe: Probe = False, json: Json = False
) -> None:
    """Show what a run would do, and what of it is there already; nothing is trained.

    The data is validated and the checkpoint verified, as the run would. With --probe, a process like the one that
    trains does a little of each stage and forgets it. If the recipe does not fit into the memory that is free, smaller
    ones are tried until one does; it is printed as what to say after --set. The run prints what it took beside it.
    """
    from flows import console
    from graftwork import api

    with _project(recipe) as settings, console.progress("probed stages") as on_progress:
        facts = api.plan(recipe, set_, limit_rows, probe=probe, on_progress=on_progress)
    _print(json, facts.as_json(), *console.plan_lines(facts, settings))


@app.command(group=MAKE)
def run(
    recipe: Path,
    *,
    set_: Set = (),
    limit_rows: LimitRows = None,
    restart: Restart = False,
    accept_drift: AcceptDrift = (),
    json: Json = False,
) -> None:
    """Validate, train, evaluate, judge, register and promote: the whole flow; what is unchanged is not done again.

    It runs on embedded defaults below .graftwork, or on the servers that PREFECT_API_URL and MLFLOW_TRACKING_URI name.
    Stop it with Ctrl-C, or kill it: the same command goes on at the exact step. If libraries, code or machine have
    changed since, it says what, and waits for --restart or --accept-drift. Other data or settings are another run.
    """
    from flows import console, embedded

    with _project(recipe) as settings:
        summary = embedded.run(settings, recipe, set_, limit_rows, restart, accept_drift)
    _print(json, summary.as_json(), *console.run_lines(summary, settings))


@app.command(group=MAKE)
def lock(recipe: Path, *, json: Json = False) -> None:
    """Pin the recipe's checkpoint: resolve its revision, verify each file, write the lockfile beside the recipe."""
    from graftwork import api

    with _project(recipe):
        written, reference = api.lock(recipe)
    _print(json, {"lockfile": str(written), "source": reference}, f"locked {reference} in {written}")


@app.command(group=MAKE)
def stages(recipe: Path, *, set_: Set = ()) -> None:
    """Print the recipe's stages as they will be run, presets expanded, ready to be pasted into a recipe."""
    from graftwork.recipe import load_recipe, stages_as_yaml

    sys.stdout.write(stages_as_yaml(load_recipe(recipe, set_).stages))


@app.command(group=MAKE)
def schema() -> None:
    """Print the JSON schema of recipes, for your editor."""
    from graftwork.recipe import recipe_schema

    sys.stdout.write(json.dumps(recipe_schema(), indent=1) + "\n")


@app.command(group=RUN)
def up(
    *,
    prefect_port: Annotated[int, Parameter(help="Where the Prefect server and its pages listen.")] = 4200,
    mlflow_port: Annotated[int, Parameter(help="Where the MLflow server and its pages listen.")] = 5000,
    postgres: Annotated[
        str | None,
        Parameter(help="A PostgreSQL server, postgresql://USER@HOST, for all databases; by default they are files."),
    ] = None,
) -> None:
    """Run a Prefect server, an MLflow server and workers on this machine, until Ctrl-C.

    Everything is kept below .graftwork, and what all of them say in up.log there. What ends is started again. When all
    is up, it prints what other terminals have to be told.
    """
    from flows.postgres import databases_on
    from flows.stack import Ports, running
    from graftwork.settings import Settings, find_home, use_home

    use_home(find_home(Path.cwd()).parent)
    ports = Ports(prefect_port, mlflow_port)
    databases = {} if postgres is None else databases_on(postgres)
    told = {name: url.render_as_string(hide_password=False) for name, url in databases.items()}
    with running(Settings.read(), ports, told, show=_say) as stack:
        _say("up; in other terminals:")
        _say(f"  export PREFECT_API_URL={ports.prefect_api} MLFLOW_TRACKING_URI={ports.mlflow_uri}")
        if databases:
            _say(f"  export GRAFTWORK_DB='{databases['GRAFTWORK_DB']}'")  # a password in it is shown as ***
        stack.look_after()


@app.command(group=RUN)
def deploy(*recipes: Path, json: Json = False) -> None:
    """Deploy recipes on the Prefect server: their runs, the watch over what lands for them, the audit, and automations.

    Deploying again brings everything up to date. Workers of the pool `cpu` then run them: see docs/server.md.
    """
    if not recipes:
        raise RecipeError("name at least one recipe")
    with _project(recipes[0]) as settings, _prefect(settings):
        from flows.deploy import deploy

        done = deploy(recipes)
    lines = [*(f"deployed {name}" for name in done.deployments), *(f"automation {name}" for name in done.automations)]
    _print(json, asdict(done), *lines)


@app.command(group=RUN)
def doctor(*, json: Json = False) -> None:
    """Look for what is wrong with this machine's set-up, and with the Prefect server's if the settings name one.

    Libraries, folders, database, registry; the server's version, clock, settings and schedules, workers in each pool,
    automations. Exit code 8 if there is anything that will not work.
    """
    from graftwork.health import examine
    from graftwork.settings import Settings

    settings = Settings.read()
    found = list(examine(settings))
    if not settings.is_prefect_embedded:
        with _prefect(settings):
            from flows.doctor import examine_server

            found += examine_server()
    bad = [each.problem for each in found if each.state == "bad"]
    if json or not bad:
        from flows.console import findings_table

        _print(json, [asdict(each) for each in found], findings_table(found))
    raise_if(bad, AuditError)


@app.command(group=RUN)
def prune(
    *,
    keep: Annotated[str, Parameter(help="What was touched since is kept: 12h, 30d.")] = "30d",
    remove: Annotated[bool, Parameter(negative="", help="Remove it; without this it is only listed.")] = False,
    json: Json = False,
) -> None:
    """List what of the store nothing needs any more, or remove it.

    Needed is what registered models, unfinished and recent runs, and the next data of a recipe go on from. Verdicts,
    evaluations, reports and decisions are evidence, and stay.
    """
    from flows import console
    from graftwork import api
    from graftwork.fields import duration_of

    found = api.prune(duration_of(keep, "--keep"), is_dry=not remove)
    _print(json, [vars(each) for each in found], console.leftovers_table(found, is_removed=remove))


@app.command(group=RUN)
def land(
    file: Path,
    *,
    recipe: Annotated[Path, Parameter(help="The recipe whose data it is.")],
    source: Annotated[str | None, Parameter(help="Which of its sources, if several are landing folders.")] = None,
    json: Json = False,
) -> None:
    """Hand a file in: copy it into the recipe's landing folder, whole or not at all, and say so on the Prefect server.

    A file that is dropped into the folder is found, too, after the recipe's quiet time; one that is handed in is looked
    at without waiting. Without a server the next `graftwork run` takes it.
    """
    from graftwork import api

    with _project(recipe) as settings:
        done = api.land(recipe, file, source)
        if not settings.is_prefect_embedded:
            with _prefect(settings):
                from tasks.events import tell_landed

                tell_landed(done)
    what = "has landed before" if done.was_there else "landed"
    _print(json, asdict(done), f"{done.place} {what}, for source {done.source} of {done.model}")


@app.command(group=USE)
def predict(
    model: Served,
    data: Annotated[
        Path,
        Parameter(
            help="A CSV, TSV, JSONL or Parquet file with the model's columns; or a folder of pictures or sounds."
        ),
    ],
    *,
    output: Annotated[Path, Parameter(("--output", "-o"), help="A .csv, .tsv, .jsonl or .parquet file; replaced.")],
    prefix: Annotated[str, Parameter(help="Put before the new columns where the data has such names already.")] = "",
    precision: Annotated[
        Literal["float32", "bfloat16", "auto"],
        Parameter(help="float32 is what the model was judged in; auto: bfloat16 where the processor multiplies it."),
    ] = "float32",
    json: Json = False,
) -> None:
    """Predict every row of a file: its columns, the label, and a probability for each class."""
    from flows import console
    from graftwork import api

    with console.progress("predicted rows") as on_progress:
        done = api.predict(model, data, output, prefix=prefix, precision=precision, on_progress=on_progress)
    _print(json, done.as_json(), f"{done.rows:,} rows -> {output} with version {done.version} of {done.model}")


@app.command(group=USE)
def export(
    model: Served,
    data: Annotated[Path, Parameter(help="A file as for predict: on its first rows the graph is compared.")],
    *,
    output: NewFolder,
    json: Json = False,
) -> None:
    """Write a model for runtimes without torch: an ONNX graph, the tokenizer, and the names of the classes.

    The graph takes batches of any size and length, and gives probabilities. It is kept only if it gives what the model
    gives. Needs `pip install 'graftwork[export]'`.
    """
    from graftwork import api

    done = api.export(model, data, output)
    said = f"version {done.version} of {done.model} -> {output}; probabilities differ by {done.difference:.1e} at most"
    _print(json, done.as_json(), said)


@app.command(group=USE)
def extract(
    model: Served,
    *,
    licence: Annotated[str, Parameter(help="Of the new checkpoint, for instance apache-2.0: you answer for it.")],
    output: NewFolder,
    json: Json = False,
) -> None:
    """Write the body of a model as a checkpoint that another recipe can start from: source: file://FOLDER.

    What was learnt on one task, or from texts alone, goes on in another; the head stays behind. Only safetensors and
    configuration are written, and the folder is kept only if it loads as the same body.
    """
    from graftwork import api

    done = api.extract(model, licence, output)
    said = f"version {done.version} of {done.model}, {done.parameters:,} parameters -> {output}"
    _print(json, done.as_json(), said)


@app.command(group=USE)
def generate(
    recipe: Path,
    *,
    stage: Annotated[str, Parameter(help="The stage that learnt what comes next (objective: autoregressive).")],
    output: Annotated[Path, Parameter(("--output", "-o"), help="A new WAV file.")],
    seconds: Annotated[float, Parameter(help="How long it is.")] = 1.0,
    seed: Annotated[int, Parameter(help="The same seed writes the same file.")] = 0,
    temperature: Annotated[
        float, Parameter(help="0: the likeliest sample always; 1: each as often as expected.")
    ] = 1.0,
    set_: Set = (),
    json: Json = False,
) -> None:
    """Listen to what a stage learnt: write sound that a WaveNet makes sample by sample."""
    from graftwork import api

    samples = api.generate(recipe, stage, output, seconds, seed, temperature, set_)
    _print(json, {"output": str(output), "samples": samples}, f"{samples:,} samples -> {output}")


@app.command(group=USE)
def retrieval(
    recipe: Path,
    data: Path,
    *,
    stage: Annotated[str, Parameter(help="One that learnt from captions (objective: contrastive-image-text).")],
    image: Annotated[str, Parameter(help="The column with a picture's path.")] = "file",
    caption: Annotated[str, Parameter(help="The column with its caption.")] = "caption",
    group: Annotated[str | None, Parameter(help="The column whose rows belong together.")] = None,
    set_: Set = (),
    json: Json = False,
) -> None:
    """Find the captions of pictures, and pictures of captions, among held-out pairs: before training and after."""
    from graftwork import api
    from graftwork.retrieval import tell_figures

    found = api.retrieval(recipe, stage, data, image=image, caption=caption, group=group, overrides=set_)
    _print(json, found.as_json(), tell_figures(found))


@app.command(group=USE)
def models(model: str | None = None, *, json: Json = False) -> None:
    """List registered models and their versions: aliases, metrics, verdict, date."""
    from flows import console
    from graftwork import api

    found = api.models(model)
    _print(json, [asdict(version) for version in found], console.models_table(found, model))


@app.command(group=GOVERN)
def history(model: str, *, json: Json = False) -> None:
    """Show the ledger of a model: every promotion and rollback, by whom and why."""
    from flows import console
    from graftwork import api

    entries = api.history(model)
    _print(json, [vars(entry) for entry in entries], console.history_table(entries))


@app.command(group=GOVERN)
def audit(*, json: Json = False) -> None:
    """Look for what is not as the ledger says; nothing is changed.

    Found are entries that were altered, taken out or cut off, aliases that were moved by hand, and champions that were
    deleted from the registry or are another bundle there. Exit code 8 if there is anything.
    """
    from graftwork import api

    done = api.audit()
    if json or not done.problems:
        _print(json, asdict(done), f"all is as the ledger says: {done.entries} entries, {len(done.models)} models")
    raise_if(done.problems, AuditError)


@app.command(group=GOVERN)
def approvals(model: str, *, json: Json = False) -> None:
    """List what waits, or waited, for a person's approval: version, evidence, who may decide and until when."""
    from flows import console
    from graftwork import api

    found = api.approvals(model)
    _print(json, [asdict(each) | {"state": each.state} for each in found], console.approvals_table(found))


@app.command(group=GOVERN)
def approve(model: str, version: int, *, word: SignedWord, json: Json = False) -> None:
    """Let a version serve that waits for an approval; the ledger keeps your signed word for it."""
    _decide("approve", model, version, word, json)


@app.command(group=GOVERN)
def reject(model: str, version: int, *, word: SignedWord, json: Json = False) -> None:
    """Keep a version from serving that waits for an approval; it stays challenger."""
    _decide("reject", model, version, word, json)


@app.command(group=GOVERN)
def adopt(
    model: Annotated[str, Parameter(help="MODEL@ALIAS or MODEL/VERSION, as it is registered in MLflow.")],
    *,
    recipe: Annotated[Path, Parameter(help="The recipe whose candidates will be judged against it.")],
    reason: Reason,
    json: Json = False,
) -> None:
    """Begin with what you have: make a model that others registered the first champion of a recipe's model.

    Any pyfunc will do that reads the recipe's text columns and gives a column p_<class> for each class; it is tried on
    a few rows. Its code runs in a process of its own, by the Python that GRAFTWORK_ADOPTED_PYTHON names: adopt what you
    trust. It serves under the recipe's name as it did under its own.
    """
    from graftwork import api

    with _project(recipe):
        entry = api.adopt(recipe, model, reason)
    _print(json, vars(entry), f"{entry.model}: {model} is the champion, as version {entry.to_version}")


@app.command(group=GOVERN)
def promote(model: str, version: int, *, reason: Reason, json: Json = False) -> None:
    """Make a version the champion by hand; the ledger records who and why.

    Where the model's policy wants an approval, one is asked for, and the version is challenger until it is given.
    """
    from graftwork import api

    entry = api.promote(model, version, reason)
    done = "is the champion" if entry.alias == "champion" else "waits for an approval: `graftwork approve`"
    _print(json, vars(entry), f"{model}: version {entry.to_version} {done}")


@app.command(group=GOVERN)
def rollback(model: str, *, reason: Reason, json: Json = False) -> None:
    """Go back to the champion before this one; what is left can't be promoted automatically again."""
    from graftwork import api

    entry = api.rollback(model, reason)
    _print(json, vars(entry), f"{model}: back to version {entry.to_version}")


def _decide(outcome: "Outcome", model: str, version: int, word: SignedWord, as_json: bool) -> None:
    """Sign, and carry out; where the request is named, sign only, for whoever can't reach the servers."""
    from getpass import getpass

    from graftwork import api
    from graftwork.fingerprint import to_json

    wanted = word.request or api.newest_request(model, version)
    ask = partial(getpass, f"Passphrase of {word.key}: ")
    decision = api.sign(wanted, outcome, word.approver, word.reason, word.key, ask)
    if word.request is not None:
        sys.stdout.write(to_json(decision))
        return
    entry = api.carry_out(model, decision)
    done = f"{model}: version {version} " + ("is the champion" if entry else "was rejected, and stays challenger")
    _print(as_json, {"decision": asdict(decision), "entry": entry and vars(entry)}, done)


@contextmanager
def _project(recipe: Path) -> Iterator["Settings"]:
    """The settings of the recipe's project, and this process ready to compute; RecipeError if there is no such file."""
    from graftwork.recipe import find_root
    from graftwork.settings import PATIENT_THREADS, Settings, use_home

    os.environ.update(PATIENT_THREADS | os.environ)
    if not recipe.is_file():
        raise RecipeError(f"{recipe}: no such recipe; `graftwork init` writes one")
    use_home(find_root(recipe))
    yield Settings.read()


@contextmanager
def _home_of(source: Path) -> Iterator[None]:
    """The workspace of the project that the recipe belongs to, where it is one."""
    from graftwork.vectors import RECIPES

    with _project(source) if source.suffix in RECIPES else nullcontext():
        yield


@contextmanager
def _prefect(settings: "Settings") -> Iterator[None]:
    """The Prefect server that the settings name, once it answers; RecipeError if they name none."""
    from flows.server import prefect_api, wait_until_ready

    if settings.is_prefect_embedded:
        raise RecipeError("PREFECT_API_URL: not set, and this needs a Prefect server: see docs/server.md")
    with prefect_api(settings):
        wait_until_ready()
        yield


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _print(as_json: bool, facts: Any, *lines: Any) -> None:
    """The facts as JSON on standard output, or the lines and tables for a person."""
    if as_json:
        sys.stdout.write(json.dumps(facts, indent=1, ensure_ascii=False, default=str) + "\n")
        return
    from flows.console import show

    show(*lines)


def main(arguments: list[str] | None = None) -> None:
    """The console script: runs a command and exits with the code of its kind."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(_exit_code([argument for argument in given if argument != "--debug"], debug))


def _exit_code(arguments: list[str], debug: bool) -> int:
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _complain(f"{error}\nTry graftwork --help.", RecipeError.exit_code, debug)
    except GraftworkError as error:
        return _complain(f"{type(error).__name__}: {error}", error.exit_code, debug)
    except KeyboardInterrupt:
        return _complain("paused: the same command goes on where it stopped", Paused.exit_code, debug)
    except Exception as error:  # noqa: BLE001 - the last place where a bug of ours can be told from a user's mistake
        told = f"{type(error).__name__}: {error}"
        return _complain(f"a bug of ours: {told}\nRun again with --debug for the traceback.", 1, debug)
    return 0


def _complain(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    sys.stderr.write(message.rstrip() + "\n")
    return code
