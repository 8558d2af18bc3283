"""How well the towers that a stage of pairs left find what belongs together, beside those of the checkpoint."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork.errors import DataError, Problem, RecipeError, TrainingError, raise_if
from graftwork.evaluation.metrics import Interval
from graftwork.recipe import Recipe
from graftwork.workspace import Workspace

if TYPE_CHECKING:
    from graftwork.data.media import NamedFile
    from graftwork.training.plan import TrainingPlan

SEED = 0
LEAST = 2  # pictures, and captions, that can be told apart
CHECKPOINT, CANDIDATE, GAIN = "checkpoint", "candidate", "gain"
OF_PICTURES, OF_CAPTIONS = "captions of a picture", "pictures of a caption"


@dataclass(frozen=True)
class Retrieval:
    """What was found among held-out pairs.

    pairs, pictures, captions: that were asked for. known: pairs that were left out, since the run has learnt from their
    picture. figures: by model (`checkpoint`, `candidate`, and `gain`: what the latter has more, pair by pair), then by
    what is looked for, then by name.
    """

    stage: str
    pairs: int
    pictures: int
    captions: int
    known: int
    figures: dict[str, dict[str, dict[str, Interval]]]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def tell_figures(found: Retrieval) -> str:
    """The figures as lines of text."""
    known = f" ({found.known:,} more are known to the run)" if found.known else ""
    lines = [f"{found.pairs:,} pairs of {found.pictures:,} pictures and {found.captions:,} captions{known}"]
    for model, ways in found.figures.items():
        for way, figures in ways.items():
            told = "  ".join(
                f"{name} {each.value:.3f} {each.low:.3f}–{each.high:.3f}" for name, each in figures.items()
            )
            lines.append(f"{model}: {way}  {told}")
    return "\n".join(lines)


@dataclass(frozen=True)
class HeldPair:
    """A picture and a caption, as a row of a table names them, and the group of the row."""

    picture: "NamedFile"
    caption: str
    group: str


@dataclass(frozen=True)
class Gallery:
    """Each picture and each caption once, and which belong together: for each picture places of captions, and back."""

    pictures: "list[NamedFile]"
    captions: list[str]
    of_pictures: list[list[int]]
    of_captions: list[list[int]]
    picture_groups: np.ndarray
    caption_groups: np.ndarray


def measure_retrieval(
    workspace: Workspace,
    recipe: Recipe,
    stage: str,
    data: Path,
    *,
    image: str = "file",
    caption: str = "caption",
    group: str | None = None,
    samples: int = 1000,
) -> Retrieval:
    """Recall at 1, 5 and 10 and the mean reciprocal rank, both ways, with intervals over groups.

    stage: of the recipe's run, one that learnt from pairs. data: a table of pairs, with the paths of pictures that lie
    beside it. group: column whose rows are drawn together; without, those of one picture are. A picture that the run
    has learnt from is left out; that one is nearly the same is not noticed. Raises RecipeError for another stage,
    TrainingError if it has not been trained, DataError for pairs that can't be read.
    """
    from graftwork.checkpoints.retrieve import open_checkpoint, retrieve_checkpoint
    from graftwork.data.manifest import load_learnt, validate_data
    from graftwork.models.catalog import families_for
    from graftwork.training.plan import plan_training

    manifest = validate_data(recipe, workspace)
    lock = retrieve_checkpoint(recipe, workspace, families_for(recipe.input.modality))
    checkpoint = open_checkpoint(workspace.store, lock)
    plan = plan_training(recipe, manifest, lock, checkpoint, cache_bytes=workspace.settings.cache_bytes)
    wanted = next((each for each in plan.stages if each.name == stage and each.pairs is not None), None)
    if wanted is None:
        names = ", ".join(each.name for each in plan.stages if each.pairs is not None)
        hint = f"those that did: {names or 'none'}"
        raise RecipeError(Problem(f"no stage {stage!r} learnt from pictures and captions", str(recipe.path), hint))
    trained = workspace.store.open(wanted.key)
    if trained is None:
        raise TrainingError(Problem(f"stage {stage!r} is not trained yet", str(recipe.path), "`graftwork run` does it"))
    every = read_pairs(data, image, caption, group)
    learnt = set(load_learnt(workspace.store, manifest)["text"])
    held = [pair for pair in every if pair.picture.reference not in learnt]
    if not held:
        raise DataError(Problem(f"the run has learnt from the pictures of all {len(every)} pairs", str(data)))
    gallery = make_gallery(held)
    if min(len(gallery.pictures), len(gallery.captions)) < LEAST:
        found = f"{len(gallery.pictures)} pictures and {len(gallery.captions)} captions"
        raise DataError(Problem(f"{found}: nothing else could be found", str(data), f"{LEAST} of each are needed"))
    before, after = (_find(_states(plan, checkpoint, folder, gallery), gallery) for folder in (None, trained))
    counts = len(held), len(gallery.pictures), len(gallery.captions)
    return Retrieval(stage, *counts, len(every) - len(held), _measure(before, after, gallery, samples))


def read_pairs(data: Path, image: str, caption: str, group: str | None) -> list[HeldPair]:
    """The pairs of a table. Raises DataError with those that can't be read."""
    from graftwork.data.chunks import open_table, read_chunks
    from graftwork.data.media import NamedFile, RowFiles

    if image == caption:
        raise DataError(Problem(f"pictures and captions are both in column {image!r}", str(data), "name two columns"))
    file, columns = open_table(data), list(dict.fromkeys([image, caption, *([group] if group else [])]))
    missing = [column for column in columns if column not in file.columns]
    if missing:
        raise DataError(Problem(f"there is no column {missing[0]!r}", str(data), f"it has {', '.join(file.columns)}"))
    files, pairs, problems = RowFiles("image", file, image), list[HeldPair](), list[Problem]()
    for chunk in read_chunks(file, columns):
        groups = chunk.cells(group) if group else [None] * len(chunk.lines)
        for line, cell, text, of in zip(chunk.lines, files.cells(chunk), chunk.cells(caption), groups, strict=True):
            opened = files.open(line, cell) if cell and text and text.strip() else None
            if isinstance(opened, NamedFile):
                pairs.append(HeldPair(opened, text or "", of or opened.reference))
            else:
                reason = "a picture or a caption is missing" if opened is None else opened.reason
                problems.append(Problem(reason, f"{data}:{line}", "mend the row, or leave it out"))
    raise_if(problems, DataError)
    return pairs


