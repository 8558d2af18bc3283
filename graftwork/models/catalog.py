"""Every supported architecture, one entry each, and how its parameters fall into depth groups.

Depth 0 holds the embeddings, then come the blocks in order, then the neck where there is one, last the head. Everything
here works on tensor names, so a plan can be made from a checkpoint's header without loading a weight.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import prod
from typing import Any, ClassVar

from graftwork.errors import CheckpointError
from graftwork.models.serving.config import TOWERS, find_width

# What a module below a cut does in the part above it, where activations come in that it had its share in.
HANDS_ON, ADDS_NOTHING, IS_GONE = "hands on", "adds nothing", "is gone"
# Tokens that an encoder puts around a text, or in the place of what it lacks.
ENCODER_TOKENS = ("pad_token", "unk_token", "cls_token", "sep_token")


# What batch normalisation counts, and does not learn.
STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")
# How many rows it takes at once: one value of a channel has no variance, and a picture may come down to one.
LEAST_ROWS = 2


@dataclass(frozen=True)
class Family:
    """Where a model keeps its parts: prefixes of tensor names inside the bare model.

    known_as: families of checkpoints that are made so. blocks: "" where there are none. modality: text, image or audio,
    which it reads. poolings: that a recipe may name. is_cut: it can go on from the activations of a block, which are
    kept; else only pooled ones are. neck: what comes after the last block. attention: prefix of its layers inside a
    block; "" for none. table: the end of the name of the tensor that has a row for each token. special_tokens: kinds
    that its tokenizer must have. pooling: how its tokens become one state where neither the recipe nor the checkpoint
    says. above: what modules below a cut do in the part above it. positions: what config.json calls the most that it
    can read; "" for any number. has_offset: its first token's position is the one after the padding token's id, not 0.
    side: what config.json calls the one side of pictures that it has positions for; "" for any. has_mask: it was made
    to tell words that a mask token hides. is_autoregressive: it was made to tell what comes next. is_detective: words
    that were replaced. joins_texts: whether one text follows another. tells_spans: spans that are hidden, by a decoder
    beside it. is_tied: it tells tokens by its table of them, if config.json does not say. is_transposed: its linear
    layers keep their weights as (inputs, outputs). renamed: names in the checkpoint, without the base model's prefix,
    or parts of names that end with a dot, that are others in the model. reads_pairs: it is given two texts as
    one, with a token between them. lender: inside a block, the module of the lowest one that lends its bias of
    positions to all others. stale: pattern of names that old files hold and no model has. unused: prefixes of what a
    checkpoint may hold for other uses. tower: what it is called, where config.json names a model of two. width: name of
    a tensor as high as the last state is wide, where config.json does not say. jump: 0 where blocks are numbered; where
    layers are, all in one row, the least step from one with parameters to the next that leads into another block. The
    first of these blocks are the embeddings.
    """

    known_as: str
    blocks: str
    modality: str = "text"
    poolings: tuple[str, ...] = ("mean", "cls", "last", "max", "attention")
    is_cut: bool = True
    embeddings: tuple[str, ...] = ("embeddings.",)
    neck: tuple[str, ...] = ()
    attention: str = "attention."
    table: str = "embeddings.word_embeddings.weight"
    special_tokens: tuple[str, ...] = ENCODER_TOKENS
    pooling: str = "mean"
    above: Mapping[str, str] = field(default_factory=lambda: {"embeddings": HANDS_ON})
    base_prefix: str = ""
    positions: str = "max_position_embeddings"
    has_offset: bool = False
    side: str = ""
    has_mask: bool = True
    is_autoregressive: bool = False
    is_detective: bool = False
    joins_texts: bool = False
    tells_spans: bool = False
    is_tied: bool = True
    is_transposed: bool = False
    reads_pairs: bool = True
    renamed: Mapping[str, str] = field(default_factory=dict)
    lender: str = ""
    stale: str = r"(?!)"
    unused: tuple[str, ...] = ("pooler.",)
    tower: str = ""
    width: str = ""
    jump: int = 0

    @property
    def has_attention(self) -> bool:
        """False for convolutions and tables."""
        return bool(self.blocks) and self.attention != ""

    def name_of(self, tensor: str) -> str:
        """What a checkpoint's tensor is called in the bare model."""
        name = tensor.removeprefix(self.base_prefix)
        if name in self.renamed:
            return self.renamed[name]
        for old, new in self.renamed.items():
            name = name.replace(old, new) if old.endswith(".") else name
        return name

    def stored_name_of(self, name: str) -> str:
        """What a tensor of the bare model is called in a checkpoint of it alone."""
        whole = {new: old for old, new in self.renamed.items() if not old.endswith(".")}
        return whole.get(name, f"{self.base_prefix}{name}") if whole else name


