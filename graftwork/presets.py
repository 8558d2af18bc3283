"""Stage presets: the names a recipe may give instead of writing its stages out.

A preset is the plain stages it stands for, so that it can be printed, copied into a recipe and changed there. Learning
rates are usual ones for encoders of some 20 to 100 million parameters: where to begin, not where to end.
"""

from typing import Any

BLOCKS = 6  # of a small encoder, such as MiniLM or DistilBERT
MOST_BLOCKS = 200


def ulmfit(blocks: int = BLOCKS) -> list[dict[str, Any]]:
    """The head, then one block more in each epoch, from the top; then all, embeddings included.

    Rates are 2.6 times smaller from each block to the one below; up and down linearly (slanted triangular), as any
    stage's are by default. An encoder of more blocks has the rest of them unfrozen in the last epoch.
    Method: ULMFiT (Howard and Ruder 2018).
    """
    shared = {"epochs": 1, "learning_rate": 2e-4, "head_multiplier": 2.6, "layer_decay": 0.385}
    tops = [{"name": f"top-{count}", "train": ["head", f"top:{count}"]} for count in range(1, blocks + 1)]
    head = {"name": "head", "train": ["head"], "epochs": 1, "learning_rate": 1e-3}
    return [head, *(stage | shared for stage in tops), {"name": "full", "train": ["all"]} | shared]


PRESETS: dict[str, list[dict[str, Any]]] = {
    "head-only": [
        {"name": "head", "train": ["head"], "epochs": 3, "learning_rate": 1e-3},
    ],
    "full": [
        {"name": "full", "train": ["all"], "epochs": 3, "learning_rate": 1e-4, "head_multiplier": 10},
    ],
    # As accurate as three epochs of a plain fine-tuning on reviews, in 0.16 (bfloat16) to 0.4 of the time: benchmarks/.
    "thorough": [
        {
            "name": "full",
            "train": ["all"],
            "epochs": 2,
            "learning_rate": 3e-4,
            "head_multiplier": 10,
            "layer_decay": 0.85,
            "label_smoothing": 0.1,
            "keep_epoch": "last",
            "body_dropout": False,
        },
    ],
    # Adapters beside the frozen body, which are merged into it at the end.
    "lora": [
        {"name": "lora", "train": ["head", "lora"], "epochs": 3, "learning_rate": 1e-3},
    ],
    # Gradual unfreezing from the top (ULMFiT, Howard and Ruder 2018), with smaller rates the deeper it goes.
    "gradual": [
        {"name": "head", "train": ["head"], "epochs": 1, "learning_rate": 1e-3},
        {"name": "top", "train": ["head", "top:2"], "epochs": 1, "learning_rate": 2e-4, "layer_decay": 0.9},
        {"name": "full", "train": ["all"], "epochs": 1, "learning_rate": 5e-5, "layer_decay": 0.9},
    ],
    "ulmfit": ulmfit(),
}


def expand_stages(written: Any) -> Any:
    """The stages a recipe means: a preset's name, or {preset: name, key: value} to set a key in each of its stages.

    {preset: ulmfit, blocks: 12} is for an encoder of so many blocks.
    What is neither is given back as it is, for validation to judge.
    """
    changes = dict(written) if isinstance(written, dict) else {"preset": written}
    name = changes.pop("preset", None)
    if not isinstance(name, str):
        return written
    if name not in PRESETS:
        raise ValueError(f"no such preset; there are {', '.join(PRESETS)}")
    stages = _sized(changes.pop("blocks")) if name == "ulmfit" and "blocks" in changes else PRESETS[name]
    return [stage | changes for stage in stages]


def _sized(blocks: Any) -> list[dict[str, Any]]:
    if not (type(blocks) is int and 1 <= blocks <= MOST_BLOCKS):
        raise ValueError(f"blocks: expected a whole number from 1 to {MOST_BLOCKS}")
    return ulmfit(blocks)
