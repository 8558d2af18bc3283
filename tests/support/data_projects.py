"""A project with a recipe around the files that a test writes.

`from data_projects import …`: pytest is given this folder, since test folders are no packages.
"""

import json
from pathlib import Path
from typing import Any

from graftwork.data.manifest import DatasetManifest, load_rows, validate_data
from graftwork.database import Database
from graftwork.recipe import Recipe, load_recipe
from graftwork.settings import Settings
from graftwork.storage import Store
from graftwork.workspace import Workspace

WORDS = ("river", "stone", "lamp", "winter", "garden", "paper", "music", "bridge", "silver", "engine", "harbour")


def make_sentence(number: int) -> str:
    """Twelve words that no other number up to a few thousand gives, and none that comes near."""
    return " ".join(f"{WORDS[(number * 7 + place * 5) % 11]}{(number * 31 + place * 17) % 9973}" for place in range(12))


class Project:
    """A folder with data and a recipe; `validate` is what a user's run does first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / ".graftwork").mkdir()
        self.workspace = Workspace(
            Settings(home=root / ".graftwork"),
            Store(root / ".graftwork" / "store"),
            Database.open(f"sqlite:///{root / '.graftwork' / 'graftwork.db'}"),
        )
        self.data: dict[str, Any] = {
            "sources": [{"name": "reviews", "path": "reviews.csv"}],
            "label": {"from": "label", "classes": ["bad", "good"]},
            "split": {"seed": 7},
        }
        self.text: Any = "text"

    def write(self, name: str, content: bytes | str) -> Path:
        """A file below the root, its folders made."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def write_rows(self, name: str, numbers: range = range(200), extra: str = "") -> Path:
        """A CSV of good rows (id, text, label), then `extra` lines."""
        rows = "".join(f"{n},{make_sentence(n)},{('bad', 'good')[n % 2]}\n" for n in numbers)
        return self.write(name, f"id,text,label\n{rows}{extra}")

    def land(self, **source: Any) -> None:
        """Make the source a folder, with one good file in it."""
        self.data["sources"] = [{"name": "reviews", "path": "landing", **source}]
        self.write_rows("landing/a.csv")

    def recipe(self, limit_rows: int | None = None, **sections: Any) -> Recipe:
        """Write the recipe as it is now, and load it. sections: beside those that every recipe here has."""
        recipe = {
            "name": "sentiment",
            "problem_type": "text-classification",
            "data": self.data,
            "input": {"text": self.text},
            "checkpoint": {"source": "file://checkpoint", "licences": ["mit"]},
            "stages": "full",
            "policy": "policy.yaml",
        }
        return load_recipe(self.write("recipe.yaml", json.dumps(recipe | sections)), limit_rows=limit_rows)

    def validate(self, limit_rows: int | None = None) -> DatasetManifest:
        """The manifest of what is there now."""
        return validate_data(self.recipe(limit_rows), self.workspace)

    def validate_as(self, problem_type: str) -> DatasetManifest:
        """The manifest of what is there now, for something else to be learnt."""
        return validate_data(self.recipe(problem_type=problem_type), self.workspace)

    def rows(self, manifest: DatasetManifest) -> dict[str, dict[str, Any]]:
        """The accepted rows by row id."""
        return load_rows(self.workspace.store, manifest).set_index("row_id").to_dict("index")

    def report(self, manifest: DatasetManifest, name: str = "quarantine.csv") -> str:
        """A report that was stored with the manifest."""
        return (self.workspace.store.root / manifest.key / name).read_text(encoding="utf-8")
