"""Stage presets: the names a recipe may give instead of writing its stages out.

A preset is the plain stages it stands for, so that it can be printed, copied into a recipe and changed there. Learning
rates are usual ones for encoders of some 20 to 100 million parameters: where to begin, not where to end.
"""

from typing import Any

PRESETS: dict[str, list[dict[str, Any]]] = {
    "head-only": [
        {"name": "head", "train": ["head"], "epochs": 3, "learning_rate": 1e-3},
    ],
    "full": [
        {"name": "full", "train": ["all"], "epochs": 3, "learning_rate": 1e-4, "head_multiplier": 10},
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
}


def expand_stages(written: Any) -> Any:
    """The stages a recipe means: a preset's name, or {preset: name, key: value} to set a key in each of its stages.

    What is neither is given back as it is, for validation to judge.
    """
    changes = dict(written) if isinstance(written, dict) else {"preset": written}
    name = changes.pop("preset", None)
    if not isinstance(name, str):
        return written
    if name not in PRESETS:
        raise ValueError(f"no such preset; there are {', '.join(PRESETS)}")
    return [stage | changes for stage in PRESETS[name]]
