"""Tiny pretrained checkpoints built from a config, and runs on made-up reviews: real in all but size, and offline."""

import json
import random
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from graftwork.checkpoints.retrieve import retrieve_checkpoint
from graftwork.data.manifest import validate_data
from graftwork.models.catalog import FAMILIES
from graftwork.models.serving.config import WEIGHTS, ServingConfig
from graftwork.policy import Policy
from graftwork.recipe import load_recipe
from graftwork.training.bundle import ServingBundle
from graftwork.training.plan import ResolvedRun, plan_run
from graftwork.training.start import FROM_CHECKPOINT, Start, warm_start
from graftwork.workspace import Workspace

WORDS = (
    "a the film movie plot acting was is and not very good great wonderful moving warm clever bright brilliant honest "
    "bad awful dull boring weak cold stupid dark terrible false long short new old"
).split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIDE = 32  # of pictures
TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
CONFIGS = {
    "bert": TINY,
    "roberta": TINY | {"max_position_embeddings": 130, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3},
    "ernie": TINY,
    "electra": TINY | {"embedding_size": 16},
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 48},
    "deberta-v2": TINY
    | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "share_att_key": True}
    | {"norm_rel_ebd": "layer_norm", "conv_kernel_size": 3, "max_position_embeddings": 64},
    "modernbert": TINY | {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "local_attention": 8},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 2, "n_inner": 48, "n_positions": 64, "bos_token_id": 2},
    "t5": {"d_model": 32, "num_layers": 3, "num_heads": 2, "d_kv": 16, "d_ff": 48, "relative_attention_num_buckets": 8},
    "llama": TINY | {"num_key_value_heads": 1, "max_position_embeddings": 64},
    "vit": TINY | {"image_size": SIDE, "patch_size": 8},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16, 32], "depths": [1, 1, 1], "layer_type": "basic"},
    "convnext": {"num_stages": 3, "hidden_sizes": [8, 16, 32], "depths": [1, 1, 1]},
    "efficientnet": {
        "image_size": SIDE,
        "width_coefficient": 0.1,
        "depth_coefficient": 1.0,
        "in_channels": [32, 80, 80],
        "out_channels": [80, 80, 160],
        "kernel_sizes": [3, 3, 3],
        "strides": [1, 2, 2],
        "num_block_repeats": [1, 1, 1],
        "expand_ratios": [1, 2, 2],
        "depthwise_padding": [],
        "hidden_dim": 128,
    },
}
TEXT_FAMILIES = sorted(name for name, family in FAMILIES.items() if family.modality == "text")


# Families whose tokenizers put nothing around a text, nor between two.
UNMARKED = ("gpt2", "llama")


def write_tokenizer(folder: Path, is_marked: bool = True) -> int:
    """A word-level tokenizer of a few words, as transformers reads it; the size of its vocabulary.

    is_marked: it puts special tokens around a text; if not, it has none but the one for unknown words.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"unk_token": "[UNK]"}
    if is_marked:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B [SEP]",
            special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
        )
        names |= {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 128} | names
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocabulary)


TRAINED = """checkpoint: {{source: "file://{checkpoint}", licences: [apache-2.0]}}
train: {{batch_tokens: 64, precision: float32}}
stages:
  - {{name: head, train: [head], epochs: 1, learning_rate: 1e-2}}
  - {{name: top, train: [head, "top:1"], epochs: 2, learning_rate: 1e-3}}
policy: policy.yaml
"""
RECIPE = (
    """
name: tiny
problem_type: text-classification
data:
  sources: [{{name: made, path: made.csv}}]
  label: {{from: label, classes: ["no", "yes"]}}
  split: {{holdout: 0.2, validation: 0.2, seed: 1, by: [group]}}
input: {{text: text, max_tokens: 16}}
"""
    + TRAINED
)


NUMBER_RECIPE = (
    RECIPE.replace("text-classification", "text-regression")
    .replace('{{from: label, classes: ["no", "yes"]}}', "{{from: rating}}")
    .replace("name: tiny", "name: tiny-number")
)
LABELS_RECIPE = (
    RECIPE.replace("text-classification", "text-multi-label")
    .replace('{{from: label, classes: ["no", "yes"]}}', '{{from: tags, separator: "|", classes: [good, long, warm]}}')
    .replace("name: tiny", "name: tiny-labels")
)


IMAGE_RECIPE = (
    """
name: tiny
problem_type: image-classification
data:
  sources: [{{name: made, path: pictures}}]
  label: {{from: folder, classes: ["no", "yes"]}}
  split: {{holdout: 0.2, validation: 0.2, seed: 1}}
