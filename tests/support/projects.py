"""Small projects with real reviews and the real checkpoint, and the command line to run in them.

`from projects import …`: pytest is given this folder, since test folders are no packages.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

ROOT = Path(__file__).parents[2]
GRAFTWORK = Path(sys.executable).with_name("graftwork")
RECIPE = "recipes/review-sentiment.yaml"
MOVIES, AMAZON = 800, 400
# Small enough for a test, two stages so that there is a switch, real data and a verdict that decides.
STAGES = (
    "{name: top, train: head, epochs: 1, learning_rate: 3e-4, head_multiplier: 10}",
    "{name: upper, train: [head, 'top:1'], epochs: 1, learning_rate: 2e-4}",
)
SMALL_STAGES = [
    f"--set=stages=[{', '.join(STAGES)}]",
    "--set=train.batch_tokens=800",
    "--set=input.max_tokens=32",
    "--set=evaluation.baselines=[majority, tfidf]",
]
UNSET = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "GRAFTWORK_HOME", "GRAFTWORK_FAULT", "GRAFTWORK_DB")


@dataclass(frozen=True)
class Project:
    """A folder laid out as a user's, and how its user calls the command line."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / ".graftwork"

    def start(self, *arguments: str, inside: Sequence[str] = (), **environment: str) -> "subprocess.Popen[str]":
        """The command, started. inside: a command that is given ours to run."""
        inherited = {name: value for name, value in os.environ.items() if name not in UNSET}
        return subprocess.Popen(
            [*inside, str(GRAFTWORK), *arguments],
            cwd=self.folder,
            env=inherited | {"OMP_NUM_THREADS": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_heed_interrupts,
        )

    def start_run(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        """A small run of the demo's recipe, started."""
        return self.start("run", RECIPE, *SMALL_STAGES, *arguments, **environment)

    def call(
        self, *arguments: str, code: int = 0, inside: Sequence[str] = (), **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """The finished command; its exit code must be the one that is expected."""
        process = self.start(*arguments, inside=inside, **environment)
        out, err = process.communicate()
        assert process.returncode == code, f"graftwork {' '.join(arguments)}: {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def json(self, *arguments: str, **environment: str) -> Any:
        """What the command prints with --json."""
        return json.loads(self.call(*arguments, "--json", **environment).stdout)

    def run(self, *arguments: str, **environment: str) -> Any:
        """The summary of a small run of the demo's recipe."""
        return self.run_and_log(*arguments, **environment)[0]

    def run_and_log(self, *arguments: str, inside: Sequence[str] = (), **environment: str) -> tuple[Any, str]:
        """The summary of a small run of the demo's recipe, and what it told on the way."""
        done = self.call("run", RECIPE, *SMALL_STAGES, *arguments, "--json", inside=inside, **environment)
        return json.loads(done.stdout), done.stderr

    def stored_keys(self) -> set[str]:
        """What the store holds."""
        root = self.home / "store"
        return {place.parent.relative_to(root).as_posix() for place in root.glob("*/*/MANIFEST.json")}

    def ask_prefect(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the embedded Prefect server's database, read while no server is up."""
        with closing(sqlite3.connect(f"file:{self.home / 'prefect/prefect.db'}?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()

    def mlflow(self) -> "AbstractContextManager[MlflowClient]":
        """MLflow's own client of the embedded store."""
        from graftwork.registry.client import reach_mlflow
        from graftwork.settings import Settings

        return reach_mlflow(Settings(home=self.home))

    def land_amazon(self, rows: int = AMAZON) -> None:
        """New data: Amazon reviews in the landing folder."""
        shorten(ROOT / "examples/reviews/amazon.tsv", self.folder / "landing/amazon/amazon.tsv", rows)


def shorten(source: Path, target: Path, rows: int) -> None:
    """Rows spread evenly over a file without a header: the movies' first rows are nearly all positive."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = source.read_bytes().splitlines(keepends=True)
    target.write_bytes(b"".join(lines[row * len(lines) // rows] for row in range(rows)))


def make_project(folder: Path, rows: int = MOVIES) -> Project:
    """A project folder with the demo's recipe and contract, and some of the movie reviews.

    Its policy asks a first model for as much as a holdout of 100 rows can show: to be better than chance.
    """
    for name in ("recipes", "policies", "contracts"):
        shutil.copytree(ROOT / name, folder / name)
    policy = folder / "policies/standard.yaml"
    text = policy.read_text().replace("minimum_rows: 500", "minimum_rows: 80")
    policy.write_text(text.replace("baselines: [majority, tfidf, frozen-head]", "baselines: [majority]"))
    shorten(ROOT / "examples/reviews/movies.tsv", folder / "examples/reviews/movies.tsv", rows)
    (folder / ".graftwork").mkdir()
    return Project(folder)


def _heed_interrupts() -> None:
    """A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def processes_below(folder: Path) -> Sequence[str]:
    """Command lines of living processes that work in a folder, by their environment or their place."""
    import psutil

    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            places = (process.environ().get("GRAFTWORK_HOME", "/"), process.cwd())
            if any(Path(place).is_relative_to(folder) for place in places):
                found.append(" ".join(process.info["cmdline"] or []))
        except (psutil.Error, OSError):
            continue
    return found
