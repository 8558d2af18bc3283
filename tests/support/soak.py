"""Many recipes on one server, fed for some minutes: nothing lost, nothing twice, and memory that does not grow.

    python tests/support/soak.py --recipes 50 --minutes 10 [--seed 1]

Servers and workers are those of `graftwork up`, on a PostgreSQL of its own. Each recipe has a landing folder, small
reviews and a tiny checkpoint. Files land in folders that are drawn, some of them twice under two names. When the time
is over, what is asked for is waited for.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import psutil
from servers import postgres_server
from sqlalchemy import create_engine, select
from tiny import write_checkpoint
from up import OVER, Team, team_up

from graftwork.database import retrainings

EVERY_S = 6.0  # a file lands
LOOK_S = 15.0  # memory is looked at
DONE_WITHIN_S = 3600.0  # after the time: two cores train some of them one by one
MOST_GROWTH = 1.1  # of a server's memory, from the third quarter of the time to the last
FIRST_ROWS, ROWS = 60, 20  # of the first landing, and of any other
WORDS = {"yes": "good great wonderful moving warm clever", "no": "bad awful dull boring weak cold"}
SERVERS = {
    "Prefect server": "prefect server start",
    "MLflow server": "mlflow.server",
    "cpu worker": "worker start --pool cpu",
}
RECIPE = """
name: {name}
problem_type: text-classification
data:
  sources: [{{name: made, path: landing/{name}/}}]
  label: {{from: label, classes: ["no", "yes"]}}
  split: {{holdout: 0.2, validation: 0.2, seed: 1, by: [group]}}
input: {{text: text, max_tokens: 16}}
checkpoint: {{source: "file://{checkpoint}", licences: [apache-2.0]}}
train: {{batch_tokens: 256, precision: float32}}
stages: [{{name: head, train: [head], epochs: 1, learning_rate: 1e-2}}]
retrain: {{min_rows: 10, quiet: 1s}}
evaluation: {{baselines: [majority]}}
policy: policy.yaml
"""


@dataclass
class Fed:
    """Reviews that landed, and the numbers of rows by recipe."""

    team: Team
    chance: random.Random
    landed: dict[str, int] = field(default_factory=dict)
    files: int = 0
    duplicates: int = 0

    def land(self, name: str, rows: int) -> None:
        """A file of new rows, written aside and renamed; now and then another with the same."""
        folder = self.team.project.folder / "landing" / name
        folder.mkdir(parents=True, exist_ok=True)
        before = self.landed.get(name, 0)
        lines = [self._review(name, before + number) for number in range(rows)]
        self.landed[name] = before + rows
        for copy in ("", "-again")[: 1 + (self.chance.random() < 0.2)]:
            self.files += 1
            self.duplicates += bool(copy)
            target = folder / f"{self.files:05}{copy}.csv"
            aside = target.with_suffix(".tmp")
            aside.write_text("text,label\n" + "".join(lines))
            aside.rename(target)

    def _review(self, name: str, number: int) -> str:
        label = self.chance.choice(["yes", "no"])
        first, second = self.chance.sample(WORDS[label].split(), 2)
        return f"the {name} film number {number} was {first} and {second},{label}\n"


def main() -> int:
    """0 if nothing was lost or done twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        Path(place).chmod(0o755)  # PostgreSQL's own user has to reach its folder
        (Path(place) / "postgres").mkdir()
        with postgres_server(Path(place) / "postgres") as server, team_up(Path(place), {}, server.get_uri()) as team:
            return soak(team, asked.recipes, asked.minutes, random.Random(asked.seed))


