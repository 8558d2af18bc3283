"""Checkpoints compared before one of them is fine-tuned: by what a linear probe makes of their frozen features.

Probes are fitted on the recipe's training rows and judged on its validation rows. The holdout stays untouched, because
each look at it counts. A probe ranks checkpoints as they come: fine-tuning may change the order of close ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork.checkpoints.lock import CheckpointLock
from graftwork.checkpoints.retrieve import open_checkpoint, retrieve_candidate, retrieve_checkpoint
from graftwork.data.manifest import load_rows, validate_data
from graftwork.errors import CheckpointError, Problem, RecipeError
from graftwork.evaluation.comparison import Comparison, compare
from graftwork.evaluation.metrics import INTERVAL_LEVEL, Interval, measure
from graftwork.evaluation.predictions import (
    frame_predictions,
    group_codes,
    inputs_of,
    labels_of,
    probabilities_of,
)
from graftwork.models.catalog import families_for, family_of
from graftwork.models.configs import read_model_config
from graftwork.models.media import read_media, tokens_of
from graftwork.models.pixels import find_side_problem
from graftwork.recipe import Recipe
from graftwork.targets.catalog import CLASSIFICATION
from graftwork.training.plan import longest_input, pooling_of
from graftwork.training.precision import resolve_precision
from graftwork.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

SEED = 0

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Candidate:
    """A checkpoint and what its probe reached on the validation rows.

    max_tokens: that it can read, None for any number. row_ms: of computing a row's features here. strength: of the
    probe's penalty. best_against: the best candidate compared with this one in accuracy, None for the best itself.
    """

    source: str
    architecture: str
    licence: str
    pooling: str
    max_tokens: int | None
    parameters: int
    size_bytes: int
    row_ms: float
    strength: float
    accuracy: Interval
    log_loss: Interval
    best_against: Comparison | None = None

    @property
    def is_distinguishable(self) -> bool:
        """True if the best candidate is better than this one, and not by chance."""
        return self.best_against is not None and self.best_against.is_cleared

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"is_distinguishable": self.is_distinguishable}


@dataclass(frozen=True)
class RefusedCandidate:
    """A checkpoint that can't be used, and why."""

    source: str
    problem: str


@dataclass(frozen=True)
class Choice:
    """Candidates, the most accurate first. rows: of each side that was used."""

    rows: dict[str, int]
    candidates: tuple[Candidate, ...]
    refused: tuple[RefusedCandidate, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "candidates": [candidate.as_json() for candidate in self.candidates],
            "refused": [asdict(refused) for refused in self.refused],
        }


def choose(recipe: Recipe, sources: Sequence[str], workspace: Workspace, on_progress: Progress | None = None) -> Choice:
    """The recipe's checkpoint beside the others that `sources` names, each of which has to be pinned and allowed.

    on_progress is told how many rows of how many, over all candidates, have their features. The best is compared with
    each other one at such a level that all the intervals hold together with 95 %.
    Raises RecipeError if it is not of classes, DataError, or CheckpointError if there is no candidate that can be used.
    """
    if recipe.target is not CLASSIFICATION:
        problem = f"checkpoints are compared by accuracy, not yet for {recipe.target.known_as}"
        tells = ": the frozen-head baseline tells" if "frozen-head" in recipe.baselines else ""
        raise RecipeError(Problem(problem, str(recipe.path), f"run the recipe with each{tells}"))
    manifest = validate_data(recipe, workspace)
    sides = {side: load_rows(workspace.store, manifest, sides={side}) for side in ("train", "validation")}
    counts = {side: len(rows) for side, rows in sides.items()}
    wanted = list(dict.fromkeys([recipe.checkpoint.source, *sources]))
    measured: list[tuple[Candidate, pd.DataFrame]] = []
    failed: dict[str, CheckpointError] = {}

    def tell(place: int, done: int, missing: int) -> None:
        if on_progress:
            rows = sum(counts.values())
            on_progress((place + 1) * rows - missing + done, len(wanted) * rows)

    for place, source in enumerate(wanted):
        try:
            lock = _retrieve(source, recipe, workspace)
            measured.append(_measure(lock, recipe, workspace, sides, len(manifest.classes), partial(tell, place)))
        except CheckpointError as error:
            failed[source] = error
        tell(place, 0, 0)
    if not measured:
        raise CheckpointError(*(problem for error in failed.values() for problem in error.problems))
    refused = tuple(RefusedCandidate(source, str(error)) for source, error in failed.items())
    return Choice(counts, _rank(measured, recipe.evaluation.bootstrap), refused)


