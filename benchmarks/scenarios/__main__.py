"""Measures what is missing of a scenario, and prints its table: `python -m benchmarks.scenarios few-shot`.

Interrupted, it goes on where it was; an arm that is measured under a seed stays so until what decides it changes.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks.scenarios.adaptation import ADAPTATION
from benchmarks.scenarios.adversarial import ADVERSARIAL
from benchmarks.scenarios.few_shot import FEW_SHOT
from benchmarks.scenarios.multi_task import MULTI_TASK
from benchmarks.scenarios.pixels import PIXELS
from benchmarks.scenarios.trials import measure, read_trials, table

SCENARIOS = {
    "few-shot": FEW_SHOT,
    "adaptation": ADAPTATION,
    "multi-task": MULTI_TASK,
    "adversarial": ADVERSARIAL,
    "pixels": PIXELS,
}
RESULTS = Path("benchmarks/results/scenarios")


def main() -> None:
    """Scenario by scenario."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scenarios", description=__doc__)
    parser.add_argument("scenario", nargs="+", choices=SCENARIOS)
    parser.add_argument("--seeds", type=int, help="by default as many as the docs show")
    parser.add_argument("--table", action="store_true", help="print what is known, and measure nothing")
    asked = parser.parse_args()
    for name in asked.scenario:
        scenario, file = SCENARIOS[name], RESULTS / f"{name}.jsonl"
        seeds = asked.seeds or scenario.seeds
        if not asked.table:
            measure(scenario, seeds, file)
        print("\n".join(table(scenario, seeds, read_trials(file))))


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on")
