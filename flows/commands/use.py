"""Using models: predictions, other forms, what they know."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from flows.commands.shared import Json, NewFolder, Served, Set, tell

if TYPE_CHECKING:
    pass


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
    tell(json, done.as_json(), f"{done.rows:,} rows -> {output} with version {done.version} of {done.model}")


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
    tell(json, done.as_json(), said)


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
    tell(json, done.as_json(), said)


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
    tell(json, {"output": str(output), "samples": samples}, f"{samples:,} samples -> {output}")


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
    tell(json, found.as_json(), tell_figures(found))


def models(model: str | None = None, *, json: Json = False) -> None:
    """List registered models and their versions: aliases, metrics, verdict, date."""
    from flows import console
    from graftwork import api

    found = api.models(model)
    tell(json, [asdict(version) for version in found], console.models_table(found, model))
