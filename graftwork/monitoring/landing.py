"""When to train again: what has landed for a recipe, whether it is whole and enough, and that it is taken once.

A schedule looks again and again, on as many hosts as there are, and any of them may be killed; what is known lies in
the database. What a recipe's sources hold is taken as a whole: it is read when it has not changed for the recipe's
quiet time, and each manifest that comes of it is trained on once. What lands meanwhile joins the next one.
Not here: how a training is started, which is an argument.
"""

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from sqlalchemy import ColumnElement, Connection, Row, insert, select, update

from graftwork.data.manifest import load_auxiliary, load_rows, open_manifest, validate_data
from graftwork.data.remote import RemoteFolder
from graftwork.data.sources import stamp_files
from graftwork.database import Database, landings, retrainings, timestamp
from graftwork.errors import DataError
from graftwork.faults import fault
from graftwork.fingerprint import digest
from graftwork.phrases import duration
from graftwork.recipe import Recipe, RetrainSection
from graftwork.sections.data import SourceSection
from graftwork.workspace import Workspace

Outcome = Literal["nothing new", "waiting", "refused", "under way", "started"]


@dataclass(frozen=True)
class Retraining:
    """A training that a landing asks for, counted from 1 in its lineage. manifest: digest. run: None until started."""

    lineage: str
    sequence: int
    manifest: str
    reason: str
    run: str | None = None


@dataclass(frozen=True)
class Watched:
    """What came of a look, and why, in a sentence. retraining: the one that is started or under way."""

    outcome: Outcome
    reason: str
    retraining: Retraining | None = None


class Trainer(Protocol):
    """Starts trainings elsewhere, and knows when they are over."""

    def start(self, retraining: Retraining) -> str:
        """The id of its run. Asked again, after a crash or by two hosts at once, it gives the same run."""
        ...

    def is_over(self, run: str) -> bool:
        """True if the run has ended, however it did."""
        ...


class Sources(Protocol):
    """What a recipe's data comes from."""

    def list(self) -> str:
        """A digest of which files there are, none of them read."""
        ...

    def read(self) -> str:
        """The digest of the manifest of what they hold now. Raises DataError if it can't be trained on."""
        ...

    def rows_changed(self, manifest: str, before: str | None) -> int:
        """How many rows came or went from one manifest to another; from None, all came."""
        ...


@dataclass(frozen=True)
class RecipeSources:
    """The real ones: files of a recipe, and the manifests that its runs are trained on, too."""

    recipe: Recipe
    workspace: Workspace

    def list(self) -> str:
        return digest([stamp for source in self.recipe.sources for stamp in _stamps(source, self.recipe.root)])

    def read(self) -> str:
        return validate_data(self.recipe, self.workspace).digest

    def rows_changed(self, manifest: str, before: str | None) -> int:
        return len(self._rows(manifest) ^ (set() if before is None else self._rows(before)))

    def _rows(self, manifest: str) -> set[str]:
        store = self.workspace.store
        found = open_manifest(store, manifest)
        beside = (load_auxiliary(store, found, each.name) for each in found.auxiliary)
        return {row for rows in (load_rows(store, found), *beside) for row in rows["row_id"]}


def _stamps(source: SourceSection, root: Path) -> list[tuple[Any, ...]]:
    """What tells, nothing read, whether anything changed in a source."""
    if isinstance(source.place, Path):
        return stamp_files(source.name, source.place, root)
    return [(source.name, *astuple(file)) for file in RemoteFolder(source.place).list()]


