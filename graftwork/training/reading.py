"""What the model is given of the texts: how many are cut because they are too long, how many words nothing is known of.

Told of each side, since a share that differs between training and holdout says that the one is not like the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, ClassVar

from graftwork.checkpoints.retrieve import open_checkpoint
from graftwork.data.manifest import load_rows
from graftwork.evaluation.predictions import inputs_of
from graftwork.fingerprint import digest, from_json, to_json
from graftwork.models.catalog import family_of
from graftwork.storage import Store
from graftwork.training.plan import ResolvedRun, TrainingPlan

VERSION = 1  # raised by hand when something else is counted
KIND = "reading"
RECORD = "reading.json"
SIDES = ("train", "validation", "holdout")
TEXTS_AT_ONCE = 1000


@dataclass(frozen=True)
class SideReading:
    """Of the texts of a side. cut: those of which the model reads not all.

    tokens: of all of them as they are, without those that the tokenizer puts around a text. unknown: those among them
    that stand for what it does not know. labels_cut: labels that are longer than what a model may write. words, unread:
    where words have tags, all of them, and those without a token.
    """

    texts: int
    cut: int
    tokens: int
    unknown: int
    labels_cut: int = 0
    words: int = 0
    unread: int = 0

    @property
    def cut_share(self) -> float:
        return self.cut / self.texts if self.texts else 0.0

    @property
    def unread_share(self) -> float:
        return self.unread / self.words if self.words else 0.0

    @property
    def unknown_share(self) -> float:
        return self.unknown / self.tokens if self.tokens else 0.0


@dataclass(frozen=True)
class Reading:
    """What is read of each side, by its name."""

    SCHEMA: ClassVar[int] = 1
    sides: dict[str, SideReading]

    @property
    def shares(self) -> dict[str, float]:
        """By side and name, as they are logged."""
        return {
            f"reading/{side}/{name}": getattr(each, name)
            for side, each in self.sides.items()
            for name in ("cut_share", "unknown_share", *(("unread_share",) if each.words else ()))
        }


def measure_reading(store: Store, run: ResolvedRun) -> Reading | None:
    """What the run's model is given of its texts, counted once and kept; None if it reads no texts."""
    found = find_reading(store, run.plan)
    if found is not None or family_of(run.lock.architecture).modality != "text":
        return found
    from graftwork.models.serving.text import TextEncoder

    plan = run.plan
    encoder = TextEncoder(open_checkpoint(store, run.lock), plan.max_tokens, plan.prompt, plan.columns)
    rows = {side: load_rows(store, run.manifest, sides=(side,)) for side in SIDES}
    read = _read_words if plan.target.is_by_word else _read
    reading = Reading({side: read(encoder, inputs_of(each)) for side, each in rows.items()})
    if plan.writes is not None:
        cut = {side: _count_long(encoder, list(each["label"]), plan.writes) for side, each in rows.items()}
        reading = Reading({side: replace(each, labels_cut=cut[side]) for side, each in reading.sides.items()})
    with store.writing(_key(run.plan)) as folder:
        (folder / RECORD).write_text(to_json(reading), encoding="utf-8")
    return reading


def find_reading(store: Store, plan: TrainingPlan) -> Reading | None:
    """What was counted for runs on this data and this checkpoint, if it was."""
    folder = store.open(_key(plan))
    return None if folder is None else from_json(Reading, (folder / RECORD).read_text(encoding="utf-8"))


def _key(plan: TrainingPlan) -> str:
    asked: dict[str, Any] = {
        "manifest": plan.manifest,
        "checkpoint": plan.checkpoint,
        "max_tokens": plan.max_tokens,
    }
    if plan.writes is not None:
        asked |= {"prompt": plan.prompt, "writes": plan.writes}
    return f"{KIND}/{digest({'version': VERSION} | asked)}"


def _read(encoder: Any, texts: list[Any]) -> SideReading:
    from graftwork.models.text import count_tokens

    counts = [count_tokens(encoder, part) for part in _parts(texts)]
    return SideReading(len(texts), *(sum(each[place] for each in counts) for place in range(3)))


def _count_long(encoder: Any, labels: list[str], most: int) -> int:
    """How many labels have so many tokens or more, with no room for their end."""
    parts = (encoder.tokenizer(part, add_special_tokens=False)["input_ids"] for part in _parts(labels))
    return sum(len(ids) >= most for part in parts for ids in part)


def _read_words(encoder: Any, texts: list[Any]) -> SideReading:
    from graftwork.models.serving.words import UNREAD, first_pieces

    places = [place for part in _parts(texts) for each in first_pieces(encoder, part) for place in each]
    return replace(_read(encoder, texts), words=len(places), unread=places.count(UNREAD))


def _parts(texts: list[Any]) -> Iterator[list[Any]]:
    waiting = iter(texts)
    while part := list(islice(waiting, TEXTS_AT_ONCE)):
        yield part
