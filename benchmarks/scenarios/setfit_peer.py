"""SetFit's own training on some rows, in an environment that has it: `python setfit_peer.py JOB`.

Nothing of ours is imported.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


def main(job: dict) -> None:
    """Train with SetFit's defaults and the job's settings, and tell the classes of the rows to judge."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    model = SetFitModel.from_pretrained(job["checkpoint"])
    quiet = {"report_to": [], "show_progress_bar": False, "save_strategy": "no", "output_dir": "setfit"}
    trainer = Trainer(
        model,
        args=TrainingArguments(seed=job["seed"], **quiet, **job["settings"]),
        train_dataset=Dataset.from_dict({"text": job["texts"], "label": job["labels"]}),
    )
    began = time.process_time()
    trainer.train()
    seconds = time.process_time() - began
    found = [int(label) for label in model.predict(job["judged"])]
    Path(job["outcome"]).write_text(json.dumps({"cpu_s": seconds, "found": found}), encoding="utf-8")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
