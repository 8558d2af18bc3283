"""Evaluations of two-class models that are right on chosen rows, with their predictions in a real store."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graftwork.database import Database
from graftwork.evaluation.evaluation import Evaluation, Memory, Part, Reference
from graftwork.evaluation.metrics import measure
from graftwork.evaluation.predictions import group_codes, labels_of, open_predictions, predict_rows, probabilities_of
from graftwork.promotion.ledger import Ledger
from graftwork.promotion.witness import Witness
from graftwork.storage import Store

BASELINES = ("majority", "tfidf", "frozen-head")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Database.open(f"sqlite:///{tmp_path / 'graftwork.db'}"), Witness(tmp_path / "ledger"))


@pytest.fixture
def evaluation_of(store: Store) -> Callable[..., Evaluation]:
    """Gives the evaluation of a candidate beside others, each told by the rows that it is right on.

    recipes: digests by reference; the candidate's is 'new'. known: by reference, which rows it knew. Probabilities are
    0.9 for the predicted class.
    """

    def evaluation_of(
        candidate: np.ndarray,
        *,
        bundle: str = "candidate",
        recipes: dict[str, str] | None = None,
        groups: list[str] | None = None,
        labels: np.ndarray | None = None,
        known: dict[str, np.ndarray] | None = None,
        **others: np.ndarray,
    ) -> Evaluation:
        rows = len(candidate)
        labels = np.arange(rows) % 2 if labels is None else labels
        frame = pd.DataFrame({"row_id": [f"s/{row:05d}" for row in range(rows)], "label": labels, "source": "s"})
        frame = frame.assign(group=groups or [None] * rows, text="t", text_b=None)
        keys, metrics, memory = {}, {}, {}
        for name, is_right in {"candidate": candidate, **others}.items():
            sure = np.where(np.eye(2)[np.where(is_right, labels, 1 - labels)] == 1, 0.9, 0.1)
            keys[name] = predict_rows(store, [is_right.tolist(), labels.tolist()], frame, lambda _, given=sure: given)
            kept = open_predictions(store, keys[name])
            metrics[name] = measure(labels_of(kept), probabilities_of(kept), group_codes(kept), samples=50, seed=0)
        for name, is_known in (known or {}).items():
            part = {
                role: predict_rows(
                    store,
                    [role, is_known.tolist(), keys[role]],
                    frame[is_known],
                    lambda _, key=keys[role], is_in=is_known: probabilities_of(open_predictions(store, key)[is_in]),
                )
                for role in ("candidate", name)
            }
            accuracy, rows_known = metrics["candidate"]["accuracy"], int(is_known.sum())
            memory[name] = Memory(
                Part(rows_known, rows_known, accuracy, accuracy) if rows_known else None,
                Part(rows - rows_known, rows - rows_known, accuracy, accuracy),
                part,
            )
        recipes = recipes or {}
        return Evaluation(
            bundle=bundle,
            recipe="new",
            manifest="m",
            holdout_digest="h",
            rows=rows,
            groups=len(np.unique(group_codes(frame))),
            excluded_rows=0,
            metrics=metrics["candidate"],
            classes=(),
            confusion=(),
            baselines={name: metrics[name] for name in BASELINES if name in others},
            references={name: Reference(3, name, recipe, metrics[name]) for name, recipe in recipes.items()},
            slices=(),
            predictions=keys,
            memory=memory,
        )

    return evaluation_of
