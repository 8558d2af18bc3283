"""Write the handwritten digits that scikit-learn brings as folders of PNG files, and untrained models beside them.

    python examples/digits/prepare.py [FOLDER]

FOLDER (by default `digits`) then has `low/0` … `low/4`, `high/5` … `high/9`, and all of them in `told`, with a table that
has a caption for each; and three checkpoints: `untrained`, a ResNet, `untrained-vgg`, and `untrained-clip`, two towers.
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
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, CLIPConfig, ResNetConfig

from graftwork.models.serving.own import make_own_body

NAMES = "zero one two three four five six seven eight nine".split()
CAPTIONS = ("the digit {}", "a {}", "someone wrote {}")
SIDE = 32  # what a picture is enlarged to when it is read


def write_pictures(folder: Path) -> None:
    digits = load_digits()
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / ("low" if digit < 5 else "high") / str(digit)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).round().astype("uint8")).save(place / f"{number:04}.png")


def write_captions(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    digits, lines = load_digits(), ["file,digit,caption"]
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        Image.fromarray((pixels * 255 / 16).round().astype("uint8")).save(folder / f"{number:04}.png")
        lines.append(f"{number:04}.png,{digit},{CAPTIONS[number % len(CAPTIONS)].format(NAMES[digit])}")
    (folder / "digits.csv").write_text("\n".join(lines) + "\n")


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


def write_clip(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    layers = {"num_attention_heads": 4, "projection_dim": 32}
    seen = {"hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 128, "image_size": SIDE, "patch_size": 8}
    read = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "max_position_embeddings": 8}
    read |= {"vocab_size": write_tokenizer(folder), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    config = CLIPConfig(vision_config=seen | layers, text_config=read | layers, projection_dim=32)
    AutoModel.from_config(config).save_pretrained(folder)
    write_papers(folder, "CLIP")


def write_tokenizer(folder: Path) -> int:
    """One that knows the words of the captions; their number."""
    words = sorted({word for caption in CAPTIONS for word in caption.split()} - {"{}"})
    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words, *NAMES])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    around = [(word, vocabulary[word]) for word in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast"} | names
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocabulary)


def write_papers(folder: Path, name: str) -> None:
    shown = {"size": {"shortest_edge": SIDE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(shown))
    (folder / "README.md").write_text(f"---\nlicense: apache-2.0\n---\nA small {name} with weights drawn at random.\n")


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "digits")
    write_pictures(target)
    write_captions(target / "told")
    write_resnet(target / "untrained")
    write_vgg(target / "untrained-vgg")
    write_clip(target / "untrained-clip")