input: {{image: file}}
"""
    + TRAINED
)


def write_checkpoint(folder: Path, architecture: str = "bert", licence: str = "apache-2.0", seed: int = 0) -> None:
    """A checkpoint of an architecture: config, tokenizer, safetensors, and the licence in its model card."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding

    folder.mkdir(parents=True, exist_ok=True)
    if FAMILIES[architecture].modality == "image":
        shown = {"size": {"height": SIDE, "width": SIDE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        (folder / "preprocessor_config.json").write_text(json.dumps(shown))
        sizes = {}
    else:
        sizes = {"vocab_size": write_tokenizer(folder, is_marked=architecture not in UNMARKED)}
    torch.manual_seed(seed)
    config = AutoConfig.for_model(architecture, **sizes, **CONFIGS[architecture])
    kind = AutoModelForTextEncoding if architecture == "t5" else AutoModel
    kind.from_config(config).save_pretrained(folder)
    (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\nA tiny model for tests.\n")


def write_served(checkpoint: Path, folder: Path, config: ServingConfig) -> None:
    """A model folder, as a bundle has one, of an untrained classifier on the checkpoint."""
    from safetensors.torch import save_file

    from graftwork.models.text import load_pretrained

    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    save_file(load_pretrained(checkpoint, config, seed=1).state_dict(), folder / WEIGHTS)
    config.write(folder)


def write_image_project(folder: Path, checkpoint: Path) -> None:
    """A recipe for the checkpoint, its policy, and 160 pictures of stripes, whose direction decides their label."""
    write_stripes(folder / "pictures", 80)
    names = sorted(path.relative_to(folder).as_posix() for path in (folder / "pictures").rglob("*.png"))
    (folder / "made.csv").write_text("file,label\n" + "".join(f"{name},{Path(name).parent.name}\n" for name in names))
    (folder / "policy.yaml").write_text("minimum_rows: 10\nbaselines: [majority, frozen-head]\n")
    (folder / "recipe.yaml").write_text(IMAGE_RECIPE.format(checkpoint=checkpoint))


def write_stripes(folder: Path, count: int, first: int = 0) -> None:
    """So many PNG files in each of the folders `no` (lying stripes) and `yes` (standing), numbered from `first`."""
    import numpy as np
    from PIL import Image

    for label in ("no", "yes"):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            chance = np.random.default_rng([number, label == "yes"])
            wave = np.sin(np.arange(SIDE) * chance.uniform(0.5, 1.5) + chance.uniform(0, 6))
            grey = 128 + 90 * np.tile(wave, (SIDE, 1)) + chance.normal(0, 20, (SIDE, SIDE))
            picture = Image.fromarray(np.clip(grey if label == "yes" else grey.T, 0, 255).astype(np.uint8))
            picture.save(folder / label / f"{number:03}.png")


def write_family_project(folder: Path, architecture: str) -> None:
    """A tiny checkpoint of the family below the folder, and a project of what it reads: reviews or pictures."""
    write_checkpoint(folder / "checkpoint", architecture)
    write = write_image_project if FAMILIES[architecture].modality == "image" else write_project
    write(folder, folder / "checkpoint")


def write_project(folder: Path, checkpoint: Path) -> None:
    """A recipe for the checkpoint, its policy, and 168 reviews whose words decide their label."""
    words = "good great bright clever warm long short old new dark cold dull weak bad".split()
    lines = [
        f"the {a} film was {b} and {c},{'yes' if (i + j + k) % 2 else 'no'}"
        for (i, a), (j, b), (k, c) in product(enumerate(words[:6]), enumerate(words), enumerate(words[:2]))
    ]
    (folder / "made.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    (folder / "policy.yaml").write_text("minimum_rows: 10\n")
    (folder / "recipe.yaml").write_text(RECIPE.format(checkpoint=checkpoint))


REVIEWS = [
    f"the {age} {thing} was {first} and {second}"
    for age, thing, first, second in product(
        "long short new old".split(), "film movie".split(), *["good great warm clever dull weak bad boring".split()] * 2
    )
]


def write_number_project(folder: Path, checkpoint: Path) -> None:
    """A recipe for the checkpoint, its policy, and 512 reviews whose words add up to their rating, far from 0."""
    worth = dict(zip("good great warm clever dull weak bad boring".split(), (3, 4, 2, 2, -2, -1, -4, -3), strict=True))
    lines = [f"{text},{100 + 5 * sum(worth.get(word, 0) for word in text.split())}" for text in REVIEWS]
    random.Random(3).shuffle(lines)
    (folder / "made.csv").write_text("text,rating\n" + "\n".join(lines) + "\n")
    (folder / "policy.yaml").write_text("minimum_rows: 10\nmetric: mae\nbaselines: [majority]\n")
    (folder / "recipe.yaml").write_text(NUMBER_RECIPE.format(checkpoint=checkpoint))


def write_labels_project(folder: Path, checkpoint: Path) -> None:
    """A recipe for the checkpoint, its policy, and 512 reviews tagged with those of three words that they hold."""
    tags = ("good", "long", "warm")
    lines = [f"{text},{'|'.join(tag for tag in tags if tag in text.split())}" for text in REVIEWS]
    random.Random(3).shuffle(lines)
    (folder / "made.csv").write_text("text,tags\n" + "\n".join(lines) + "\n")
    (folder / "policy.yaml").write_text("minimum_rows: 10\nmetric: micro_f1\nbaselines: [majority]\n")
    (folder / "recipe.yaml").write_text(LABELS_RECIPE.format(checkpoint=checkpoint))


def write_image_number_project(folder: Path, checkpoint: Path) -> None:
    """A recipe for the checkpoint, its policy, and 160 pictures in a table, whose stripes decide their number."""
    _write_picture_table(folder, "rating", {"no": "-1.5", "yes": "2.5"})
    (folder / "policy.yaml").write_text("minimum_rows: 10\nmetric: mae\nbaselines: [majority]\n")
    recipe = IMAGE_RECIPE.replace("image-classification", "image-regression")
    label = '{{from: folder, classes: ["no", "yes"]}}'
    text = recipe.replace(label, "{{from: rating}}").replace("name: tiny", "name: tiny-number")
    (folder / "recipe.yaml").write_text(text.format(checkpoint=checkpoint))


def write_image_labels_project(folder: Path, checkpoint: Path) -> None:
    """A recipe for the checkpoint, its policy, and 160 pictures in a table, with a column of 0 and 1 for each class."""
    _write_picture_table(folder, "lying,standing,striped", {"no": "1,0,1", "yes": "0,1,1"})
    (folder / "policy.yaml").write_text("minimum_rows: 10\nmetric: micro_f1\nbaselines: [majority]\n")
    recipe = IMAGE_RECIPE.replace("image-classification", "image-multi-label")
    label = '{{from: folder, classes: ["no", "yes"]}}'
    text = recipe.replace(label, "{{from: [lying, standing, striped]}}").replace("name: tiny", "name: tiny-labels")
    (folder / "recipe.yaml").write_text(text.format(checkpoint=checkpoint))


def _write_picture_table(folder: Path, header: str, labels: dict[str, str]) -> None:
    """Pictures with a table of them, and the same table beside the recipe, to predict."""
    write_stripes(folder / "pictures", 80)
    for place in (folder / "pictures", folder):
        names = sorted(path.relative_to(place).as_posix() for path in (folder / "pictures").rglob("*.png"))
        lines = [f"{name},{labels[Path(name).parent.name]}\n" for name in names]
        (place / "made.csv").write_text(f"file,{header}\n" + "".join(lines))


def land_reviews(folder: Path, count: int) -> None:
    """Make so many reviews all that has landed, always the same ones first; two of their words tell their label."""
    good, bad = (
        words.split() for words in ("good great wonderful moving warm clever", "bad awful dull boring weak cold")
    )
    reviews = [
        f"the {age} {thing} was {first} and {second},{label}"
        for words, label in ((good, "yes"), (bad, "no"))
        for age, thing, first, second in product("long short new old".split(), "film movie plot".split(), words, words)
    ]
    random.Random(3).shuffle(reviews)
    assert count <= len(reviews)
    (folder / "made.csv").write_text("text,label\n" + "\n".join(reviews[:count]) + "\n")


def resolve_run(
    folder: Path, workspace: Workspace, *overrides: str, before: ServingBundle | None = None
) -> ResolvedRun:
    """The project's recipe, with `--set` overrides, resolved into a run that is in the store.

    before: the model to go on from, as version 1.
    """
    recipe = load_recipe(folder / "recipe.yaml", overrides)
    manifest = validate_data(recipe, workspace)
    lock = retrieve_checkpoint(recipe, workspace, FAMILIES)
    start = FROM_CHECKPOINT
    if before is not None:
        replay, seed = recipe.start.replay, recipe.train.seed
        start = Start(warm_start(workspace.store, before, 1, manifest, replay=replay, seed=seed))
    beaten = ("majority", "tfidf") if recipe.input.image is None else ("majority", "frozen-head")
    policy = Policy(metric=recipe.target.headline, baselines=beaten)
    return plan_run(recipe, manifest, lock, policy, workspace.store, start, workspace.settings.cache_bytes)


def facts(bundle: ServingBundle) -> Any:
    """All of a bundle but how long it took, and how much memory."""
    stages = [
        replace(stage, seconds=0, peak_bytes=0, epochs=tuple(replace(epoch, seconds=0) for epoch in stage.epochs))
        for stage in bundle.stages
    ]
    return replace(bundle, stages=tuple(stages))