def soak(team: Team, recipes: int, minutes: float, chance: random.Random) -> int:
    folder, fed = team.project.folder, Fed(team, chance)
    write_checkpoint(folder / "checkpoint")
    (folder / "policy.yaml").write_text("minimum_rows: 10\nbaselines: [majority]\n")
    names = [f"soak-{number:02}" for number in range(1, recipes + 1)]
    for name in names:
        (folder / f"{name}.yaml").write_text(RECIPE.format(name=name, checkpoint=folder / "checkpoint"))
        fed.land(name, FIRST_ROWS)
    began = time.monotonic()
    team.call("deploy", *(f"{name}.yaml" for name in names))
    print(f"{recipes} recipes deployed in {time.monotonic() - began:.0f} s", flush=True)
    sizes: list[dict[str, int]] = []
    began = landed_at = looked_at = time.monotonic()
    while (now := time.monotonic()) - began < 60 * minutes:
        if now - landed_at >= EVERY_S:
            landed_at = now
            fed.land(chance.choice(names), ROWS)
        if now - looked_at >= LOOK_S:
            looked_at = now
            sizes.append(memory(team))
        time.sleep(0.2)
    print(
        f"{fed.files} files landed, {fed.duplicates} of them duplicates; {len(asked_for(team))} trainings", flush=True
    )
    team.wait_for(lambda: is_done(team, fed), DONE_WITHIN_S)
    return tell(team, fed, sizes, time.monotonic() - began)


def memory(team: Team) -> dict[str, int]:
    """Bytes that each server and its children hold by themselves, a worker's without the flows it runs."""
    found: Counter[str] = Counter()
    for name, words in SERVERS.items():
        for process in team.processes(words):
            with suppress(psutil.Error):
                found[name] += process.memory_full_info().uss
    return dict(found)


def asked_for(team: Team) -> list[tuple[str, str]]:
    """The trainings that were asked for: recipe and manifest."""
    engine = create_engine(team.environment["GRAFTWORK_DB"])
    with engine.connect() as connection:
        rows = connection.execute(select(retrainings.c.lineage, retrainings.c.manifest_digest)).all()
    engine.dispose()
    return [(row.lineage, row.manifest_digest) for row in rows]


def is_done(team: Team, fed: Fed) -> bool:
    """All runs are over, and each recipe's newest has all of its rows."""
    if any(run["state_type"] not in OVER for run in team.runs(manifest=None)):
        return False
    return trained_rows(team) == fed.landed


def trained_rows(team: Team) -> dict[str, int]:
    """Rows of the newest manifest that each recipe was trained on."""
    from graftwork.data.manifest import open_manifest
    from graftwork.storage import Store

    store, rows = Store(team.project.home / "store"), dict[str, int]()
    for run in team.runs(manifest=None):
        manifest = open_manifest(store, run["parameters"]["manifest"])
        rows[manifest.lineage] = max(rows.get(manifest.lineage, 0), manifest.counts.kept)
    return rows


def tell(team: Team, fed: Fed, sizes: list[dict[str, int]], seconds: float) -> int:
    """What was found; 0 if it is as it should be, and no server grows."""
    runs, wanted = team.runs(manifest=None), asked_for(team)
    made = Counter((Path(run["parameters"]["recipe"]).stem, run["parameters"]["manifest"]) for run in runs)
    failed = [run["state"]["message"] for run in runs if run["state_type"] != "COMPLETED"]
    lost = set(wanted) - made.keys()
    twice = [each for each, count in made.items() if count > 1]
    print(f"{len(runs)} runs in {seconds:.0f} s; failed {len(failed)}, lost {len(lost)}, twice {len(twice)}")
    grown = []
    for name in SERVERS:
        held = [each.get(name, 0) / (1 << 20) for each in sizes]
        quarter = max(1, len(held) // 4)
        third, last = mean(held[-2 * quarter : -quarter] or held), mean(held[-quarter:])
        print(f"{name}: {third:.0f} MiB in the third quarter of the time, {last:.0f} in the last")
        grown += [name] * (last > MOST_GROWTH * third)
    for message in failed[:5]:
        print(message)
    return int(bool(failed or lost or twice or grown))


if __name__ == "__main__":
    sys.exit(main())
