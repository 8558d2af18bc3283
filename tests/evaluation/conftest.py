"""A dataset whose label is in its words, and tiny models that were never trained on it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graftwork.data.manifest import DatasetManifest, RowCounts
from graftwork.evaluation.baselines import FrozenEncoder
from graftwork.fingerprint import digest, to_json
from graftwork.storage import Store

CLASSES = ("negative", "positive")
GOOD, BAD = ["good", "great", "wonderful", "clever"], ["bad", "awful", "dull", "boring"]
FILLER = ["the", "film", "movie", "plot", "acting", "was", "is", "and"]
ROWS = 240
SIDES = ["train"] * 6 + ["validation"] * 2 + ["holdout"] * 4


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def rows() -> pd.DataFrame:
    """Rows of texts in which one word tells the label; every third row belongs to a group of its side."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, ROWS)
    sides = [SIDES[row % len(SIDES)] for row in range(ROWS)]
    texts = [
        " ".join([*rng.choice(FILLER, 6), rng.choice(GOOD if label else BAD), f"n{row}"])
        for row, label in enumerate(labels)
    ]
    return pd.DataFrame(
        {
            "row_id": [f"s/{row:04d}" for row in range(ROWS)],
            "source": np.where(np.arange(ROWS) % 2, "odd", "even"),
            "group": [f"s/{sides[row]}{row // 36}" if row % 3 == 0 else None for row in range(ROWS)],
            "text": texts,
            "text_b": None,
            "label": labels,
            "side": sides,
            "unit": [f"u{row}" for row in range(ROWS)],
            "file": "reviews.csv",
            "line": np.arange(ROWS),
        }
    )


@pytest.fixture
def publish(store: Store) -> Callable[[pd.DataFrame], DatasetManifest]:
    """Puts rows into the store as a dataset."""

    def publish(rows: pd.DataFrame) -> DatasetManifest:
        counts = RowCounts(len(rows), len(rows), 0, 0)
        content = digest(rows.astype(object).where(rows.notna(), None).values.tolist())
        sides = {
            side: {name: int((part["label"] == index).sum()) for index, name in enumerate(CLASSES)}
            for side, part in rows.groupby("side")
        }
        manifest = DatasetManifest("reviews", content, content, content, None, (), counts, CLASSES, sides)
        with store.writing(manifest.key) as folder:
            rows.sort_values("row_id").to_parquet(folder / "rows.parquet", index=False)
            (folder / "manifest.json").write_text(to_json(manifest), encoding="utf-8")
        return manifest

    return publish


@pytest.fixture
def manifest(rows: pd.DataFrame, publish: Callable[[pd.DataFrame], DatasetManifest]) -> DatasetManifest:
    return publish(rows)


@pytest.fixture
def encoder(store: Store, tiny_checkpoint: Path) -> FrozenEncoder:
    """The tiny checkpoint, in the store as a retrieved one is."""
    key = f"checkpoint/{'c' * 64}"
    with store.writing(key) as folder:
        shutil.copytree(tiny_checkpoint, folder, dirs_exist_ok=True)
    return FrozenEncoder(key, "mean", 32, "float32")


@pytest.fixture
def write_model(tiny_checkpoint: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a servable model with a random head."""

    def write(seed: int, classes: tuple[str, ...] = CLASSES) -> Path:
        from safetensors.torch import save_file

        from graftwork.models.serving.config import WEIGHTS, ServingConfig
        from graftwork.models.text import load_pretrained

        folder = tmp_path / f"model{seed}"
        shutil.copytree(tiny_checkpoint, folder)
        config = ServingConfig(classes, ("text",), "mean", max_tokens=16)
        config.write(folder)
        save_file(load_pretrained(tiny_checkpoint, config, seed).state_dict(), folder / WEIGHTS)
        return folder

    return write
