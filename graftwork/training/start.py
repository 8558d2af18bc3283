"""Which weights a run starts from, the checkpoint's or those of the champion that an earlier run made, and who teaches.

It is resolved once, before the plan is made, and part of the plan from then on. Not here: looking it up in the ledger
(`graftwork.registry.starts`).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from graftwork.data.manifest import DatasetManifest, load_rows, open_manifest
from graftwork.data.replay import ChosenRows, choose_rows, sample_known
from graftwork.fingerprint import seed_of
from graftwork.storage import Store

if TYPE_CHECKING:
    import pandas as pd

    from graftwork.training.bundle import ServingBundle

# Known rows by which it is told what a weight is worth. Each costs about two steps of one row for each class but one.
WEIGHED_ROWS = 250


@dataclass(frozen=True)
class WarmStart:
    """The model that a run goes on from, and how many rows it is trained on.

    version: its number. bundle, manifest: digests of its model folder and of the data it knows. key: of its bundle in
    the store. generation: warm starts in a row, this one included. replay: rows it knows for each new one.
    new, replayed, known, withdrawn: training rows, as in `ChosenRows`.
    """

    version: int
    bundle: str
    key: str
    manifest: str
    generation: int
    replay: float
    new: int
    replayed: int
    known: int
    withdrawn: int

    @property
    def facts(self) -> dict[str, str | float]:
        """What of it decides the weights."""
        return {"bundle": self.bundle, "manifest": self.manifest, "replay": self.replay}


@dataclass(frozen=True)
class Teacher:
    """A registered model that stages learn from. asked: what the recipe calls it. name, version: what that stood for.

    bundle, manifest: digests of its model folder and of the data it knows. key: of its bundle in the store. classes: in
    the order of its logits.
    """

    asked: str
    name: str
    version: int
    bundle: str
    key: str
    manifest: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Start:
    """A warm start, or the checkpoint. reason: why it is the checkpoint, where the recipe asks for the champion.

    teachers: whom its stages learn from; a champion that is asked for and that there is not yet is none of them.
    """

    SCHEMA: ClassVar[int] = 1
    warm: WarmStart | None = None
    reason: str = ""
    teachers: tuple[Teacher, ...] = ()

    def teacher(self, asked: str) -> Teacher | None:
        """The teacher that a recipe calls so."""
        return next((each for each in self.teachers if each.asked == asked), None)

    @property
    def generation(self) -> int:
        """Warm starts in a row since the last run from the checkpoint; 0 for that run itself."""
        return self.warm.generation if self.warm else 0

    @property
    def sentence(self) -> str:
        """What a person is told."""
        taught = ", ".join(f"{each.name}/{each.version}" for each in self.teachers)
        return self._origin + (f"; taught by {taught}" if taught else "")

    @property
    def _origin(self) -> str:
        warm = self.warm
        if warm is None:
            return f"from the checkpoint, because {self.reason}" if self.reason else "from the checkpoint"
        rows = f"{warm.new:,} new rows and {warm.replayed:,} of the {warm.known:,} that it knows"
        left = f"; {warm.withdrawn:,} that were withdrawn stay in its weights" if warm.withdrawn else ""
        return f"from version {warm.version}, warm start {warm.generation} in a row, on {rows}{left}"


FROM_CHECKPOINT = Start()


def warm_start(
    store: Store, bundle: "ServingBundle", version: int, manifest: DatasetManifest, *, replay: float, seed: int
) -> WarmStart:
    """The start from a registered bundle on the data that has landed since."""
    chosen = rows_since(store, manifest, bundle.manifest, "train", replay, seed)
    return WarmStart(
        version=version,
        bundle=bundle.digest,
        key=bundle.key,
        manifest=bundle.manifest,
        generation=bundle.start.generation + 1,
        replay=replay,
        new=chosen.new,
        replayed=chosen.replayed,
        known=chosen.known,
        withdrawn=chosen.withdrawn,
    )


def rows_since(store: Store, manifest: DatasetManifest, before: str, side: str, replay: float, seed: int) -> ChosenRows:
    """The rows of one side that a model that knows the manifest `before` (its digest) goes on with."""
    rows = load_rows(store, manifest, sides=(side,))
    known = load_rows(store, open_manifest(store, before), sides=(side,))
    return choose_rows(rows, known, replay, seed=seed_of(seed, manifest.digest, before))


def rows_to_hold(store: Store, manifest: DatasetManifest, before: str, seed: int) -> "pd.DataFrame":
    """Training rows that a model that knows the manifest `before` must not forget: WEIGHED_ROWS of them at most.

    Rows that were withdrawn since are not among them.
    """
    rows, known = (load_rows(store, each, sides=("train",)) for each in (manifest, open_manifest(store, before)))
    return sample_known(rows, known, WEIGHED_ROWS, seed=seed_of(seed, manifest.digest, before, "hold"))