OF_IMAGES: dict[str, Any] = {
    "modality": "image",
    "is_cut": False,
    "table": "",
    "special_tokens": (),
    "positions": "",
    "has_mask": False,
}
# What is between its layers has no tokens: it pools by itself, over places.
CONVOLVING: dict[str, Any] = OF_IMAGES | {"pooling": "body", "poolings": ("body",), "attention": ""}

OF_SOUNDS: dict[str, Any] = OF_IMAGES | {"modality": "audio", "poolings": ("mean", "max", "attention")}
# Base models normalise before the blocks, large ones after them; in both that goes with the embeddings.
SPEECH: dict[str, Any] = OF_SOUNDS | {
    "embeddings": (
        "masked_spec_embed",
        "feature_extractor.",
        "feature_projection.",
        "encoder.pos_conv_embed.",
        "encoder.layer_norm.",
    ),
    "unused": ("quantizer.", "project_hid.", "project_q.", "final_proj.", "lm_head.", "projector.", "classifier."),
}
# ViT's blocks, and those of whoever took them over, have other names in files than in transformers.
OLD_VIT: Mapping[str, str] = {
    "encoder.layer.": "layers.",
    ".attention.attention.query.": ".attention.q_proj.",
    ".attention.attention.key.": ".attention.k_proj.",
    ".attention.attention.value.": ".attention.v_proj.",
    ".attention.output.dense.": ".attention.o_proj.",
    ".intermediate.dense.": ".mlp.fc1.",
    ".output.dense.": ".mlp.fc2.",
}

