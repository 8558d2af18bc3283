"""Small real things that many tests share: tiny pretrained checkpoints built from a config, without a network."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

WORDS = (
    "a the film movie plot acting was is and not very good great wonderful moving warm clever bright brilliant honest "
    "bad awful dull boring weak cold stupid dark terrible false long short new old"
).split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
CONFIGS = {
    "bert": TINY,
    "roberta": TINY | {"max_position_embeddings": 130, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3},
    "ernie": TINY,
    "electra": TINY | {"embedding_size": 16},
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 2, "hidden_dim": 48},
}


def write_tokenizer(folder: Path) -> int:
    """A word-level tokenizer of a few words, as transformers reads it; the size of its vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 128} | names
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocabulary)


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a tiny checkpoint folder of an architecture: config, tokenizer, safetensors, licence in the model card."""

    def make(architecture: str = "bert", licence: str = "apache-2.0", seed: int = 0) -> Path:
        import torch
        from transformers import AutoConfig, AutoModel

        folder = tmp_path_factory.mktemp(architecture)
        size = write_tokenizer(folder)
        torch.manual_seed(seed)
        config = AutoConfig.for_model(architecture, vocab_size=size, **CONFIGS[architecture])
        AutoModel.from_config(config).save_pretrained(folder)
        (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\nA tiny model for tests.\n")
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    """A tiny BERT; read it, don't write to it."""
    return make_checkpoint()
