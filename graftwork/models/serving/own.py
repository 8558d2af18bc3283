"""Bodies that transformers does not have: made, and loaded, as it makes and loads its own.

Each is a module beside this one with a class `Body`. It takes what config.json says, keeps it as `config`, and gives a
`BodyOutput`; the names of its tensors are those of the files that hold such models.
"""

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from safetensors.torch import load_file
from torch import Tensor, nn

OWN: Mapping[str, str] = {  # `model_type` -> module
    "vgg": "vgg",
    "alexnet": "alexnet",
    "wavenet": "wavenet",
    "word-vectors": "word_vectors",
}


class BodyOutput(NamedTuple):
    """What a body makes of a batch: (batch, places, hidden) states, and (batch, hidden) where it pools by itself."""

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None


class BodyConfig(SimpleNamespace):
    """What config.json says, by name, as transformers' own configs have it."""

    _attn_implementation = "none"

    def to_json_string(self) -> str:
        return json.dumps(vars(self), sort_keys=True)


def read_own_config(folder: Path) -> dict[str, Any] | None:
    """The config.json of a body of ours; None if it is transformers'."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config if config.get("model_type") in OWN else None


def make_own_body(folder: Path, config: Mapping[str, Any], has_weights: bool) -> tuple[nn.Module, dict[str, Any]]:
    """The body in float32, and in transformers' words what its files lack, hold beside it, or in another shape."""
    body: nn.Module = import_module(f".{OWN[config['model_type']]}", __package__).Body(BodyConfig(**config))
    if not has_weights:
        return body, {}
    found = {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}
    wanted = body.state_dict()
    fitting = {name: found[name] for name in wanted.keys() & found.keys() if found[name].shape == wanted[name].shape}
    body.load_state_dict(fitting, strict=False)
    return body, {
        "missing_keys": wanted.keys() - found.keys(),
        "unexpected_keys": found.keys() - wanted.keys(),
        "mismatched_keys": {
            (name, found[name].shape, wanted[name].shape) for name in (wanted.keys() & found.keys()) - fitting.keys()
        },
    }
