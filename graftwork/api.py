"""What the command line does, as functions of Python: `from graftwork import api`.

All but running a flow, which is `flows.finetune.finetune`. Each works in the workspace that the environment names.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.checkpoints.lock import CheckpointLock, lock_path
from graftwork.data.manifest import DatasetManifest
from graftwork.policy import load_policy
from graftwork.promotion.history import LedgerEntry
from graftwork.recipe import load_recipe
from graftwork.training.estimate import Estimate
from graftwork.training.plan import TrainingPlan
from graftwork.workspace import Workspace

if TYPE_CHECKING:
    from graftwork.choice import Choice
    from graftwork.convert import Converted
    from graftwork.data.handover import HandedIn
    from graftwork.export import Exported, Extracted
    from graftwork.models.catalog import FamilyFacts
    from graftwork.models.word_vectors import VectorTraining
    from graftwork.promotion.approval import Decision, Outcome
    from graftwork.registry.approvals import Approval
    from graftwork.registry.audit import Audit
    from graftwork.registry.versions import ListedVersion
    from graftwork.retention import Leftover
    from graftwork.retrieval import Retrieval
    from graftwork.scoring import Scored
    from graftwork.vectors import WrittenVectors


@dataclass(frozen=True)
class PlannedRun:
    """What a run would do. is_stored: for each stage and for the bundle, whether it is there already.

    estimate: what it will take, if that was measured.
    """

    manifest: DatasetManifest
    lock: CheckpointLock
    plan: TrainingPlan
    is_stored: dict[str, bool]
    estimate: Estimate | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "manifest": asdict(self.manifest) | {"digest": self.manifest.digest},
            "checkpoint": asdict(self.lock) | {"digest": self.lock.digest},
            "plan": asdict(self.plan) | {"parameters": self.plan.parameters},
            "is_stored": self.is_stored,
            "estimate": asdict(self.estimate) if self.estimate else None,
        }


def init(
    data: Path,
    text: str | None,
    label: str | None,
    checkpoint: str,
    output: Path,
    *,
    threshold: float | None = None,
    name: str | None = None,
    text_pair: str | None = None,
) -> tuple[Path, ...]:
    """Look at a data file or a folder and write a commented recipe, and a policy beside it where there is none."""
    from graftwork.starter import write_recipe

    return write_recipe(data, text, label, checkpoint, output, threshold=threshold, name=name, text_pair=text_pair)


def families() -> "tuple[FamilyFacts, ...]":
    """Every architecture that can be trained, with what its users have to know."""
    from graftwork.models.catalog import list_families

    return list_families()


def train_vectors(
    source: Path,
    folder: Path,
    licence: str,
    training: "VectorTraining",
    *,
    text: str | None = None,
    case: str = "lower",
    on_progress: Callable[[int, int], None] | None = None,
) -> "WrittenVectors":
    """Train word vectors on the training rows of a recipe, or on a column of a table, as a checkpoint in a new folder.

    on_progress is told texts gone through, over all epochs.
    """
    from graftwork import vectors

    return vectors.train_vectors(source, folder, licence, training, text=text, case=case, on_progress=on_progress)


def import_vectors(
    file: Path,
    folder: Path,
    licence: str,
    *,
    most: int | None = None,
    case: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> "WrittenVectors":
    """Write word vectors of a file of word2vec's or GloVe's as a checkpoint, in a new folder; on_progress: bytes."""
    from graftwork import vectors

    return vectors.import_vectors(file, folder, licence, most=most, case=case, on_progress=on_progress)


def predict(
    model: str,
    data: Path,
    output: Path,
    *,
    prefix: str = "",
    precision: str = "float32",
    on_progress: Callable[[int, int], None] | None = None,
) -> "Scored":
    """Predict every row of a file with a registered model; on_progress is told rows done and rows in all.

    precision: float32, as the model was judged; bfloat16; or auto, where the processor decides.
    """
    from graftwork.scoring import score_file

    return score_file(
        Workspace.open(), model, data, output, prefix=prefix, precision=precision, on_progress=on_progress
    )


def export(model: str, data: Path, folder: Path) -> "Exported":
    """Write a registered model as an ONNX graph into a new folder, compared with it on rows of `data`."""
    from graftwork.export import export_version

    return export_version(Workspace.open(), model, data, folder)


def extract(model: str, licence: str, folder: Path) -> "Extracted":
    """Write the body of a registered model as a checkpoint, in a new folder, for another recipe to start from."""
    from graftwork.export import extract_body

    return extract_body(Workspace.open(), model, licence, folder)


def generate(
    recipe: Path,
    stage: str,
    output: Path,
    seconds: float = 1.0,
    seed: int = 0,
    temperature: float = 1.0,
    overrides: Sequence[str] = (),
) -> int:
    """Write a WAV file of what an autoregressive stage of a recipe says; the number of samples."""
    from graftwork.generation import generate_sound

    loaded, how = load_recipe(recipe, overrides), {"seconds": seconds, "temperature": temperature}
    return generate_sound(Workspace.open(), loaded, stage, output, seed=seed, **how)


def retrieval(
    recipe: Path,
    stage: str,
    data: Path,
    *,
    image: str = "file",
    caption: str = "caption",
    group: str | None = None,
    overrides: Sequence[str] = (),
) -> "Retrieval":
    """How well the towers that a stage of pairs left find what belongs together in a table of held-out pairs."""
    from graftwork.retrieval import measure_retrieval

    found = load_recipe(recipe, overrides)
    return measure_retrieval(Workspace.open(), found, stage, data, image=image, caption=caption, group=group)


def convert(file: Path, architecture: str, licence: str, folder: Path) -> "Converted":
    """Write a file of torchvision's weights as a checkpoint, in a new folder; nothing that it holds is run."""
    from graftwork.convert import convert

    return convert(file, architecture, licence, folder)


