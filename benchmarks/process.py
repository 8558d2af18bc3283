"""The process of a cell: `python -m benchmarks.process FOLDER`, where the folder holds its job and gets its outcome."""

import json
import sys
from pathlib import Path

from benchmarks.cells import OUTCOME, PREDICTIONS, read_job
from benchmarks.experiments import ARMS


def main(folder: Path) -> None:
    """Measure the job's cell."""
    job = read_job(folder)
    outcome = ARMS[job.cell.arm].measure(job)
    if outcome.predictions is not None:
        outcome.predictions.to_parquet(folder / PREDICTIONS, index=False, compression="zstd")
    facts = {"precision": outcome.precision, "values": outcome.values}
    (folder / OUTCOME).write_text(json.dumps(facts), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
