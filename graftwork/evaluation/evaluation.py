"""The evaluation: candidate, baselines and references on the same holdout rows, each with a prediction per row or word.

What follows from it (promote, keep, wait) is the gate's business, in `graftwork.promotion`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graftwork.data.manifest import DatasetManifest, load_rows, open_manifest
from graftwork.data.replay import find_known
from graftwork.errors import Problem, RecipeError, RegistryError
from graftwork.evaluation.baselines import FrozenEncoder, predict_baseline
from graftwork.evaluation.holdout import judged_rows
from graftwork.evaluation.metrics import ClassMetrics, Interval, describe_classes, estimate, measure
from graftwork.evaluation.predictions import (
    Predictor,
    group_codes,
    labels_of,
    open_predictions,
    predict_rows,
    probabilities_of,
)
from graftwork.evaluation.words import spread
from graftwork.faults import fault
from graftwork.fingerprint import digest, from_json, to_json, without_defaults
from graftwork.models.serving.config import Input
from graftwork.settings import CACHE_BYTES
from graftwork.storage import Store
from graftwork.targets.catalog import CLASSIFICATION, TARGETS
from graftwork.targets.target import Target

if TYPE_CHECKING:
    import pandas as pd

EVALUATION_VERSION = 1  # raised by hand when what is measured, or on which rows, changes
RECORD = "evaluation.json"
CANDIDATE = "candidate"
SEED = 0


@dataclass(frozen=True)
class Contender:
    """A model to judge. version: None before it is registered.

    bundle, recipe, manifest: digests; manifest is that of the rows it was trained on. Those of a model that was made
    elsewhere are empty. open_model: loads it; called only if its predictions are not stored. taught_by: manifests of
    the models whose answers it learnt, and whose rows may judge it as little as its own.
    """

    bundle: str
    recipe: str
    manifest: str
    version: int | None
    open_model: Callable[[], Predictor] = field(repr=False, compare=False)
    taught_by: tuple[str, ...] = ()

    @property
    def identity(self) -> tuple[str | int | None, ...]:
        """What makes it this contender and no other."""
        return self.bundle, self.recipe, self.manifest, self.version, *self.taught_by

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Manifests whose training rows are in its weights, one way or the other."""
        return self.manifest, *self.taught_by


@dataclass(frozen=True)
class Reference:
    """A registered model's figures on the same rows. bundle, recipe: digests; one made elsewhere has no recipe."""

    version: int | None
    bundle: str
    recipe: str
    metrics: dict[str, Interval]

    @property
    def name(self) -> str:
        """How reports name it: by its version."""
        return f"version {self.version}" + ("" if self.recipe else ", made elsewhere")


@dataclass(frozen=True)
class Slice:
    """The candidate's accuracy, or the target's headline in its place, on the rows with one value of a column."""

    column: str
    value: str
    rows: int
    accuracy: Interval


@dataclass(frozen=True)
class Part:
    """A part of the holdout, and the accuracy of the candidate and of a reference on it."""

    rows: int
    groups: int
    candidate: Interval
    reference: Interval


@dataclass(frozen=True)
class Memory:
    """What the candidate still does of what a reference's data had already, beside what is new since.

    known, new: holdout rows that were, or were not, in that data with the same label; None if there are none.
    predictions: store keys of those for the known rows, by `candidate` and the reference's name.
    """

    known: Part | None
    new: Part | None
    predictions: dict[str, str]


@dataclass(frozen=True)
class Evaluation:
    """Every figure that a verdict or a report needs.

    bundle, recipe, manifest: digests. excluded_rows: holdout rows that a contender was trained on, or shares a group
    with. confusion: true class by predicted class. predictions: store keys, by `candidate`, reference and baseline.
    memory: by reference, of those whose data the holdout has grown since; of classes alone. target: what was learnt, as
    in TARGETS; of numbers and texts there are no classes, of several classes a row no confusion.
    """

    SCHEMA: ClassVar[int] = 1
    bundle: str
    recipe: str
    manifest: str
    holdout_digest: str
    rows: int
    groups: int
    excluded_rows: int
    metrics: dict[str, Interval]
    classes: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    baselines: dict[str, dict[str, Interval]]
    references: dict[str, Reference]
    slices: tuple[Slice, ...]
    predictions: dict[str, str]
    memory: dict[str, Memory] = field(default_factory=dict)
    target: str = CLASSIFICATION.name

    @property
    def digest(self) -> str:
        """Changes with every figure."""
        return digest(without_defaults(Evaluation, vars(self)))