def plan(
    recipe: Path,
    overrides: Sequence[str] = (),
    limit_rows: int | None = None,
    *,
    probe: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> PlannedRun:
    """Validate the data, verify the checkpoint, and resolve the stages; nothing is trained.

    probe: measure a little of each stage that is not there yet, for the estimate; on_progress is told stages done and
    stages in all.
    """
    from graftwork.checkpoints.retrieve import open_checkpoint, retrieve_checkpoint
    from graftwork.data.manifest import validate_data
    from graftwork.models.catalog import families_for
    from graftwork.registry.starts import fetch_start, find_start
    from graftwork.training.launch import probe_run
    from graftwork.training.plan import plan_run, plan_training

    workspace = Workspace.open()
    loaded = load_recipe(recipe, overrides, limit_rows)
    policy = load_policy(loaded.root / loaded.policy)  # the run will want it
    manifest = validate_data(loaded, workspace)
    lock = retrieve_checkpoint(loaded, workspace, families_for(loaded.input.modality))
    start = find_start(workspace, loaded, manifest, lock)
    room = workspace.settings.cache_bytes
    planned = plan_training(loaded, manifest, lock, open_checkpoint(workspace.store, lock), start, room)
    stored = {stage.name: workspace.store.find(stage.key) for stage in planned.stages}
    estimate = None
    if probe and not all(stored.values()):
        run = plan_run(loaded, manifest, lock, policy, workspace.store, start, room)
        fetch_start(workspace, planned)
        estimate = probe_run(run, workspace.store, on_progress)
    return PlannedRun(manifest, lock, planned, stored | {"bundle": workspace.store.find(planned.bundle_key)}, estimate)


def choose(
    recipe: Path,
    checkpoints: Sequence[str] = (),
    overrides: Sequence[str] = (),
    limit_rows: int | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> "Choice":
    """Compare the recipe's checkpoint with others by linear probes on its data; the holdout is not looked at.

    on_progress is told for how many rows of how many, over all checkpoints, features are there.
    """
    from graftwork.choice import choose

    return choose(load_recipe(recipe, overrides, limit_rows), checkpoints, Workspace.open(), on_progress)


def lock(recipe: Path) -> tuple[Path, str]:
    """Pin the recipe's checkpoint; its lockfile and the pinned reference."""
    from graftwork.checkpoints.retrieve import lock_checkpoint
    from graftwork.models.catalog import families_for

    loaded = load_recipe(recipe)
    locked = lock_checkpoint(loaded, Workspace.open(), families_for(loaded.input.modality))
    return lock_path(recipe), locked.source


def land(recipe: Path, file: Path, source: str | None = None) -> "HandedIn":
    """Copy a file into a landing folder of the recipe, whole or not at all."""
    from graftwork.data.handover import hand_in

    return hand_in(load_recipe(recipe), file, source)


def models(model: str | None = None) -> "list[ListedVersion]":
    """All registered versions, or those of one model, newest first."""
    from graftwork.registry.versions import list_models

    return list_models(Workspace.open(), model)


def history(model: str) -> tuple[LedgerEntry, ...]:
    """The ledger of a model's champion, oldest entry first."""
    from graftwork.promotion.ledger import Ledger

    return Ledger.of(Workspace.open()).entries(model)


def audit() -> "Audit":
    """The ledger against itself, its witness and the registry; nothing is changed."""
    from graftwork.registry.audit import audit

    return audit(Workspace.open())


def prune(keep: timedelta, is_dry: bool) -> "tuple[Leftover, ...]":
    """What of the store nothing needs and nobody has touched for so long; removed unless it is a dry run."""
    from graftwork.retention import find_leftovers, remove_leftovers

    return (find_leftovers if is_dry else remove_leftovers)(Workspace.open(), keep)


def approvals(model: str) -> "tuple[Approval, ...]":
    """What was asked to be approved for a model, oldest first, and what became of it."""
    from graftwork.registry.approvals import find_requests

    return tuple(find_requests(Workspace.open(), model))


def newest_request(model: str, version: int) -> str:
    """The digest of the newest request for the version. Raises PromotionRefused if nobody asked."""
    from graftwork.registry.approvals import newest_request

    return newest_request(Workspace.open(), model, version).digest


def sign(request: str, outcome: "Outcome", approver: str, reason: str, key: Path, ask: Callable[[], str]) -> "Decision":
    """A signed decision on the request with that digest; nothing is looked up. ask: for the key's passphrase."""
    from graftwork.keys import read_private_key
    from graftwork.promotion.approval import decide

    return decide(request, outcome, approver, reason, read_private_key(key, ask))


def carry_out(model: str, decision: "Decision") -> LedgerEntry | None:
    """Keep a signed decision, and promote if it approves; the champion's entry then."""
    from graftwork.registry.approvals import carry_out

    return carry_out(Workspace.open(), model, decision)


def adopt(recipe: Path, reference: str, reason: str) -> LedgerEntry:
    """Make a registered version that others made the first champion of the recipe's model."""
    from graftwork.registry.adoption import adopt

    return adopt(Workspace.open(), load_recipe(recipe), reference, reason)


def promote(model: str, version: int, reason: str) -> LedgerEntry:
    """Make a version the champion by hand."""
    from graftwork.registry.aliases import promote_by_hand

    return promote_by_hand(Workspace.open(), model, version, reason)


def rollback(model: str, reason: str) -> LedgerEntry:
    """Put the champion before this one back."""
    from graftwork.registry.aliases import roll_back

    return roll_back(Workspace.open(), model, reason)
