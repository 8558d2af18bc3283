"""What training leaves: a result for each stage, and the bundle that is judged and served."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from graftwork.fingerprint import from_json
from graftwork.models import serving
from graftwork.storage import Store
from graftwork.training.start import FROM_CHECKPOINT, Start

BUNDLE_RECORD = "bundle.json"
STAGE_RECORD = "stage.json"
MODEL = "model"
ADAPTER = "adapter"  # in the folder of a stage that had adapters
OBJECTIVE = "objective.safetensors"  # of a stage whose own head is kept, as it tells what comes next, or whose tower is
ADAPTERS = "adapters"  # in the bundle, a folder for each such stage
CODE = "serving"  # in the model folder
FETCHED = "registered"  # the kind of the keys under which bundles lie that were trained elsewhere


# What a bundle takes over from the checkpoint, byte for byte; the weights and the serving code are ours.
TOKENIZER_AND_CONFIG = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
)


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch gave: mean training loss, loss and accuracy on the validation rows, seconds it took.

    validation_accuracy: where classes are not told apart, the score that the target has instead.
    """

    epoch: int
    step: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


@dataclass(frozen=True)
class StepMetrics:
    """A point of the learning curve: loss averaged since the last point, share of the peak rate in force."""

    step: int
    loss: float
    rate_scale: float


@dataclass(frozen=True)
class StageResult:
    """A finished stage. key: its folder in the store. best_epoch: the epoch whose weights it left, counted from 1.

    seconds: with those for what was computed once. peak_bytes: the most memory that training it took, of the GPU, else
    of the machine. drift: what changed in its environment between a save and a resume, and was accepted; else it is
    exact to the bit.
    """

    SCHEMA: ClassVar[int] = 1
    stage: str
    key: str
    weights_digest: str
    epochs: tuple[EpochMetrics, ...]
    steps: tuple[StepMetrics, ...]
    best_epoch: int
    seconds: float
    peak_bytes: int
    drift: tuple[str, ...] = ()

    @property
    def best(self) -> EpochMetrics:
        return self.epochs[self.best_epoch - 1]


@dataclass(frozen=True)
class ServingBundle:
    """A model ready to serve. digest: of its `model` folder. manifest, checkpoint: digests of the records.

    start: which weights its training started from.
    """

    SCHEMA: ClassVar[int] = 1
    digest: str
    key: str
    name: str
    recipe_digest: str
    manifest: str
    checkpoint: str
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    stages: tuple[StageResult, ...]
    start: Start = FROM_CHECKPOINT

    @property
    def drift(self) -> tuple[str, ...]:
        """What its stages accepted as changed on the way; empty if it is what the plan gives, to the bit."""
        return tuple(f"{stage.stage}: {change}" for stage in self.stages for change in stage.drift)


def find_bundle(store: Store, key: str) -> ServingBundle | None:
    """The bundle stored under the key, verified; None if there is none."""
    folder = store.open(key)
    return None if folder is None else from_json(ServingBundle, (folder / BUNDLE_RECORD).read_text(encoding="utf-8"))


def find_model(store: Store, key: str, digest: str) -> Path | None:
    """The model folder with that digest, verified: trained under the key, or fetched from the registry; or None.

    The same key may hold other bits here: a machine of another kind trains to slightly different weights.
    """
    for place in (key, f"{FETCHED}/{digest}"):
        bundle = find_bundle(store, place)
        if bundle is not None and bundle.digest == digest:
            return store.root / place / MODEL
    return None


def copy_serving_code(folder: Path) -> None:
    """Put the code that predicts into a model folder, where it runs without the rest of the package."""
    (folder / CODE).mkdir()
    for path in sorted(Path(serving.__file__).parent.glob("*.py")):
        shutil.copyfile(path, folder / CODE / path.name)


def copy_tokenizer_and_config(source: Path, target: Path) -> None:
    """Copy what a bundle takes over from its checkpoint, as far as it is there, to another folder."""
    for name in TOKENIZER_AND_CONFIG:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