def make_gallery(pairs: Sequence[HeldPair]) -> Gallery:
    """Each picture once, by its content, and each caption, whatever its case and white space."""
    from graftwork.data.rows import content_digest

    seen = _numbered([pair.picture.reference for pair in pairs])
    read = _numbered([content_digest(pair.caption) for pair in pairs])
    of_pictures, of_captions = ([list[int]() for _ in range(max(places) + 1)] for places in (seen, read))
    for picture, text in dict.fromkeys(zip(seen, read, strict=True)):
        of_pictures[picture].append(text)
        of_captions[text].append(picture)
    groups = np.array([pair.group for pair in pairs])
    firsts = [np.unique(places, return_index=True)[1] for places in (seen, read)]
    return Gallery(
        [pairs[place].picture for place in firsts[0]],
        [pairs[place].caption for place in firsts[1]],
        of_pictures,
        of_captions,
        groups[firsts[0]],
        groups[firsts[1]],
    )


def _numbered(names: Sequence[str]) -> list[int]:
    """A number for each, equal ones the same, in the order in which they come first."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(name, len(numbers)) for name in names]


def _states(
    plan: "TrainingPlan", checkpoint: Path, trained: Path | None, gallery: Gallery
) -> tuple[np.ndarray, np.ndarray]:
    """What both towers make of the gallery. trained: the folder of a stage; None for the checkpoint as it is."""
    from safetensors.torch import load_file

    from graftwork.models.serving.config import WEIGHTS
    from graftwork.models.serving.inference import infer, pick_device
    from graftwork.models.serving.text import TextEncoder
    from graftwork.models.text import load_pretrained
    from graftwork.models.towers import TextTower
    from graftwork.training.bundle import OBJECTIVE
    from graftwork.training.engine import encoder_of, serving_config

    model, tower = load_pretrained(checkpoint, serving_config(plan), seed=plan.seed), TextTower(checkpoint)
    if trained is not None:
        model.load_state_dict(load_file(trained / WEIGHTS), strict=True)
        tower.load_state_dict(load_file(trained / OBJECTIVE), strict=True)
    model, texts = model.to(pick_device()), tower.texts.to(pick_device())
    encoder, reader = encoder_of(plan, checkpoint), TextEncoder(checkpoint, tower.most_tokens)
    seen = infer(model, model.features, encoder, encoder.encode(gallery.pictures))
    read = infer(texts, texts.features, reader, reader.encode(gallery.captions))
    return seen.numpy(), read.numpy()


def _find(states: tuple[np.ndarray, np.ndarray], gallery: Gallery) -> dict[str, np.ndarray]:
    """The rank at which each picture finds a caption of its own, and each caption a picture."""
    from graftwork.evaluation.retrieval import rank_found

    seen, read = states
    return {
        OF_PICTURES: rank_found(seen, read, gallery.of_pictures),
        OF_CAPTIONS: rank_found(read, seen, gallery.of_captions),
    }


def _measure(
    before: dict[str, np.ndarray], after: dict[str, np.ndarray], gallery: Gallery, samples: int
) -> dict[str, dict[str, dict[str, Interval]]]:
    """The figures of both models' ranks, and of what the latter gained."""
    from graftwork.evaluation.retrieval import measure_gain, measure_ranks

    groups = {OF_PICTURES: gallery.picture_groups, OF_CAPTIONS: gallery.caption_groups}
    figures = {
        model: {way: measure_ranks(ranks[way], each, samples, SEED) for way, each in groups.items()}
        for model, ranks in ((CHECKPOINT, before), (CANDIDATE, after))
    }
    gained = {way: measure_gain(before[way], after[way], each, samples, SEED) for way, each in groups.items()}
    return figures | {GAIN: gained}