def _retrieve(source: str, recipe: Recipe, workspace: Workspace) -> CheckpointLock:
    if source == recipe.checkpoint.source:
        return retrieve_checkpoint(recipe, workspace, families_for(recipe.input.modality))
    return retrieve_candidate(source, recipe, workspace, families_for(recipe.input.modality))


def _measure(
    lock: CheckpointLock,
    recipe: Recipe,
    workspace: Workspace,
    sides: "dict[str, pd.DataFrame]",
    classes: int,
    on_progress: Progress,
) -> "tuple[Candidate, pd.DataFrame]":
    """The checkpoint's figures and its probe's predictions for the validation rows."""
    from graftwork.models.frozen import load_frozen
    from graftwork.models.probe import LabelledVectors, best_probe, fit_probes

    folder = open_checkpoint(workspace.store, lock)
    family = family_of(lock.architecture)
    limit = longest_input(family, read_model_config(folder, recipe.input.modality))
    media = read_media(folder, recipe.input)
    problem = find_side_problem(media["pixels"], family, folder) if "pixels" in media else None
    if problem:
        raise CheckpointError(problem)
    max_tokens = tokens_of(media, recipe.input)
    frozen = load_frozen(
        folder,
        pooling=pooling_of(recipe, lock),
        max_tokens=min(max_tokens, limit or max_tokens),
        **media,
        precision=resolve_precision(recipe.train.precision),
        store=workspace.store,
        cache_bytes=workspace.settings.cache_bytes,
    )
    texts = [text for rows in sides.values() for text in inputs_of(rows)]
    train, validation = np.split(frozen.vectors(texts, on_progress), [len(sides["train"])])
    fitted = LabelledVectors(train, labels_of(sides["train"]))
    probe = best_probe(fit_probes(fitted, LabelledVectors(validation, labels_of(sides["validation"])), classes))
    predictions = frame_predictions(sides["validation"], probe.values(validation))
    found = measure(
        labels_of(predictions),
        probabilities_of(predictions),
        group_codes(predictions),
        recipe.evaluation.bootstrap,
        SEED,
    )
    candidate = Candidate(
        source=lock.source,
        architecture=lock.architecture,
        licence=str(lock.licence),
        pooling=frozen.model.pool.kind,
        max_tokens=limit,
        parameters=sum(parameter.numel() for parameter in frozen.model.body.parameters()),
        size_bytes=sum(file.size for file in lock.files),
        row_ms=1000 * frozen.time_row(texts),
        strength=probe.strength,
        accuracy=found["accuracy"],
        log_loss=found["log_loss"],
    )
    return candidate, predictions


def _rank(measured: "Sequence[tuple[Candidate, pd.DataFrame]]", samples: int) -> tuple[Candidate, ...]:
    """The candidates, the best first, each other one compared with it."""
    ranked = sorted(measured, key=lambda pair: (-pair[0].accuracy.value, pair[0].log_loss.value))
    (best, best_predictions), *others = ranked
    tail = (1 - INTERVAL_LEVEL) / 2 / max(1, len(others))
    compared = [
        compare(
            predictions,
            best_predictions,
            name=candidate.source,
            metric="accuracy",
            threshold=0.0,
            level=1 - tail,
            samples=samples,
            seed=SEED,
        )
        for candidate, predictions in others
    ]
    behind = [replace(candidate, best_against=found) for (candidate, _), found in zip(others, compared, strict=True)]
    return (best, *behind)
