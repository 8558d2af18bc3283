"""Saved state: going on ends as if nothing had happened, and is refused where it could not."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sqlalchemy import update
from tiny import facts

from graftwork.database import run_heads
from graftwork.errors import Paused
from graftwork.storage import Store, StoreFull
from graftwork.training import engine, state
from graftwork.training.bundle import ServingBundle
from graftwork.training.contract import ResumeContract, ResumeRefused, code_digest
from graftwork.training.engine import ResumeWish, run_stages
from graftwork.training.lease import Replaced, hold
from graftwork.training.loop import StageLoop
from graftwork.training.plan import ResolvedRun
from graftwork.training.state import StateKeeper
from graftwork.workspace import Workspace

# The second stage ruins what its first epoch reached, so that the best weights are not the last ones.
RUINOUS = (
    "stages.1.epochs=3",
    "stages.1.learning_rate=0.05",
    "stages.1.schedule=constant",
    "stages.1.clip_norm=100",
    "stages.1.average={ema: 0.5}",
)


# All options of a stage at once.
OPTIONS = (
    "stages.1.train=all",
    "input.pooling=attention",
    "stages.1.augment={word_dropout: 0.2, word_deletion: 0.1, word_swap: 0.2}",
    "stages.1.accumulate=2",
    "stages.1.average={ema: 0.9, after: 0.2}",
    "stages.1.l2_sp=0.1",
    "stages.1.schedule=one-cycle",
)

# The same for adapters, with randomness of their own.
RUINOUS_ADAPTERS = (
    *RUINOUS,
    "stages.1.learning_rate=0.5",
    "stages.1.train=[head, lora]",
    "stages.1.lora={rank: 2, dora: true, dropout: 0.1, blocks: 'top:2'}",
)
for_adapters = pytest.mark.parametrize("training", [RUINOUS_ADAPTERS], indirect=True, ids=["adapters"])
for_both = pytest.mark.parametrize("training", [RUINOUS, RUINOUS_ADAPTERS], indirect=True, ids=["blocks", "adapters"])


@dataclass(frozen=True)
class Training:
    """A run in a workspace, trained in this process."""

    run: ResolvedRun
    workspace: Workspace

    def go(self, stop_after: int | None = None, **wish: Any) -> tuple[ServingBundle | None, list[dict[str, Any]]]:
        """Train until it has asked `stop_after` times whether to stop; the bundle, if it came so far, and events."""
        asked, events = count(1), list[dict[str, Any]]()
        try:
            should_stop = (lambda: False) if stop_after is None else (lambda: next(asked) > stop_after)
            bundle = run_stages(self.run, self.workspace, events.append, should_stop, ResumeWish(**wish))
        except Paused:
            return None, events
        return bundle, events

    def finish(self, **wish: Any) -> ServingBundle:
        bundle, _ = self.go(**wish)
        assert bundle is not None
        return bundle

    def states(self) -> list[str]:
        store = self.workspace.store
        return [*store.keys("state"), *store.keys("weights")]


@pytest.fixture
def training(request: pytest.FixtureRequest, resolve: Callable[..., ResolvedRun], workspace: Workspace) -> Training:
    """The ruinous run, or the one that a test asks for."""
    return Training(resolve(*getattr(request, "param", RUINOUS)), workspace)


@pytest.fixture
def unbroken(training: Training, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingBundle]:
    """What the run gives if nothing interrupts it; made in another store, so that this one is fresh."""
    place = tmp_path_factory.mktemp("unbroken") / "store"
    shutil.copytree(training.workspace.store.root, place)
    other = replace(training.workspace, store=Store(place))
    yield Training(training.run, other).finish()


@for_both
def test_the_best_epoch_is_not_the_last(unbroken: ServingBundle) -> None:
    """Else several of the tests below would show nothing."""
    assert unbroken.stages[1].best_epoch == 1
    assert len(unbroken.stages[1].epochs) == 3


@pytest.mark.parametrize(
    "training", [RUINOUS, RUINOUS_ADAPTERS, OPTIONS], indirect=True, ids=["blocks", "adapters", "options"]
)
def test_a_training_that_is_stopped_again_and_again_ends_as_an_unbroken_one(
    training: Training, unbroken: ServingBundle
) -> None:
    """After every third question, which is between two steps or while it validates, in every epoch of every stage."""
    for _ in range(500):
        bundle, _ = training.go(stop_after=3)
        if bundle is not None:
            break
        assert len([key for key in training.states() if key.startswith("state/")]) == 1
    assert bundle is not None
    assert facts(bundle) == facts(unbroken)
    assert training.states() == []


def test_a_stop_while_an_average_is_validated_saves_the_raw_weights(
    training: Training, unbroken: ServingBundle
) -> None:
    """The average is in their place then."""
    events: list[dict[str, Any]] = []

    def has_made_the_last_step() -> bool:
        return any(event["event"] == "step" and (event["stage"], event["step"]) == last for event in events)

    last = ("top", unbroken.stages[1].epochs[-1].step)
    with pytest.raises(Paused):
        run_stages(training.run, training.workspace, events.append, has_made_the_last_step)
    assert facts(training.finish()) == facts(unbroken)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_has_a_part_in_the_end(
    resolve: Callable[..., ResolvedRun], workspace: Workspace, option: str
) -> None:
    """Without any one of them the weights are others."""
    runs = (resolve(*OPTIONS), resolve(*(other for other in OPTIONS if other != option)))
    ends = [Training(run, workspace).finish().stages[-1].weights_digest for run in runs]
    assert ends[0] != ends[1]


def test_it_goes_on_at_the_step_it_saved(training: Training) -> None:
    """Not before, not after; and it says so."""
    _, events = training.go(stop_after=7)
    saved = next(event for event in events if event["event"] == "saved")
    _, events = training.go(stop_after=2)
    resumed = next(event for event in events if event["event"] == "resumed")
    saved_again = next(event for event in events if event["event"] == "saved")
    assert (resumed["step"], saved_again["step"]) == (saved["step"], saved["step"] + 2)


def _weights(loop: StageLoop) -> None:
    with torch.no_grad():
        for parameter in loop.model.head.parameters():
            parameter.zero_()


def _moment(name: str) -> Callable[[StageLoop], None]:
    def drop(loop: StageLoop) -> None:
        for values in loop.optimizer.state.values():
            values[name].zero_()

    return drop


def _progress(**values: Any) -> Callable[[StageLoop], None]:
    return lambda loop: vars(loop.progress).update(values)


def _best_weights(loop: StageLoop) -> None:
    loop.best_weights = {name: torch.zeros_like(tensor) for name, tensor in loop.best_weights.items()}


def _of_adapters(drop: Callable[[StageLoop, torch.nn.Parameter], Any]) -> Callable[[StageLoop], None]:
    def drop_each(loop: StageLoop) -> None:
        for name, parameter in loop.model.named_parameters():
            if ".lora_" in name:
                drop(loop, parameter)

    return drop_each


def _average(loop: StageLoop) -> None:
    for tensor in loop.average.tensors.values():
        tensor.zero_()


DROPPED: dict[str, Callable[[StageLoop], None]] = {
    "weights": _weights,
    "exp_avg": _moment("exp_avg"),
    "exp_avg_sq": _moment("exp_avg_sq"),
    "optimizer step": _moment("step"),
    "step": _progress(step=0),
    "losses": _progress(losses=[]),
    "epochs": _progress(epochs=[]),
    "steps": _progress(steps=[]),
    "best_epoch": _progress(best_epoch=0),
    "best_weights": _best_weights,
    "average": _average,
}


DROPPED_OF_ADAPTERS: dict[str, Callable[[StageLoop], None]] = {
    "weights": _of_adapters(lambda loop, parameter: parameter.data.zero_()),
    "exp_avg": _of_adapters(lambda loop, parameter: loop.optimizer.state[parameter]["exp_avg"].zero_()),
    "exp_avg_sq": _of_adapters(lambda loop, parameter: loop.optimizer.state[parameter]["exp_avg_sq"].zero_()),
    "optimizer step": _of_adapters(lambda loop, parameter: loop.optimizer.state[parameter]["step"].zero_()),
}


def go_on_without(
    drop: Callable[[StageLoop], None], training: Training, unbroken: ServingBundle, monkeypatch: pytest.MonkeyPatch
) -> ServingBundle | None:
    """The end if something is lost in the middle of the second stage's second epoch; None if there is no end."""
    steps = unbroken.stages[1].epochs[0].step
    training.go(stop_after=unbroken.stages[0].epochs[-1].step + 1 + steps + 1 + steps // 2)
    restore = StateKeeper.restore

    def restore_without(keeper: StateKeeper, loop: StageLoop) -> None:
        restore(keeper, loop)
        assert loop.progress.best_epoch == 1 and loop.progress.losses
        drop(loop)

    monkeypatch.setattr(StateKeeper, "restore", restore_without)
    try:
        return training.finish()
    except (IndexError, KeyError, ZeroDivisionError):
        return None


@pytest.mark.parametrize("field", DROPPED)
def test_nothing_is_saved_for_nothing(
    training: Training, unbroken: ServingBundle, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    """Without any one field the end is another one, or there is none: so the tests above would notice its loss."""
    bundle = go_on_without(DROPPED[field], training, unbroken, monkeypatch)
    assert bundle is None or facts(bundle) != facts(unbroken)


@for_adapters
@pytest.mark.parametrize("field", DROPPED_OF_ADAPTERS)
def test_nothing_of_adapters_is_saved_for_nothing(
    training: Training, unbroken: ServingBundle, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    """The same if it is lost of the adapters only."""
    bundle = go_on_without(DROPPED_OF_ADAPTERS[field], training, unbroken, monkeypatch)
    assert bundle is not None and facts(bundle) != facts(unbroken)


@pytest.mark.parametrize("field", [field.name for field in fields(ResumeContract)])
def test_a_changed_contract_is_refused_by_name(
    training: Training, unbroken: ServingBundle, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    """Old and new value are named; the state stays; as it was before, it goes on to the exact end."""
    training.go(stop_after=7)
    real = engine.contract_of

    def changed(*arguments: Any) -> ResumeContract:
        contract = real(*arguments)
        return replace(contract, **{field: 99 if isinstance(getattr(contract, field), int) else "other"})

    monkeypatch.setattr(engine, "contract_of", changed)
    with pytest.raises(
        ResumeRefused, match=rf"stage 'head' at step \d+: {field} changed .* -> (99|other).*--accept-drift"
    ):
        training.go()
    monkeypatch.setattr(engine, "contract_of", real)
    assert facts(training.finish()) == facts(unbroken)


def test_an_accepted_change_is_on_record(
    training: Training, unbroken: ServingBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the result of the stage that went on in spite of it, also after another resume; other stages are exact."""
    training.go(stop_after=7)
    real = engine.contract_of
    monkeypatch.setattr(engine, "contract_of", lambda *arguments: replace(real(*arguments), threads=99))
    training.go(stop_after=2, accept_drift=("threads",))
    head, top = training.finish().stages
    assert [drift.partition(":")[0] for drift in head.drift] == ["threads"]
    assert head.drift[0].endswith("-> 99")
    assert top.drift == ()


def test_a_restart_begins_the_stage_again(
    training: Training, unbroken: ServingBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished stages stay; the state that can't be continued is gone."""
    training.go(stop_after=unbroken.stages[0].epochs[-1].step + 6)
    real = engine.contract_of
    monkeypatch.setattr(engine, "contract_of", lambda *arguments: replace(real(*arguments), threads=99))
    bundle, events = training.go(restart=True)
    assert bundle is not None and facts(bundle) == facts(unbroken)
    assert [event["event"] for event in events][:2] == ["reused", "stage"]
    assert "resumed" not in {event["event"] for event in events}


@pytest.mark.parametrize("kind", ["state", "weights"])
def test_a_damaged_state_is_never_loaded(training: Training, unbroken: ServingBundle, kind: str) -> None:
    """A flipped bit is found, said, and the stage begins again, to the same end."""
    training.go(stop_after=unbroken.stages[0].epochs[-1].step + 1 + unbroken.stages[1].epochs[0].step + 3)
    (key,) = training.workspace.store.keys(kind)
    file = training.workspace.store.root / key / state.TENSORS
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    bundle, events = training.go()
    assert [event["kind"] for event in events if event["event"] == "lost"] == [kind]
    assert bundle is not None and facts(bundle) == facts(unbroken)


def test_a_full_disk_leaves_the_state_before(
    training: Training, unbroken: ServingBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says so; once there is room again, it goes on."""
    training.go(stop_after=7)
    before = training.states()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, pytest.raises(StoreFull, match="no room on the disk"):
        patched.setattr(state, "save_file", full)
        training.go(stop_after=2)
    assert training.states() == before
    assert facts(training.finish()) == facts(unbroken)


@pytest.mark.parametrize("point", ["state.before_head", "state.after_head"])
def test_a_replaced_one_takes_nothing_from_its_successor(
    training: Training, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """It slept while another process took the run over and saved; what it does when it wakes leaves that alone."""
    database, store = training.workspace.database, training.workspace.store
    successor = f"state/{training.run.run_id}5ced"

    def sleep(passed: str) -> None:
        if passed == point and not store.find(successor):
            with store.writing(successor) as folder:
                (folder / state.RECORD).write_text("the successor's")
            with database.begin() as connection:
                taken = {"owner": "elsewhere:1:1.0", "fence": run_heads.c.fence + 1, "state_digest": "5ced"}
                connection.execute(update(run_heads).values(taken))

    training.go(stop_after=3)
    monkeypatch.setattr(state, "fault", sleep)
    with pytest.raises((Replaced, Paused)):
        run_stages(training.run, training.workspace, lambda event: None, lambda: True)
    assert store.open(successor) is not None


def test_one_that_is_replaced_before_it_forgets_forgets_nothing(training: Training) -> None:
    """Also if it never saved, so that there was nothing of its own to forget."""
    store = training.workspace.store
    with hold(training.workspace.database, training.run.run_id, 60, str) as lease:
        keeper: Any = StateKeeper(store, lease, None, print, share=1)  # type: ignore[arg-type]
        with training.workspace.database.begin() as connection:
            connection.execute(update(run_heads).values(fence=run_heads.c.fence + 1))
        with store.writing(f"state/{training.run.run_id}5ced") as folder:
            (folder / state.RECORD).write_text("the successor's")
        with pytest.raises(Replaced):
            keeper.forget()
    assert store.keys("state") == [f"state/{training.run.run_id}5ced"]


def test_saving_waits_until_its_share_of_the_time_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that took a second is made up for by forty-nine of training, at two hundredths."""

    class Held:
        run_id, state = "a", None

        def check(self) -> None: ...

    clock = iter([100.0, 149.0, 150.0, 1150.0])
    monkeypatch.setattr(state, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    keeper: Any = StateKeeper(None, Held(), None, print, share=0.02)  # type: ignore[arg-type]
    keeper._cost = 1.0
    assert (keeper.is_due(), keeper.is_due()) == (False, True)
    keeper._spent = 21.0  # saves that took longer than the ones before them are made up for, too
    assert not keeper.is_due()


def test_the_code_that_trains_is_part_of_the_contract() -> None:
    """Its digest is one of files that exist."""
    assert len(code_digest()) == 64