FAMILIES: Mapping[str, Family] = {
    "bert": Family(
        "BERT, MiniLM, BGE, E5",
        "encoder.layer.",
        joins_texts=True,
        base_prefix="bert.",
        unused=("pooler.", "cls.", "classifier."),
    ),
    "roberta": Family(
        "RoBERTa",
        "encoder.layer.",
        base_prefix="roberta.",
        has_offset=True,
        unused=("pooler.", "lm_head.", "classifier."),
    ),
    "ernie": Family(
        "ERNIE",
        "encoder.layer.",
        joins_texts=True,
        base_prefix="ernie.",
        unused=("pooler.", "cls.", "classifier."),
    ),
    "electra": Family(
        "ELECTRA (its discriminator)",
        "encoder.layer.",
        embeddings=("embeddings.", "embeddings_project."),
        above={"embeddings": HANDS_ON, "embeddings_project": HANDS_ON},
        is_detective=True,
        base_prefix="electra.",
        unused=("discriminator_predictions.", "generator_predictions.", "generator_lm_head.", "classifier."),
    ),
    "distilbert": Family(
        "DistilBERT",
        "transformer.layer.",
        base_prefix="distilbert.",
        unused=("vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "pre_classifier.", "classifier."),
    ),
    # All blocks read the embeddings of relative positions; the convolution, where there is one, follows the first.
    "deberta-v2": Family(
        "DeBERTa v2 and v3",
        "encoder.layer.",
        embeddings=("embeddings.", "encoder.rel_embeddings.", "encoder.LayerNorm.", "encoder.conv."),
        above={"embeddings": HANDS_ON, "encoder.conv": IS_GONE},
        base_prefix="deberta.",
        unused=("pooler.", "cls.", "lm_predictions.", "mask_predictions.", "classifier."),
    ),
    "modernbert": Family(
        "ModernBERT",
        "layers.",
        neck=("final_norm.",),
        attention="attn.",
        table="embeddings.tok_embeddings.weight",
        base_prefix="model.",
        unused=("head.", "decoder.", "classifier."),
    ),
    "gpt2": Family(
        "GPT-2, DistilGPT2",
        "h.",
        embeddings=("wte.", "wpe."),
        neck=("ln_f.",),
        attention="attn.",
        table="wte.weight",
        positions="n_positions",
        has_mask=False,
        is_autoregressive=True,
        special_tokens=(),
        reads_pairs=False,
        pooling="last",
        above={"wte": IS_GONE, "wpe": ADDS_NOTHING, "drop": HANDS_ON},
        base_prefix="transformer.",
        is_transposed=True,
        stale=r"h\.\d+\.attn\.(masked_)?bias",
        unused=("lm_head.", "score."),
    ),
    "llama": Family(
        "Llama, TinyLlama, SmolLM",
        "layers.",
        embeddings=("embed_tokens.",),
        neck=("norm.",),
        attention="self_attn.",
        table="embed_tokens.weight",
        has_mask=False,
        is_autoregressive=True,
        is_tied=False,
        special_tokens=(),
        reads_pairs=False,
        pooling="last",
        above={"embed_tokens": IS_GONE},
        base_prefix="model.",
        stale=r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
        unused=("lm_head.", "score."),
    ),
    # Its encoder alone; some files hold the table of tokens twice, for both its names.
    "t5": Family(
        "T5, Flan-T5, Sentence-T5 (the encoder)",
        "block.",
        embeddings=("embed_tokens.",),
        neck=("final_layer_norm.",),
        attention="layer.0.",
        table="shared.weight",
        positions="",
        has_mask=False,
        tells_spans=True,
        special_tokens=("pad_token", "unk_token"),
        above={"embed_tokens": IS_GONE, "dropout": HANDS_ON},
        base_prefix="encoder.",
        renamed={"shared.weight": "embed_tokens.weight"},
        lender="layer.0.SelfAttention",
        unused=("decoder.", "lm_head.", "final_projection.", "linear."),
    ),
    # No word knows of another, so that the first and the last tell nothing, and two texts in one can't be told apart.
    "word-vectors": Family(
        "Word2Vec, GloVe",
        "",
        poolings=("mean", "max", "attention"),
        is_cut=False,
        table="embeddings.weight",
        positions="",
        has_mask=False,
        reads_pairs=False,
        special_tokens=("pad_token", "unk_token"),
        unused=(),
    ),
    "vit": Family(
        "ViT, DINO",
        "layers.",
        neck=("layernorm.",),
        pooling="cls",
        poolings=("cls", "mean", "max", "attention"),
        side="image_size",
        base_prefix="vit.",
        renamed=OLD_VIT,
        unused=("pooler.", "classifier."),
        **OF_IMAGES,
    ),
    "resnet": Family(
        "ResNet",
        "encoder.stages.",
        embeddings=("embedder.",),
        base_prefix="resnet.",
        unused=("classifier.",),
        **CONVOLVING,
    ),
    "convnext": Family(
        "ConvNeXT",
        "encoder.stages.",
        neck=("layernorm.",),
        base_prefix="convnext.",
        unused=("classifier.",),
        **CONVOLVING,
    ),
    "efficientnet": Family(
        "EfficientNet",
        "encoder.blocks.",
        neck=("encoder.top_conv.", "encoder.top_bn."),
        base_prefix="efficientnet.",
        unused=("classifier.",),
        **CONVOLVING,
    ),
    # Each tower by itself, up to the space that both share.
    "clip_vision_model": Family(
        "CLIP (its pictures)",
        "vision_model.encoder.layers.",
        embeddings=("vision_model.embeddings.", "vision_model.pre_layrnorm."),
        neck=("vision_model.post_layernorm.", "visual_projection."),
        unused=("text_model.", "text_projection.", "logit_scale"),
        side="image_size",
        tower="clip_vision_model",
        width="visual_projection.weight",
        **CONVOLVING | {"attention": "self_attn."},
    ),
    "clip_text_model": Family(
        "CLIP (its texts)",
        "text_model.encoder.layers.",
        embeddings=("text_model.embeddings.",),
        neck=("text_model.final_layer_norm.", "text_projection."),
        attention="self_attn.",
        table="text_model.embeddings.token_embedding.weight",
        special_tokens=(),
        has_mask=False,
        is_cut=False,
        pooling="body",
        poolings=("body",),
        unused=("vision_model.", "visual_projection.", "logit_scale"),
        tower="clip_text_model",
        width="text_projection.weight",
        reads_pairs=False,
    ),
    "siglip_vision_model": Family(
        "SigLIP (its pictures)",
        "encoder.layers.",
        neck=("post_layernorm.", "head."),
        base_prefix="vision_model.",
        unused=("text_model.", "logit_scale", "logit_bias"),
        side="image_size",
        tower="siglip_vision_model",
        width="post_layernorm.weight",
        **CONVOLVING | {"attention": "self_attn."},
    ),
    "siglip_text_model": Family(
        "SigLIP (its texts)",
        "encoder.layers.",
        neck=("final_layer_norm.", "head."),
        attention="self_attn.",
        table="embeddings.token_embedding.weight",
        special_tokens=(),
        has_mask=False,
        is_cut=False,
        pooling="body",
        poolings=("body",),
        base_prefix="text_model.",
        unused=("vision_model.", "logit_scale", "logit_bias"),
        tower="siglip_text_model",
        width="head.weight",
        reads_pairs=False,
    ),
    "wavenet": Family(
        "WaveNet",
        "blocks.",
        neck=("neck.",),
        attention="",
        is_autoregressive=True,
        **OF_SOUNDS,
    ),
    "wav2vec2": Family("wav2vec 2.0, XLS-R", "encoder.layers.", base_prefix="wav2vec2.", **SPEECH),
    "hubert": Family("HuBERT", "encoder.layers.", base_prefix="hubert.", **SPEECH),
    "wavlm": Family("WavLM", "encoder.layers.", base_prefix="wavlm.", **SPEECH),
    "audio-spectrogram-transformer": Family(
        "AST",
        "layers.",
        neck=("layernorm.",),
        base_prefix="audio_spectrogram_transformer.",
        renamed=OLD_VIT,
        unused=("classifier.",),
        **OF_SOUNDS | {"pooling": "body", "poolings": ("body", "mean", "max", "attention")},
    ),
    # Within a group a convolution follows the activation of the one before; between groups a pool does.
    "vgg": Family(
        "VGG",
        "features.",
        jump=3,
        embeddings=(),
        neck=("classifier.0.", "classifier.3."),
        unused=("classifier.6.",),
        **CONVOLVING,
    ),
    "alexnet": Family(
        "AlexNet",
        "features.",
        jump=1,
        embeddings=(),
        neck=("classifier.1.", "classifier.4."),
        unused=("classifier.6.",),
        **CONVOLVING,
    ),
}


@dataclass(frozen=True)
class DepthGroup:
    """Parameters that are trained or frozen together: a name, a depth, and the tensor-name prefixes that belong."""

    SCHEMA: ClassVar[int] = 1
    name: str
    depth: int
    parameters: int
    prefixes: tuple[str, ...]


# What a family can go on being pretrained by, as recipes call it.
OBJECTIVES: Mapping[str, Callable[[Family], bool]] = {
    "masked-language-modelling": lambda family: family.has_mask,
    "replaced-token-detection": lambda family: family.is_detective,
    "autoregressive": lambda family: family.is_autoregressive,
    "next-sentence-prediction": lambda family: family.joins_texts,
    "span-corruption": lambda family: family.tells_spans,
}


@dataclass(frozen=True)
class FamilyFacts:
    """What users of an architecture have to know. depth_groups: shallowest first, where there are n blocks.

    attention_layers: "-" for none. objectives: of stages that read no labels. left_out: prefixes of tensors that its
    files may hold for other uses.
    """

    architecture: str
    known_as: str
    depth_groups: tuple[str, ...]
    pooling: str
    attention_layers: str
    objectives: tuple[str, ...]
    left_out: tuple[str, ...]


def list_families() -> tuple[FamilyFacts, ...]:
    """Every architecture of the catalog, by its `model_type`."""
    return tuple(
        FamilyFacts(
            architecture=name,
            known_as=family.known_as,
            depth_groups=_group_names(family),
            pooling=family.pooling,
            attention_layers=f"{family.blocks}i.{family.attention}*" if family.has_attention else "-",
            objectives=tuple(name for name, is_made in OBJECTIVES.items() if is_made(family)),
            left_out=family.unused,
        )
        for name, family in FAMILIES.items()
    )


def family_of(architecture: str) -> Family:
    """The family of a `model_type`; CheckpointError names the known ones."""
    if architecture not in FAMILIES:
        raise CheckpointError(f"architecture {architecture!r} is not supported: known are {', '.join(FAMILIES)}")
    return FAMILIES[architecture]


def families_for(modality: str) -> Mapping[str, Family]:
    """Every family by what config.json calls it: a model of two towers is the one that reads this."""
    return {**FAMILIES, **{pair: FAMILIES[tower] for (pair, read), (_, tower) in TOWERS.items() if read == modality}}


def width_of(family: Family, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The width of the last state: as config.json says, or as the tensor that ends it is high.

    Raises CheckpointError if that is not there.
    """
    if not family.width:
        return find_width(config)
    found = next((shape for name, shape in shapes.items() if family.name_of(name) == family.width), ())
    if not found:
        raise CheckpointError(f"tensor {family.width} is missing from the checkpoint")
    return found[0]


def depth_groups(family: Family, shapes: Mapping[str, tuple[int, ...]], head_parameters: int) -> tuple[DepthGroup, ...]:
    """The depth groups of a classifier on this body: `embeddings`, `block.0` … `block.n-1`, `neck`, `head`.

    shapes: tensor name -> shape, as in the checkpoint's header (with or without the base model's prefix). The head's
    group is all that is new: what pools the tokens, too, where that is learnt.
    Raises CheckpointError if embeddings or blocks are not where the family keeps them, or a tensor is in neither.
    """
    sizes: dict[str, int] = {}
    strangers = []
    full_names = {family.name_of(each): each for each in shapes}
    parts = _parts(family, full_names)
    for name, full_name in full_names.items():
        group = next((parts[prefix] for prefix in parts if name.startswith(prefix)), None)
        if re.fullmatch(family.stale, name) or name.endswith(STATISTICS):
            continue
        if group is not None:
            sizes[group] = sizes.get(group, 0) + prod(shapes[full_name])
        elif not name.startswith(family.unused):
            strangers.append(full_name)
    blocks = sorted((name for name in sizes if name.startswith("block.")), key=_block_index)
    is_unbroken = [_block_index(name) for name in blocks] == list(range(len(blocks)))
    if "embeddings" not in sizes or not is_unbroken or bool(blocks) != bool(family.blocks):
        first = (*family.embeddings, family.blocks)[0]
        wanted = f"{first}*" + (f" or no unbroken {family.blocks}0…" if family.blocks else "")
        raise CheckpointError(f"no {wanted} among the tensors")
    if strangers:
        raise CheckpointError(*(f"tensor {name} belongs to no part of this architecture" for name in strangers))
    names = ["embeddings", *blocks, *(["neck"] if "neck" in sizes else [])]
    prefixes = {name: tuple(f"body.{prefix}" for prefix, group in parts.items() if group == name) for name in names}
    body = [DepthGroup(name, depth, sizes[name], each) for depth, (name, each) in enumerate(prefixes.items())]
    return (*body, DepthGroup("head", len(body), head_parameters, ("pool.", "head.")))


def sample_head_parameters(width: int, quantization: int) -> int:
    """Of what tells levels of samples from states so wide: see `graftwork.models.autoregressive`."""
    return (width + 1) * quantization


def language_head_parameters(width: int, vocabulary: int, table_width: int) -> int:
    """Of what tells hidden words from states so wide, by a table of tokens: see `graftwork.models.masked`."""
    return width * table_width + 3 * table_width + vocabulary


def generator_width(width: int) -> int:
    """Of what writes such words: a third of the body's, as of ELECTRA's base model, in steps that heads can share."""
    return max(16, width // 3 // 16 * 16)


def replacer_parameters(width: int, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Of what a body so wide, of a checkpoint of these shapes, learns beside: see `graftwork.models.replaced`."""
    table, positions, types = (
        next((shape for name, shape in shapes.items() if name.endswith(f"embeddings.{kind}_embeddings.weight")), (0, 0))
        for kind in ("word", "position", "token_type")
    )
    layers = sum(name.endswith("attention.self.query.weight") for name in shapes)
    small, each = generator_width(width), table[1]
    block = 4 * (small + 1) * small + (small + 1) * 4 * small + (4 * small + 1) * small + 4 * small
    generator = (positions[0] + types[0] + 2) * each + (each != small) * (each + 1) * small + layers * block
    return generator + language_head_parameters(small, *table) + (width + 1) * width + width + 1


def block_layers(family: Family, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, tuple[int, int]]]:
    """The linear layers of each block: depth group -> name inside the block -> (outputs, inputs)."""
    layers: dict[str, dict[str, tuple[int, int]]] = {}
    for full_name in sorted(shapes):
        name, shape = family.name_of(full_name), shapes[full_name]
        block = re.fullmatch(re.escape(family.blocks) + r"(\d+)\.(.+(?<!_bias))\.weight", name)  # a bias is a table
        if block and len(shape) == 2:
            outputs, inputs = shape[::-1] if family.is_transposed else shape
            layers.setdefault(f"block.{block[1]}", {})[block[2]] = (outputs, inputs)
    return layers


