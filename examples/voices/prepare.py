"""Deal the recordings beside this file to two folders, by voice, and write an untrained WaveNet beside them.

    python examples/voices/prepare.py [FOLDER]

FOLDER (by default `voices`) then has `first/left` … `first/go`, said by one half of the voices, `second/left` …
`second/go`, said by the other half, and the checkpoint `untrained`.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from graftwork.models.serving.own import make_own_body

RATE = 8_000
SIZES = {"residual_size": 32, "skip_size": 64, "hidden_size": 64, "kernel_size": 2, "quantization": 256}
DEPTH = {"num_layers": 16, "dilation_cycle": 8}  # a state is made of the 64 ms before it
FRAME = RATE // 50


def deal_voices(recordings: Path, folder: Path) -> None:
    """Every second voice, in the order of their names, to `second`."""
    files = sorted(recordings.glob("*/*.flac"))
    voices = sorted({path.name.rsplit("_", 1)[0] for path in files})
    for path in files:
        part = "second" if voices.index(path.name.rsplit("_", 1)[0]) % 2 else "first"
        place = folder / part / path.parent.name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place / path.name)


def write_wavenet(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    config = {"model_type": "wavenet", "sampling_rate": RATE, "frame_size": FRAME} | SIZES | DEPTH
    (folder / "config.json").write_text(json.dumps(config))
    body, _ = make_own_body(folder, config, has_weights=False)
    save_file(body.state_dict(), folder / "model.safetensors")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nA small WaveNet with weights drawn at random.\n")


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "voices")
    deal_voices(Path(__file__).parent, target)
    write_wavenet(target / "untrained")
