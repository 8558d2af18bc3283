"""Write the handwritten digits that scikit-learn brings as folders of PNG files, and untrained models beside them.

    python examples/digits/prepare.py [FOLDER]

FOLDER (by default `digits`) then has `low/0` … `low/4`, `high/5` … `high/9`, and two checkpoints: `untrained`, a ResNet,
and `untrained-vgg`.
The digits are real scans of 8 x 8 pixels: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI
Machine Learning Repository (1998), https://doi.org/10.24432/C50P49, CC BY 4.0.
"""

import json
import sys
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from transformers import AutoModel, ResNetConfig

from graftwork.models.serving.own import make_own_body

SIDE = 32  # what a picture is enlarged to when it is read


def write_pictures(folder: Path) -> None:
    digits = load_digits()
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / ("low" if digit < 5 else "high") / str(digit)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).round().astype("uint8")).save(place / f"{number:04}.png")


def write_resnet(folder: Path) -> None:
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=32, hidden_sizes=[32, 64, 128], depths=[1, 1, 1], layer_type="basic")
    AutoModel.from_config(config).save_pretrained(folder)
    write_papers(folder, "ResNet")


def write_vgg(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    config = {"model_type": "vgg", "layers": [16, 16, "M", 32, 32, "M", 64, 64, "M"], "batch_norm": True}
    config |= {"pooled_side": 4, "hidden_size": 128, "dropout": 0.2, "image_size": SIDE}
    (folder / "config.json").write_text(json.dumps(config))
    body, _ = make_own_body(folder, config, has_weights=False)
    save_file(body.state_dict(), folder / "model.safetensors")
    write_papers(folder, "VGG")


def write_papers(folder: Path, name: str) -> None:
    shown = {"size": {"shortest_edge": SIDE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(shown))
    (folder / "README.md").write_text(f"---\nlicense: apache-2.0\n---\nA small {name} with weights drawn at random.\n")


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "digits")
    write_pictures(target)
    write_resnet(target / "untrained")
    write_vgg(target / "untrained-vgg")