def utc_now() -> datetime:
    """The time of this machine's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Watcher:
    """Looks at the sources of one lineage of manifests. clock: gives the time in UTC."""

    lineage: str
    policy: RetrainSection
    database: Database
    sources: Sources
    trainer: Trainer
    clock: Callable[[], datetime] = utc_now

    @classmethod
    def of(cls, recipe: Recipe, workspace: Workspace, trainer: Trainer) -> "Watcher":
        """The watcher of a recipe's sources."""
        return cls(recipe.name, recipe.retrain, workspace.database, RecipeSources(recipe, workspace), trainer)

    def look(self, is_whole: bool = False) -> Watched:
        """Look once, and start the training that what has landed asks for.

        is_whole: nothing is being written any more, as whoever handed the files in knows, so that no time has to pass.
        Data that can't be trained on is refused once; it is looked at again when it has changed.
        """
        under_way = self._follow_up()
        landing = self._note()
        if under_way is not None:
            return under_way
        if landing.listing == landing.settled:
            return Watched("nothing new", landing.problem or "nothing has landed")
        waiting = None if is_whole else self._why_wait(landing)
        if waiting is None and landing.looked == landing.listing:
            waiting = self._why_too_few(landing, landing.rows)
        return Watched("waiting", waiting) if waiting else self._take(landing)

    def _follow_up(self) -> Watched | None:
        """What there is to say of a retraining that was asked for and is not over; what a crash left is started now."""
        with self.database.begin() as connection:
            last = self._last(connection)
            if last is None or last.closed_at is not None:
                return None
        retraining = _as_retraining(last)
        if retraining.run is None:
            return self._start(retraining)
        if not self.trainer.is_over(retraining.run):
            return Watched("under way", f"run {retraining.run} is under way: what lands joins the next", retraining)
        self._write(retraining, closed_at=timestamp(self.clock()))
        return None

    def _note(self) -> Row[Any]:
        """The landing as it is known from now on; a clock that was put back keeps nobody waiting."""
        listing, now = self.sources.list(), timestamp(self.clock())
        with self.database.begin(locking=landings) as connection:
            known = connection.execute(select(landings).where(self._is_mine)).one_or_none()
            if known is None:
                first = {"lineage": self.lineage, "listing": listing, "changed_at": now, "pending_since": now}
                connection.execute(insert(landings).values(first))
            else:
                changed_at = min(known.changed_at, now) if known.listing == listing else now
                since = now if known.listing == known.settled else min(known.pending_since, now)
                found = {"listing": listing, "changed_at": changed_at, "pending_since": since}
                connection.execute(update(landings).where(self._is_mine).values(found))
            return connection.execute(select(landings).where(self._is_mine)).one()

    def _why_wait(self, landing: Row[Any]) -> str | None:
        """Files have to be found unchanged once, and for the quiet time unless that takes too long."""
        policy, unchanged = self.policy, self._since(landing.changed_at)
        if unchanged <= 0:
            return "files have landed: they are taken when they stay as they are"
        left = policy.quiet.total_seconds() - unchanged
        if left > 0 and self._since(landing.pending_since) < policy.max_wait.total_seconds():
            return f"files have landed: they are taken if nothing changes for another {duration(left)}"
        return None

    def _why_too_few(self, landing: Row[Any], rows: int) -> str | None:
        is_patient = self._since(landing.pending_since) < self.policy.max_wait.total_seconds()
        if 0 < rows < self.policy.min_rows and is_patient:
            return f"{rows} of {self.policy.min_rows} rows have landed"
        return None

    def _take(self, landing: Row[Any]) -> Watched:
        """Read what landed, and ask for a training if there is anything to learn from it."""
        try:
            manifest = self.sources.read()
        except DataError as error:
            self._settle(landing, problem=f"what landed was refused: {error}")
            return Watched("refused", str(error))
        if self.sources.list() != landing.listing:
            return Watched("waiting", "files landed while the others were read: they are taken together")
        with self.database.begin() as connection:
            last = self._last(connection)
        rows = self.sources.rows_changed(manifest, last.manifest_digest if last else None)
        waiting = self._why_too_few(landing, rows)
        if waiting:
            self._update(looked=landing.listing, rows=rows)
            return Watched("waiting", waiting)
        retraining = self._ask(landing, manifest, f"{rows} rows came or went") if rows else None
        if retraining is None:
            self._settle(landing)
            return Watched("nothing new", "what landed holds no row that was not trained on")
        fault("landing.after_request")
        return self._start(retraining)

    def _ask(self, landing: Row[Any], manifest: str, reason: str) -> Retraining | None:
        """The request for the manifest's training; None if it was trained on, another one if that is not over."""
        with self.database.begin(locking=landings) as connection:
            last = self._last(connection)
            if last is not None and last.closed_at is None:
                return _as_retraining(last)
            asked = (retrainings.c.lineage == self.lineage) & (retrainings.c.manifest_digest == manifest)
            if connection.execute(select(retrainings).where(asked)).one_or_none() is not None:
                return None
            retraining = Retraining(self.lineage, 1 + (last.sequence if last else 0), manifest, reason)
            row = {"lineage": self.lineage, "sequence": retraining.sequence, "manifest_digest": manifest}
            row |= {"reason": reason, "created_at": timestamp(self.clock())}
            connection.execute(insert(retrainings).values(row))
            settled = {"settled": landing.listing, "problem": None}
            connection.execute(update(landings).where(self._is_mine).values(settled))
        return retraining

    def _start(self, retraining: Retraining) -> Watched:
        run = self.trainer.start(retraining)
        fault("landing.after_start")
        self._write(retraining, run=run)
        return Watched("started", retraining.reason, replace(retraining, run=run))

    def _settle(self, landing: Row[Any], problem: str | None = None) -> None:
        """There is nothing more to do about this listing."""
        self._update(settled=landing.listing, problem=problem)

    def _update(self, **values: str | int | None) -> None:
        with self.database.begin() as connection:
            connection.execute(update(landings).where(self._is_mine).values(values))

    def _write(self, retraining: Retraining, **values: str) -> None:
        row = (retrainings.c.lineage == self.lineage) & (retrainings.c.sequence == retraining.sequence)
        with self.database.begin() as connection:
            connection.execute(update(retrainings).where(row).values(values))

    def _last(self, connection: Connection) -> Row[Any] | None:
        mine = select(retrainings).where(retrainings.c.lineage == self.lineage)
        return connection.execute(mine.order_by(retrainings.c.sequence.desc()).limit(1)).one_or_none()

    @property
    def _is_mine(self) -> ColumnElement[bool]:
        return landings.c.lineage == self.lineage

    def _since(self, stamp: str) -> float:
        """Seconds."""
        return (self.clock() - datetime.fromisoformat(stamp)).total_seconds()


def _as_retraining(row: Row[Any]) -> Retraining:
    return Retraining(row.lineage, row.sequence, row.manifest_digest, row.reason, row.run)
