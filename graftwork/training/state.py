"""The state of a stage in the middle of its training: what is needed to go on at the exact step, and nothing else.

The order of rows and each step's randomness are pure functions of the seed and the place, so no generator is saved.
A state is a folder of the store, `state/<run id><digest>`; it counts from when the run's head names its digest. The
state before it is removed only then. Best weights are kept once, beside it, as `weights/<run id><digest>`.
"""

import json
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn, optim

from graftwork.errors import TrainingError
from graftwork.faults import fault
from graftwork.fingerprint import folder_digest, from_json, to_json
from graftwork.storage import Store
from graftwork.training.averaging import WeightAverage
from graftwork.training.contract import ResumeContract, check_contract
from graftwork.training.followers import LEADER
from graftwork.training.lease import Lease
from graftwork.training.loop import Report, StageLoop, StageProgress, trained_tensors

RECORD = "state.json"
TENSORS = "tensors.safetensors"
WEIGHTS, OPTIMIZER, AVERAGE = "weights", "optimizer", "average"
FIRST_COST_S = 0.1  # of a save, until one was measured


@dataclass(frozen=True)
class TrainingState:
    """Where a stage stands. index: of the stage in the plan. best: digest of the best weights, None before the first.

    drift: differences of the contract that were accepted on the way.
    """

    SCHEMA: ClassVar[int] = 1
    index: int
    contract: ResumeContract
    drift: tuple[str, ...]
    progress: StageProgress
    best: str | None


class StateKeeper:
    """Saves the state of a run's training as often as its share of the time allows, and brings it back.

    share: of the wall time that saving may cost. accepted: fields of the contract that may differ.
    drift: what did differ, and was accepted.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        contract: ResumeContract,
        report: Report,
        *,
        share: float,
        accepted: Collection[str] = (),
    ) -> None:
        self.store, self.lease, self.contract, self.report = store, lease, contract, report
        self.share, self.accepted = share, accepted
        self.drift: tuple[str, ...] = ()
        self._best: tuple[int, str] | None = None  # the epoch whose weights are kept, and their digest
        self._found: tuple[TrainingState, Path] | None = None
        self._cost, self._spent = FIRST_COST_S, 0.0  # seconds: of the last save, or what is assumed; of all saves
        self._began = self._saved = time.monotonic()

    def is_due(self) -> bool:
        """True once another save costs no more than its share of the time since the last one, and all saves of all.

        Raises Replaced if another process holds the run.
        """
        self.lease.check()
        now = time.monotonic()
        since, whole = (now - self._saved) * self.share, (now - self._began) * self.share
        return since >= self._cost and whole >= self._spent + self._cost

    def save(self, loop: StageLoop) -> None:
        """Make what the loop is now the state that counts. Raises StoreFull or Replaced; the one before counts then."""
        started = time.monotonic()
        index, progress, before = loop.context.index, loop.progress, self.lease.state
        state = TrainingState(index, self.contract, self.drift, progress, self._keep_best(loop))
        with self.store.staging() as folder:
            save_file(gather_tensors(loop.model, loop.optimizer, loop.average), folder / TENSORS)
            (folder / RECORD).write_text(to_json(state), encoding="utf-8")
            digest = folder_digest(folder)
            fault("state.before_publish")
            self.store.publish(self._key("state", digest), folder)
        if self.store.open(self._key("state", digest)) is None:
            raise TrainingError(f"{self.store.root}: a state that was just saved reads back as something else")
        self._advance(digest, state.best)
        self._saved = time.monotonic()
        self._cost = self._saved - started
        self._spent += self._cost
        event = {"event": "saved", "stage": loop.stage.name, "step": progress.step, "seconds": self._cost}
        self.report(event | {"first": before is None})

    def begin(self, index: int, stage: str) -> None:
        """Look for a saved state of this stage, before anything is computed for it.

        Raises ResumeRefused if there is one and the contract has changed.
        """
        self._best, self._found, self.drift = None, None, ()
        folder = self._open("state", self.lease.state)
        if folder is None:
            return
        state = from_json(TrainingState, (folder / RECORD).read_text(encoding="utf-8"))
        if state.index == index:  # else it is of a stage that is finished
            where = f"stage {stage!r} at step {state.progress.step}"
            self.drift = state.drift + check_contract(state.contract, self.contract, self.accepted, where)
            self._found = (state, folder)

    def restore(self, loop: StageLoop) -> None:
        """Put the loop where the state that `begin` found was, and those of the followers where this one then is.

        If none was found, it stays at its first step.
        """
        self._restore(loop)
        share_progress(loop)

    def _restore(self, loop: StageLoop) -> None:
        if self._found is None:
            return
        state, folder = self._found
        device = str(loop.context.device)
        if state.best is not None:
            weights = self._open("weights", state.best)
            if weights is None:
                return
            loop.best_weights = load_file(weights / TENSORS, device=device)
            self._best = (state.progress.best_epoch, state.best)
        scatter_tensors(load_file(folder / TENSORS, device=device), loop.model, loop.optimizer, loop.average)
        loop.progress = state.progress
        event = {"event": "resumed", "stage": loop.stage.name, "step": state.progress.step, "steps": loop.total}
        self.report(event | {"drift": list(self.drift)})

    def forget(self) -> None:
        """Remove every state: the stage is to start again, or the run is done. Raises Replaced."""
        self._advance(None, None)

    def _keep_best(self, loop: StageLoop) -> str | None:
        """The digest of the best weights, which are written once for each epoch that was the best."""
        epoch = loop.progress.best_epoch
        if epoch == 0:
            return None
        if self._best is None or self._best[0] != epoch:
            with self.store.staging() as folder:
                save_file({name: tensor.contiguous() for name, tensor in loop.best_weights.items()}, folder / TENSORS)
                digest = folder_digest(folder)
                self.store.publish(self._key("weights", digest), folder)
            self._best = (epoch, digest)
        return self._best[1]

    def _key(self, kind: str, digest: str) -> str:
        return f"{kind}/{self.lease.run_id}{digest}"

    def _open(self, kind: str, digest: str | None) -> Path | None:
        """The verified folder of that digest; None, and said, if it is gone or damaged."""
        if digest is None:
            return None
        folder = self.store.open(self._key(kind, digest))
        if folder is None:
            self.report({"event": "lost", "kind": kind})
        return folder

    def _advance(self, state: str | None, best: str | None) -> None:
        """Make this the state that counts, with these best weights, and remove the ones before it."""
        kept = {self._key("state", state or ""), self._key("weights", best or "")}
        # Listed while the run is still ours: a process that then sleeps may wake to a successor's states.
        found = [key for kind in ("state", "weights") for key in self.store.keys(kind, prefix=self.lease.run_id)]
        fault("state.before_head")
        self.lease.advance(state)
        fault("state.after_head")
        for key in found:
            if key not in kept:
                self.store.remove(key)


class FollowingKeeper:
    """Keeps nothing: what a follower has, its leader has, too, and keeps."""

    def is_due(self) -> bool:
        return False

    def save(self, loop: StageLoop) -> None:
        """The leader does."""

    def restore(self, loop: StageLoop) -> None:
        """Put the loop where the leader's is."""
        share_progress(loop)


