"""Tiny pretrained checkpoints built from a config, and runs on made-up reviews: real in all but size, and offline."""

import json
import random
from dataclasses import replace
from itertools import count, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftwork.checkpoints.retrieve import retrieve_checkpoint
from graftwork.checkpoints.vector_files import WordVectors
from graftwork.data.manifest import validate_data
from graftwork.errors import Paused
from graftwork.models.catalog import FAMILIES, families_for
from graftwork.models.serving.config import WEIGHTS, ServingConfig
from graftwork.models.serving.own import OWN, make_own_body
from graftwork.models.word_vectors import write_word_vectors
from graftwork.policy import Policy
from graftwork.recipe import load_recipe
from graftwork.training.bundle import ServingBundle, copy_tokenizer_and_config
from graftwork.training.plan import ResolvedRun, plan_run
from graftwork.training.start import FROM_CHECKPOINT, Start, Teacher, warm_start
from graftwork.workspace import Workspace

WORDS = (
    "a the film movie plot acting was is and not very good great wonderful moving warm clever bright brilliant honest "
    "bad awful dull boring weak cold stupid dark terrible false long short new old"
).split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIDE = 32  # of pictures
RATE = 4000  # of sounds, in Hz
TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
SEEN = TINY | {"image_size": SIDE, "patch_size": 8}
READ = TINY | {"max_position_embeddings": 16, "bos_token_id": 2, "eos_token_id": 3}
SHARED = {"projection_dim": 24}
PADDED = {"pad_token_id": 0}
TOWERS = {"vision_config": SEEN | SHARED, "text_config": READ | SHARED} | SHARED
SPEECH = TINY | {"conv_dim": [16, 16], "conv_stride": [10, 8], "conv_kernel": [20, 8], "num_conv_pos_embeddings": 8}
SPEECH |= {"num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 2}
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
    "word-vectors": {"hidden_size": 32},
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
    "clip_vision_model": TOWERS,
    "clip_text_model": TOWERS,
    "siglip_vision_model": {"vision_config": SEEN, "text_config": READ | PADDED},
    "siglip_text_model": {"vision_config": SEEN, "text_config": READ | PADDED},
    "wavenet": {"residual_size": 16, "skip_size": 24, "hidden_size": 32, "num_layers": 3, "dilation_cycle": 3}
    | {"kernel_size": 2, "quantization": 256, "frame_size": RATE // 50, "sampling_rate": RATE},
    "wav2vec2": SPEECH,
    "hubert": SPEECH | {"conv_pos_batch_norm": False},
    "wavlm": SPEECH | {"feat_extract_norm": "layer", "num_buckets": 16},
    "audio-spectrogram-transformer": TINY
    | {"max_length": 32, "num_mel_bins": 16, "patch_size": 8, "frequency_stride": 8, "time_stride": 8},
    "vgg": {"layers": [8, "M", 8, 8, "M", 16, "M", 16, "M"], "batch_norm": True}
    | {"hidden_size": 32, "pooled_side": 2, "dropout": 0.1},
    "alexnet": {"layers": [8, "M", 8, "M", 16, 16], "hidden_size": 32, "pooled_side": 2, "dropout": 0.1},
}
# Those that read texts token by token, and can be cut between any two blocks.
TEXT_FAMILIES = sorted(name for name, family in FAMILIES.items() if family.modality == "text" and family.is_cut)
BLOCK_FAMILIES = [name for name in TEXT_FAMILIES if FAMILIES[name].blocks]


# Families whose tokenizers put nothing around a text, nor between two.
UNMARKED = ("gpt2", "llama")


def write_tokenizer(folder: Path, is_marked: bool = True, words: tuple[str, ...] = tuple(WORDS)) -> int:
    """A word-level tokenizer of a few words, as transformers reads it; the size of its vocabulary.

    is_marked: it puts special tokens around a text; if not, it has none but the one for unknown words. words: those
    that it knows.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *words])}
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
TAGS = ("O", "B-THING", "I-THING", "B-VIEW", "I-VIEW")
TAGS_RECIPE = (
    RECIPE.replace("text-classification", "text-token-classification")
    .replace('{{from: label, classes: ["no", "yes"]}}', f"{{{{from: tags, classes: [{', '.join(TAGS)}]}}}}")
    .replace("name: tiny", "name: tiny-tags")
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


AUDIO_RECIPE = (
    IMAGE_RECIPE.replace("image", "audio").replace("pictures", "sounds").replace("file}}", "file, seconds: 0.5}}")
)


def write_checkpoint(folder: Path, architecture: str = "bert", licence: str = "apache-2.0", seed: int = 0) -> None:
    """A checkpoint of an architecture: config, tokenizer, safetensors, and the licence in its model card."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    if architecture == "word-vectors":
        table = np.random.default_rng(seed).standard_normal((len(WORDS), CONFIGS[architecture]["hidden_size"]))
        vectors = WordVectors(tuple(WORDS), table.astype(np.float32))
        write_word_vectors(folder, vectors, True, f"---\nlicense: {licence}\n---\nTiny vectors for tests.\n")
        return
    sizes = {}
    if FAMILIES[architecture].modality == "text":
        sizes = {"vocab_size": write_tokenizer(folder, is_marked=architecture not in UNMARKED)}
    elif architecture != "wavenet":
        (folder / "preprocessor_config.json").write_text(json.dumps(_preprocessor(architecture)))
    torch.manual_seed(seed)
    write = write_own_body if architecture in OWN else write_body
    write(folder, architecture, sizes)
    (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\nA tiny model for tests.\n")


def write_pair(folder: Path, kind: str, words: tuple[str, ...] = (), seed: int = 0) -> None:
    """A checkpoint of both towers, `clip` or `siglip`, whole: with what reads pictures and what reads texts.

    words: those that its tokenizer knows, in the place of the usual ones.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"vocab_size": write_tokenizer(folder, words=words or tuple(WORDS))}
    (folder / "preprocessor_config.json").write_text(json.dumps(_preprocessor(f"{kind}_vision_model")))
    torch.manual_seed(seed)
    config = AutoConfig.for_model(kind, **_with_sizes(CONFIGS[f"{kind}_vision_model"], sizes))
    AutoModel.from_config(config).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nA tiny model for tests.\n")


def write_body(folder: Path, architecture: str, sizes: dict[str, int]) -> None:
    """Config and weights of a model that transformers makes."""
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding

    config = AutoConfig.for_model(architecture.partition("_")[0], **_with_sizes(CONFIGS[architecture], sizes))
    kind = AutoModelForTextEncoding if architecture == "t5" else AutoModel
    kind.from_config(config).save_pretrained(folder)


def write_own_body(folder: Path, architecture: str, sizes: dict[str, int]) -> None:
    """Config and weights of a model that we make."""
    from safetensors.torch import save_file

    config = {"model_type": architecture} | sizes | CONFIGS[architecture]
    (folder / "config.json").write_text(json.dumps(config))
    body, _ = make_own_body(folder, config, has_weights=False)
    save_file(body.state_dict(), folder / WEIGHTS)


def _with_sizes(config: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    """The config of a tiny model for a vocabulary; of a model of two towers, that of texts has it."""
    read = config.get("text_config")
    return config | ({"text_config": read | sizes} if read else sizes)


def _preprocessor(architecture: str) -> dict[str, Any]:
    """How the tiny checkpoint of an architecture wants its pictures or sounds."""
    if FAMILIES[architecture].modality == "image":
        return {"size": {"height": SIDE, "width": SIDE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    if architecture == "audio-spectrogram-transformer":
        config = CONFIGS[architecture]
        sizes = {name: config[name] for name in ("num_mel_bins", "max_length")}
        return sizes | {
            "sampling_rate": 16_000,
            "feature_extractor_type": "ASTFeatureExtractor",
            "mean": -4.0,
            "std": 4.0,
        }
    is_layered = CONFIGS[architecture].get("feat_extract_norm") == "layer"
    known = {"sampling_rate": RATE, "return_attention_mask": is_layered, "do_normalize": True}
    return known | {"feature_extractor_type": "Wav2Vec2FeatureExtractor"}


def write_served(checkpoint: Path, folder: Path, config: ServingConfig) -> None:
    """A model folder, as a bundle has one, of an untrained classifier on the checkpoint."""
    from safetensors.torch import save_file

    from graftwork.models.text import load_pretrained

    copy_tokenizer_and_config(checkpoint, folder)
    save_file(load_pretrained(checkpoint, config, seed=1).state_dict(), folder / WEIGHTS)
    config.write(folder)


def write_image_project(folder: Path, checkpoint: Path) -> None:
    """A recipe for the checkpoint, its policy, and 160 pictures of stripes, whose direction decides their label."""
    write_stripes(folder / "pictures", 80)
    _write_files_project(folder, "pictures", IMAGE_RECIPE.format(checkpoint=checkpoint))


def _write_files_project(folder: Path, source: str, recipe: str) -> None:
    """The recipe, a policy, and a table of the source's files to predict, beside it."""
    names = sorted(path.relative_to(folder).as_posix() for path in (folder / source).rglob("*.*"))
    (folder / "made.csv").write_text("file,label\n" + "".join(f"{name},{Path(name).parent.name}\n" for name in names))
    (folder / "policy.yaml").write_text("minimum_rows: 10\nbaselines: [majority, frozen-head]\n")
    (folder / "recipe.yaml").write_text(recipe)


def write_stripes(folder: Path, count: int, first: int = 0) -> None:
    """So many PNG files in each of the folders `no` (lying stripes) and `yes` (standing), numbered from `first`."""
    from PIL import Image

    for label in ("no", "yes"):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            chance = np.random.default_rng([number, label == "yes"])
            wave = np.sin(np.arange(SIDE) * chance.uniform(0.5, 1.5) + chance.uniform(0, 6))
            grey = 128 + 90 * np.tile(wave, (SIDE, 1)) + chance.normal(0, 20, (SIDE, SIDE))
            picture = Image.fromarray(np.clip(grey if label == "yes" else grey.T, 0, 255).astype(np.uint8))
            picture.save(folder / label / f"{number:03}.png")


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


def write_tags_project(folder: Path, checkpoint: Path) -> None:
    """A recipe for the checkpoint, its policy, and 512 reviews whose words are tagged: what was seen, and the view.

    A third has commas in a word, which are tokens of their own; each sixteenth is longer than the model reads.
    """
    lines = []
    for number, text in enumerate(REVIEWS):
        written, tags = text, "O B-THING I-THING O B-VIEW I-VIEW I-VIEW"
        if number % 3 == 0:
            written = written.replace("film", "film,").replace("movie", "movie,")
        if number % 16 == 0:
            written, tags = f"{written} {text} {text}", f"{tags} {tags} {tags}"
        lines.append(f'"{written}",{tags}')
    random.Random(3).shuffle(lines)
    (folder / "made.csv").write_text("text,tags\n" + "\n".join(lines) + "\n")
    (folder / "policy.yaml").write_text("minimum_rows: 10\nmetric: entity_f1\nbaselines: [majority]\n")
    (folder / "recipe.yaml").write_text(TAGS_RECIPE.format(checkpoint=checkpoint))


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


def write_audio_project(folder: Path, checkpoint: Path) -> None:
    """A recipe for the checkpoint, its policy, and 160 tones, of which those that fall are `no`, and others `yes`."""
    write_tones(folder / "sounds", 80)
    _write_files_project(folder, "sounds", AUDIO_RECIPE.format(checkpoint=checkpoint))


def write_tones(folder: Path, count: int, first: int = 0) -> None:
    """So many WAV files of 0.3 to 0.5 s in each of the folders `no` (falling tones) and `yes` (rising ones)."""
    import soundfile

    for label in ("no", "yes"):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            chance = np.random.default_rng([number, label == "yes"])
            size = int(RATE * chance.uniform(0.3, 0.5))
            low, high = chance.uniform(200, 400), chance.uniform(900, 1400)
            pitch = np.linspace(low, high, size)[:: 1 if label == "yes" else -1]
            tone = 0.4 * np.sin(2 * np.pi * np.cumsum(pitch) / RATE) + chance.normal(0, 0.02, size)
            for _ in range(6):  # clicks of a pitch, so that no two sound alike
                start = int(chance.integers(0, size - 200))
                tone[start : start + 200] += 0.3 * np.sin(np.arange(200) * chance.uniform(0.3, 2.5)) * np.hanning(200)
            soundfile.write(folder / label / f"{number:03}.wav", tone.astype(np.float32), RATE, subtype="PCM_16")


PROJECTS = {"text": write_project, "image": write_image_project, "audio": write_audio_project}


def write_family_project(folder: Path, architecture: str) -> None:
    """A tiny checkpoint of the family below the folder, and a project of what it reads: reviews, pictures or tones."""
    write_checkpoint(folder / "checkpoint", architecture)
    PROJECTS[FAMILIES[architecture].modality](folder, folder / "checkpoint")
    if not FAMILIES[architecture].blocks:
        recipe = (folder / "recipe.yaml").read_text()
        (folder / "recipe.yaml").write_text(recipe.replace('[head, "top:1"]', "all"))


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
    folder: Path,
    workspace: Workspace,
    *overrides: str,
    before: ServingBundle | None = None,
    teachers: tuple[Teacher, ...] = (),
) -> ResolvedRun:
    """The project's recipe, with `--set` overrides, resolved into a run that is in the store.

    before: the model to go on from, as version 1. teachers: whom stages learn from.
    """
    recipe = load_recipe(folder / "recipe.yaml", overrides)
    manifest = validate_data(recipe, workspace)
    lock = retrieve_checkpoint(recipe, workspace, families_for(recipe.input.modality))
    start = FROM_CHECKPOINT
    if before is not None:
        replay, seed = recipe.start.replay, recipe.train.seed
        start = Start(warm_start(workspace.store, before, 1, manifest, replay=replay, seed=seed))
    start = replace(start, teachers=teachers)
    beaten: tuple[Any, ...] = ("majority", "tfidf") if recipe.input.modality == "text" else ("majority", "frozen-head")
    beaten = ("majority", "word-features") if recipe.target.is_by_word else beaten
    policy = Policy(metric=recipe.target.headline, baselines=beaten)
    return plan_run(recipe, manifest, lock, policy, workspace.store, start, workspace.settings.cache_bytes)


def train_until(run: ResolvedRun, workspace: Workspace, stop_after: int | None = None) -> ServingBundle:
    """Train until it has asked `stop_after` times whether to stop."""
    from graftwork.training.engine import run_stages

    asked = count(1)
    return run_stages(run, workspace, lambda event: None, lambda: stop_after is not None and next(asked) > stop_after)


def train_with_stops(run: ResolvedRun, workspace: Workspace, *limits: int) -> ServingBundle:
    """Train until it has asked so often, once for each limit, and then to the end."""
    for limit in limits:
        with pytest.raises(Paused):
            train_until(run, workspace, limit)
    return train_until(run, workspace)


def forget_trained(run: ResolvedRun, workspace: Workspace) -> None:
    """Have it train again what it has trained."""
    for key in (run.plan.bundle_key, *(stage.key for stage in run.plan.stages)):
        workspace.store.remove(key)


def facts(bundle: ServingBundle) -> Any:
    """All of a bundle but how long it took, and how much memory."""
    stages = [
        replace(stage, seconds=0, peak_bytes=0, epochs=tuple(replace(epoch, seconds=0) for epoch in stage.epochs))
        for stage in bundle.stages
    ]
    return replace(bundle, stages=tuple(stages))