def _parts(family: Family, names: Iterable[str]) -> dict[str, str]:
    """The depth group of each prefix of these names."""
    found = (family.blocks and re.match(re.escape(family.blocks) + r"(\d+)\.", name) for name in names)
    numbers = sorted({int(each[1]) for each in found if each})
    blocks = {f"{family.blocks}{n}.": name for n, name in zip(numbers, _block_names(family, numbers), strict=True)}
    return dict.fromkeys(family.embeddings, "embeddings") | blocks | dict.fromkeys(family.neck, "neck")


def _block_names(family: Family, numbers: Sequence[int]) -> list[str]:
    """The depth groups of what has these numbers, in order."""
    if not family.jump:
        return [f"block.{number}" for number in numbers]
    begins = (number - before >= family.jump for before, number in pairwise([*numbers[:1], *numbers]))
    return ["embeddings" if place == 0 else f"block.{place - 1}" for place in accumulate(begins, initial=0)][1:]


def _group_names(family: Family) -> tuple[str, ...]:
    blocks, neck = ["block.0 … block.n-1"] if family.blocks else [], ["neck"] if family.neck else []
    return ("embeddings", *blocks, *neck, "head")


def normalised_groups(family: Family, shapes: Mapping[str, tuple[int, ...]]) -> set[str]:
    """The depth groups with batch normalisation."""
    names = [family.name_of(each) for each in shapes]
    counted = [name for name in names if name.endswith(STATISTICS)]
    return {group for prefix, group in _parts(family, names).items() if any(n.startswith(prefix) for n in counted)}


def _block_index(name: str) -> int:
    return int(name.partition(".")[2])