def evaluate(
    store: Store,
    candidate: Contender,
    references: Mapping[str, Contender],
    manifest: DatasetManifest,
    *,
    encoder: FrozenEncoder,
    baselines: Sequence[str],
    slices: Sequence[str] = (),
    samples: int = 1000,
    cache_bytes: int = CACHE_BYTES,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """The candidate beside its references ('champion', 'anchor') and baselines on the manifest's holdout rows.

    encoder: the pretrained checkpoint, for the frozen-head baseline. slices: columns of the rows, such as `source`.
    samples: bootstrap resamples. cache_bytes: room for frozen features, in the store. on_progress is told whose
    predictions are made, and how many rows of how many are done. The result is stored; found again, it costs neither
    torch nor pandas.
    Raises DataError if no row is left to judge on, RegistryError if a reference has other classes, RecipeError for a
    slice by a column that is not there.
    """
    contenders = {CANDIDATE: candidate, **references}
    asked = {
        "contenders": {name: contender.identity for name, contender in contenders.items()},
        "manifest": manifest.digest,
        "encoder": encoder.facts,
        "baselines": list(baselines),
        "slices": list(slices),
        "samples": samples,
        "version": EVALUATION_VERSION,
    }
    older = {name: each for name, each in references.items() if each.manifest not in ("", manifest.digest)}
    if older:
        asked["memory"] = True  # a later addition: what has none keeps the key that it had
    key = f"evaluation/{digest(asked)}"
    stored = _find(store, key)
    if stored is not None:
        return stored
    rows, excluded = judged_rows(
        store, manifest, [each for contender in contenders.values() for each in contender.trained_on]
    )
    _check_slices(slices, rows)
    keys: dict[str, str] = {}
    for name, contender in contenders.items():
        keys[name] = _predict(store, name, contender, manifest, rows, partial(_tell, on_progress, name))
    for name in baselines:
        told = partial(_tell, on_progress, name)
        keys[name] = predict_baseline(store, name, manifest, rows, encoder, cache_bytes, told)
    target = TARGETS[manifest.target]
    measured = partial(_remember, store, rows, candidate, keys, samples)
    memory = {name: measured(name, each) for name, each in older.items()} if target is CLASSIFICATION else {}
    metrics = {name: _measure(open_predictions(store, key), samples, target) for name, key in keys.items()}
    judged = open_predictions(store, keys[CANDIDATE])
    units = spread(rows) if target.is_by_word else rows
    classes, confusion = describe_classes(labels_of(judged, target), probabilities_of(judged), manifest.classes, target)
    evaluation = Evaluation(
        bundle=candidate.bundle,
        recipe=candidate.recipe,
        manifest=manifest.digest,
        holdout_digest=manifest.holdout_digest,
        rows=len(rows),
        groups=len(np.unique(group_codes(judged))),
        excluded_rows=excluded,
        metrics=metrics[CANDIDATE],
        classes=classes,
        confusion=confusion,
        baselines={name: metrics[name] for name in baselines},
        references={
            name: Reference(each.version, each.bundle, each.recipe, metrics[name]) for name, each in references.items()
        },
        slices=tuple(found for column in slices for found in _slice(judged, units[column], samples, target)),
        predictions=keys,
        memory={name: each for name, each in memory.items() if each.new is not None},
        target=manifest.target,
    )
    fault("evaluation.before_publish")
    with store.writing(key) as folder:
        (folder / RECORD).write_text(to_json(evaluation), encoding="utf-8")
    return evaluation


def _tell(on_progress: Callable[[str, int, int], None] | None, name: str, done: int, total: int) -> None:
    if on_progress:
        on_progress(name, done, total)


def _find(store: Store, key: str) -> Evaluation | None:
    """The stored evaluation, as long as the predictions that a verdict will ask for are there too."""
    folder = store.open(key)
    if folder is None:
        return None
    evaluation = from_json(Evaluation, (folder / RECORD).read_text(encoding="utf-8"))
    keys = [evaluation.predictions, *(memory.predictions for memory in evaluation.memory.values())]
    return evaluation if all(store.find(key) for each in keys for key in each.values()) else None


def _check_slices(slices: Sequence[str], rows: "pd.DataFrame") -> None:
    unknown = [column for column in slices if column not in rows]
    if unknown:
        hint = "use source or group"
        raise RecipeError(Problem(f"no column {', '.join(unknown)} to slice by", "evaluation.slices", hint))


def _predict(
    store: Store,
    name: str,
    contender: Contender,
    manifest: DatasetManifest,
    rows: "pd.DataFrame",
    on_progress: Callable[[int, int], None],
) -> str:
    """The key of a contender's predictions; its model is opened only if the store has none."""
    target = TARGETS[manifest.target]

    def open_and_predict(inputs: Sequence[Input]) -> np.ndarray:
        model = contender.open_model()
        where = name if contender.version is None else f"{name}, version {contender.version}"
        if model.target != manifest.target:
            problem = f"it was made for {TARGETS[model.target].known_as}, the data is for {target.known_as}"
            raise RegistryError(Problem(problem, where, "a recipe for something else needs a name of its own"))
        if model.classes != manifest.classes:
            found, expected = ", ".join(model.classes), ", ".join(manifest.classes)
            hint = "a recipe with other classes needs a name of its own"
            raise RegistryError(Problem(f"it predicts the classes {found}; the data has {expected}", where, hint))
        return model.probabilities(inputs, lambda done: on_progress(done, len(inputs)))

    tags = manifest.classes if target.is_by_word else None
    return predict_rows(store, {"bundle": contender.bundle}, rows, open_and_predict, tags)


def _measure(predictions: "pd.DataFrame", samples: int, target: Target) -> dict[str, Interval]:
    facts = labels_of(predictions, target), probabilities_of(predictions), group_codes(predictions)
    return measure(*facts, samples, SEED, target)


def _remember(
    store: Store,
    rows: "pd.DataFrame",
    candidate: Contender,
    keys: Mapping[str, str],
    samples: int,
    name: str,
    reference: Contender,
) -> Memory:
    """The candidate beside the reference of that name, on the rows that its data had on its holdout, and on the others.

    keys: of the predictions for all rows.
    """
    is_known = find_known(rows, load_rows(store, open_manifest(store, reference.manifest), sides=("holdout",)))
    whole = {role: open_predictions(store, keys[role]) for role in (CANDIDATE, name)}

    def part(is_in: np.ndarray) -> Part | None:
        if not is_in.any():
            return None
        ours, theirs = (whole[role][is_in] for role in whole)
        accuracies = (_headline(frame, samples, CLASSIFICATION) for frame in (ours, theirs))
        return Part(len(ours), len(np.unique(group_codes(ours))), *accuracies)

    def keep(role: str, contender: Contender) -> str:
        answers = probabilities_of(whole[role][is_known.to_numpy()])
        return predict_rows(store, {"bundle": contender.bundle}, rows[is_known], lambda _: answers)

    contenders = {CANDIDATE: candidate, name: reference} if is_known.any() else {}
    kept = {role: keep(role, contender) for role, contender in contenders.items()}
    return Memory(part(is_known.to_numpy()), part(~is_known.to_numpy()), kept)


def _slice(predictions: "pd.DataFrame", values: "pd.Series", samples: int, target: Target) -> Iterator[Slice]:
    """The predictions by the value that each row has in a column; rows without one are left out."""
    for value, part in predictions.groupby(values, sort=True):
        count = target.learning.rows(labels_of(part, target))
        yield Slice(str(values.name), str(value), count, _headline(part, samples, target))


def _headline(predictions: "pd.DataFrame", samples: int, target: Target) -> Interval:
    """The metric that such models are told apart by at a glance."""
    facts = labels_of(predictions, target), probabilities_of(predictions), group_codes(predictions)
    return estimate(target.headline, *facts, samples, SEED, target)
