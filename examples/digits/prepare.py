"""Write the handwritten digits that scikit-learn brings as folders of PNG files, and an untrained ResNet beside them.

    python examples/digits/prepare.py [FOLDER]

FOLDER (by default `digits`) then has `low/0` … `low/4`, `high/5` … `high/9`, and `untrained`, a checkpoint.
The digits are real scans of 8 x 8 pixels: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI
Machine Learning Repository (1998), https://doi.org/10.24432/C50P49, CC BY 4.0.
"""

import json
import sys
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_digits
from transformers import AutoModel, ResNetConfig

SIDE = 32  # what a picture is enlarged to when it is read


def write_pictures(folder: Path) -> None:
    digits = load_digits()
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / ("low" if digit < 5 else "high") / str(digit)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).round().astype("uint8")).save(place / f"{number:04}.png")


def write_untrained(folder: Path) -> None:
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=32, hidden_sizes=[32, 64, 128], depths=[1, 1, 1], layer_type="basic")
    AutoModel.from_config(config).save_pretrained(folder)
    shown = {"size": {"shortest_edge": SIDE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(shown))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nA small ResNet with weights drawn at random.\n")


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "digits")
    write_pictures(target)
    write_untrained(target / "untrained")
