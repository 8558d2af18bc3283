"""Tiny checkpoints that were made to write texts, and a project in which what is written can be told from what is read.

Real in all but size, and built offline.
"""

import json
import random
from pathlib import Path
from typing import Any

from tiny import CONFIGS, REVIEWS, UNMARKED, write_tokenizer

WRITERS = ("t5", "gpt2", "llama")
OWN_TABLE: dict[str, dict[str, Any]] = {
    "t5": {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu", "num_decoder_layers": 2},
    "llama": {"tie_word_embeddings": False},
}
RECIPE = """
name: tiny-writer
problem_type: text-generation
data:
  sources: [{{name: made, path: made.csv}}]
  label: {{from: verdict}}
  split: {{holdout: 0.2, validation: 0.2, seed: 1, by: [group]}}
input: {{text: text, max_tokens: 16}}
output: {{max_tokens: 8}}
checkpoint: {{source: "file://{checkpoint}", licences: [apache-2.0]}}
train: {{batch_tokens: 256, precision: float32}}
stages:
  - {{name: top, train: [head, "top:1"], epochs: 1, learning_rate: 1e-3}}
  - {{name: all, train: all, epochs: 2, learning_rate: 1e-3}}
policy: policy.yaml
"""


def write_writer(folder: Path, architecture: str, has_own_table: bool = False, seed: int = 0, **facts: Any) -> Any:
    """A checkpoint of the whole model, decoder and language head too; transformers' model of it.

    facts: of its config.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder, is_marked=architecture not in UNMARKED)
    if architecture in UNMARKED:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": "[SEP]"}))
    torch.manual_seed(seed)
    extra = OWN_TABLE[architecture] if has_own_table else {"tie_word_embeddings": True}
    facts = (
        CONFIGS[architecture]
        | facts
        | {"vocab_size": vocabulary, "eos_token_id": 3, "decoder_start_token_id": 0}
        | extra
    )
    config = AutoConfig.for_model(architecture, **facts)
    model: Any = (AutoModelForSeq2SeqLM if architecture == "t5" else AutoModelForCausalLM).from_config(config)
    if has_own_table and architecture == "t5":
        model.lm_head.weight = torch.nn.Parameter(torch.randn(vocabulary, 32))
    model.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nA tiny model for tests.\n")
    return model.eval()


def write_writer_project(folder: Path, checkpoint: Path) -> None:
    """A recipe for the checkpoint, its policy, and 512 reviews whose verdict is two of their words, the last first."""
    lines = [f"{text},{text.split()[-1]} {text.split()[-3]}" for text in REVIEWS]
    random.Random(3).shuffle(lines)
    (folder / "made.csv").write_text("text,verdict\n" + "\n".join(lines) + "\n")
    (folder / "policy.yaml").write_text("minimum_rows: 10\nmetric: rouge_l\nbaselines: [majority, tfidf]\n")
    (folder / "recipe.yaml").write_text(RECIPE.format(checkpoint=checkpoint))
