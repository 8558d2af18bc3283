"""Making a model: recipes, checkpoints, plans, runs."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from flows.commands.shared import (
    AcceptDrift,
    Json,
    LimitRows,
    NewFolder,
    Probe,
    Restart,
    Set,
    home_of,
    project_of,
    tell,
)

if TYPE_CHECKING:
    pass


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
    tell(json, {"written": [str(path) for path in written]}, *lines)


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

    with project_of(recipe), console.progress("features") as on_progress:
        found = api.choose(recipe, checkpoint, set_, limit_rows, on_progress=on_progress)
    tell(json, found.as_json(), *console.choice_lines(found))


def families(*, json: Json = False) -> None:
    """List the architectures that can be trained: what they are known as, how they are cut, pooled and adapted."""
    from flows import console
    from graftwork import api

    found = api.families()
    tell(json, [asdict(family) for family in found], console.families_table(found))


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
    tell(json, done.as_json(), f"{architecture}, {done.parameters:,} parameters{left_out} -> {output}")


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
    with home_of(source), console.progress("texts") as on_progress:
        done = api.train_vectors(source, output, licence, training, text=text, case=case, on_progress=on_progress)
    tell(json, done.as_json(), f"{done.words:,} words of {done.texts:,} texts, {done.size} numbers each -> {output}")


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
    tell(json, done.as_json(), f"{done.words:,} words, {done.size} numbers each, {told} -> {output}")


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

    with project_of(recipe) as settings, console.progress("probed stages") as on_progress:
        facts = api.plan(recipe, set_, limit_rows, probe=probe, on_progress=on_progress)
    tell(json, facts.as_json(), *console.plan_lines(facts, settings))


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

    with project_of(recipe) as settings:
        summary = embedded.run(settings, recipe, set_, limit_rows, restart, accept_drift)
    tell(json, summary.as_json(), *console.run_lines(summary, settings))


def lock(recipe: Path, *, json: Json = False) -> None:
    """Pin the recipe's checkpoint: resolve its revision, verify each file, write the lockfile beside the recipe."""
    from graftwork import api

    with project_of(recipe):
        written, reference = api.lock(recipe)
    tell(json, {"lockfile": str(written), "source": reference}, f"locked {reference} in {written}")


def stages(recipe: Path, *, set_: Set = ()) -> None:
    """Print the recipe's stages as they will be run, presets expanded, ready to be pasted into a recipe."""
    from graftwork.recipe import load_recipe, stages_as_yaml

    sys.stdout.write(stages_as_yaml(load_recipe(recipe, set_).stages))


def schema() -> None:
    """Print the JSON schema of recipes, for your editor."""
    from graftwork.recipe import recipe_schema

    sys.stdout.write(json.dumps(recipe_schema(), indent=1) + "\n")
