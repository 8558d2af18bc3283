"""A small ResNet from nothing on 600 scanned digits, against one who moves pixels: what that gains and costs.

An epsilon of 0.1 is a tenth of what is between black and white: a person reads such a digit as before.
"""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.scenarios.adversarial import Attacks, attacked
from benchmarks.scenarios.project import ROOT, Project, draw
from benchmarks.scenarios.trials import Arm, Found, Scenario

if TYPE_CHECKING:
    import pandas as pd

ROWS, VALIDATED = 600, 50
RECIPE = "recipes/digits-low.yaml"
SHARED = (
    "data.sources=[{name: low, path: digits/low}, {name: high, path: digits/high}]",
    "data.label.classes=[" + ", ".join(f'"{digit}"' for digit in range(10)) + "]",
)
STAGE = "{name: full, train: all, epochs: 10, learning_rate: 2e-3, schedule: one-cycle, keep_epoch: last}"
ATTACKS: Attacks = {"FGSM 0.1": (0.1, 1), "PGD 0.05": (0.05, 10), "PGD 0.1": (0.1, 10), "PGD 0.2": (0.2, 10)}


def digit_project(folder: Path) -> Project:
    """One with all the scans, and the untrained ResNet."""
    project = Project(folder, RECIPE, SHARED)
    subprocess.run([sys.executable, ROOT / "examples/digits/prepare.py", folder / "digits"], check=True)
    return project


def rows_of(project: Project) -> "pd.DataFrame":
    """Those that are accepted, each on its side."""
    from graftwork.data.manifest import load_rows

    return load_rows(project.workspace.store, project.resolve().manifest)


def keep_drawn(project: Project, seed: int) -> None:
    """Take away the scans to train on and to validate on that the seed does not draw."""
    rows = rows_of(project)
    sides: Mapping[str, int] = {"train": ROWS, "validation": VALIDATED}
    drawn = {row for side, count in sides.items() for row in draw(rows[rows["side"] == side], count, seed)["row_id"]}
    for row in rows[(rows["side"] != "holdout") & ~rows["row_id"].isin(drawn)].itertuples():
        (project.folder / "digits" / row.source / row.file).unlink()


def train(seed: int, folder: Path, adversary: str | None) -> Found:
    """All layers on scans that are drawn anew for each seed."""
    project = digit_project(folder / "project")
    keep_drawn(project, seed)
    against = () if adversary is None else (f"stages.0.adversary={adversary}",)
    trained = project.train(f"train.seed={seed}", f"stages=[{STAGE}]", *against)
    rows = rows_of(project)
    judged = rows[rows["side"] == "holdout"]
    found = project.judge(trained, judged)
    return replace(found, right={**found.right, **attacked(project.load(trained), judged, ATTACKS)})


def _arm(adversary: str | None) -> Arm:
    facts = [SHARED, ROWS, VALIDATED, STAGE, adversary, ATTACKS]
    return Arm(lambda seed, folder: train(seed, folder, adversary), facts)


PIXELS = Scenario(
    {
        "as they are": _arm(None),
        "`{epsilon: 0.1, steps: 1}`": _arm("{epsilon: 0.1, steps: 1}"),
        "`{epsilon: 0.1, steps: 3}`": _arm("{epsilon: 0.1, steps: 3}"),
    },
    seeds=3,
)
