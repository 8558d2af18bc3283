"""A project of BERT-base's shape with random weights and made-up texts: for speed alone, and without a network."""

import csv
import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path

from benchmarks.workload import Size, Workload

PROJECT = Path(".graftwork/benchmarks/bert-base")
ROWS = 12_000
LONGEST = 128
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
BASE = {
    "vocab_size": 30_522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
# As many tokens a step as 64 rows have, whose lengths are spread evenly from 8 to 128: the Trainer's batch.
RECIPE = """
name: bert-base-shape
problem_type: text-classification
data:
  sources: [{name: made, path: made.csv}]
  label: {from: label, classes: ["no", "yes"]}
  split: {by: [group]}
input: {text: text, max_tokens: 128, pooling: mean}
checkpoint: {source: "file://checkpoint", licences: [apache-2.0]}
train: {batch_tokens: 4352, precision: bfloat16}
stages: full
policy: policy.yaml
"""


def bert_base(size: Size) -> Workload:
    """Full fine-tuning in bfloat16 on texts whose lengths are spread evenly from 8 to 128 tokens; made afresh."""
    shutil.rmtree(PROJECT, ignore_errors=True)
    write_project(PROJECT, BASE)
    return Workload(PROJECT / "recipe.yaml", size=size)


def write_project(folder: Path, shape: Mapping[str, int], rows: int = ROWS) -> None:
    """A recipe, its data, and its checkpoint of this shape."""
    folder.mkdir(parents=True)
    (folder / ".graftwork").mkdir()  # a root of its own
    words = [f"w{index}" for index in range(shape["vocab_size"] - len(SPECIAL))]
    _write_checkpoint(folder / "checkpoint", shape, words)
    generator = random.Random(0)
    with (folder / "made.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["text", "label"])
        for _ in range(rows):
            length = generator.randint(8, LONGEST) - 2  # without the tokens that begin and end a text
            table.writerow([" ".join(generator.choices(words, k=length)), generator.choice(["no", "yes"])])
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    (folder / "policy.yaml").write_text("minimum_rows: 10\n", encoding="utf-8")


def _write_checkpoint(folder: Path, shape: Mapping[str, int], words: list[str]) -> None:
    """Config, weights drawn at random, a tokenizer whose every word is a token, and the licence."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoModel, BertConfig

    torch.manual_seed(0)
    AutoModel.from_config(BertConfig(**shape)).save_pretrained(folder)
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": LONGEST} | names
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nRandom weights.\n", encoding="utf-8")