def share_progress(loop: StageLoop) -> None:
    """Put each follower's loop where the leader's is, but for the weights of the best epoch, which the leader keeps."""
    replicas = loop.context.replicas
    if replicas.size == 1:
        return
    tensors = gather_tensors(loop.model, loop.optimizer, loop.average)
    forms = {name: (str(tensor.dtype).removeprefix("torch."), tensor.shape) for name, tensor in tensors.items()}
    forms, progress = json.loads(replicas.tell(json.dumps([forms, to_json(loop.progress)])))
    if replicas.rank == LEADER:
        replicas.copy_leader(tensors.values())
        return
    device = loop.context.device
    tensors = {name: torch.empty(size, dtype=getattr(torch, t), device=device) for name, (t, size) in forms.items()}
    replicas.copy_leader(tensors.values())
    scatter_tensors(tensors, loop.model, loop.optimizer, loop.average)
    loop.progress = from_json(StageProgress, progress)


def gather_tensors(model: nn.Module, optimizer: optim.Optimizer, average: WeightAverage) -> dict[str, Tensor]:
    """The tensors in training, their average, and what the optimiser remembers of each, by name."""
    tensors = {f"{WEIGHTS}/{name}": tensor.contiguous() for name, tensor in trained_tensors(model).items()}
    tensors |= {f"{AVERAGE}/{name}": tensor.contiguous() for name, tensor in average.tensors.items()}
    for name, parameter in model.named_parameters():
        for field, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{OPTIMIZER}/{field}/{name}"] = value.contiguous()
    return tensors


def scatter_tensors(
    tensors: dict[str, Tensor], model: nn.Module, optimizer: optim.Optimizer, average: WeightAverage
) -> None:
    """Put back what `gather_tensors` gave. Raises TrainingError if it is not of this model and optimiser."""
    weights = {name.removeprefix(f"{WEIGHTS}/"): t for name, t in tensors.items() if name.startswith(WEIGHTS)}
    if weights.keys() != trained_tensors(model).keys():
        raise TrainingError("the saved state is of other depth groups than the stage trains")
    model.load_state_dict(weights, strict=False)
    # Cloned: what is mapped from a file lies less aligned, and matrix products of it may have other bits.
    average.tensors = {n.removeprefix(f"{AVERAGE}/"): t.clone() for n, t in tensors.items() if n.startswith(AVERAGE)}
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == OPTIMIZER:
            field, _, parameter = rest.partition("/")
            optimizer.state[parameters[parameter]][field] = tensor
