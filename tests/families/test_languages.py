"""Texts in scripts without spaces, through the whole chain: contract, leakage, split, tokeniser, training, report."""

import json
from itertools import product
from pathlib import Path

import pytest
from tiny import CONFIGS, RECIPE, SPECIAL, resolve_run

from graftwork.data.manifest import load_rows
from graftwork.evaluation.baselines import FrozenEncoder
from graftwork.evaluation.evaluation import evaluate
from graftwork.models.serving.model import load
from graftwork.policy import Policy
from graftwork.promotion.gate import judge
from graftwork.registry.contenders import candidate
from graftwork.report.facts import ReportFacts, installed_libraries, this_machine
from graftwork.report.files import store_report
from graftwork.settings import Settings
from graftwork.training.bundle import MODEL
from graftwork.training.engine import run_stages
from graftwork.workspace import Workspace

CLASSES = {
    "chinese": ("差评", "好评"),
    "thai": ("แย่", "ดี"),
}
# A template, what it is about, words of either class, and a sentence with a copy of it that differs in one word.
SCRIPTS = {
    "chinese": (
        "这部{}{}而且{}",
        ("电影", "小说", "戏剧", "游戏"),
        ("糟糕", "无聊", "冷淡", "可怕", "乏味", "粗糙"),
        ("精彩", "感人", "温暖", "聪明", "有趣", "细腻"),
        ("我上周和朋友一起去城里的老电影院看了这部很长的片子", "我上周和朋友一起去城里的新电影院看了这部很长的片子"),
    ),
    "thai": (
        "{}เรื่องนี้{}และ{}",
        ("หนัง", "นิยาย", "ละคร", "เกม"),
        ("แย่มาก", "น่าเบื่อ", "เย็นชา", "น่ากลัว", "จืดชืด", "หยาบ"),
        ("ดีเยี่ยม", "ซาบซึ้ง", "อบอุ่น", "ฉลาด", "สนุก", "ละเอียด"),
        ("สัปดาห์ที่แล้วฉันไปดูหนังยาวเรื่องนี้กับเพื่อนที่โรงเก่าในเมือง", "สัปดาห์ที่แล้วฉันไปดูหนังยาวเรื่องนี้กับเพื่อนที่โรงใหม่ในเมือง"),
    ),
}
CONTRACT = """
schema_type: dataframe
columns:
  text:
    checks:
      str_length: {min_value: 4, max_value: 200}
      str_matches: '^[^ ]+$'
"""


def write_language(folder: Path, language: str) -> None:
    """A project of made-up reviews, and a checkpoint whose tokens are single characters."""
    import torch
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoConfig, AutoModel

    template, things, bad, good, twins = SCRIPTS[language]
    lines = [
        f"{template.format(thing, first, second)},{label}"
        for words, label in zip((bad, good), CLASSES[language], strict=True)
        for thing, first, second in product(things, words, words)
        if first != second
    ]
    lines += [f"{twin},{CLASSES[language][0]}" for twin in twins]
    lines.append(f"{twins[0]} {twins[1]},{CLASSES[language][0]}")  # the one with a space: the contract sets it aside
    (folder / "made.csv").write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    (folder / "contract.yaml").write_text(CONTRACT)
    (folder / "policy.yaml").write_text("minimum_rows: 10\n")
    recipe = RECIPE.format(checkpoint=folder / "checkpoint").replace('["no", "yes"]', json.dumps(CLASSES[language]))
    recipe = recipe.replace("by: [group]", "by: [near_duplicate], near_duplicate: 0.85")
    (folder / "recipe.yaml").write_text(recipe.replace("max_tokens: 16", "max_tokens: 64"), encoding="utf-8")

    (folder / "checkpoint").mkdir()
    characters = sorted(set("".join(lines)))
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    marks = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    tokenizer.save(str(folder / "checkpoint/tokenizer.json"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 128} | names
    (folder / "checkpoint/tokenizer_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    made = AutoConfig.for_model("bert", vocab_size=len(vocabulary), **CONFIGS["bert"])
    AutoModel.from_config(made).save_pretrained(folder / "checkpoint")
    (folder / "checkpoint/README.md").write_text("---\nlicense: apache-2.0\n---\n")


@pytest.mark.e2e
@pytest.mark.parametrize("language", SCRIPTS)
def test_a_script_without_spaces_goes_through(language: str, tmp_path: Path) -> None:
    """Characters are words: to near duplicates, to the baseline, which beats chance by far, and in what people read."""
    write_language(tmp_path, language)
    workspace = Workspace.open(Settings(home=tmp_path / "home"))
    contract, training = "data.contract=contract.yaml", "stages.1.epochs=6"
    run = resolve_run(tmp_path, workspace, contract, training, "stages.1.learning_rate=3e-3", "stages.1.train=all")
    assert run.manifest.counts.quarantined == 1
    rows = load_rows(workspace.store, run.manifest).set_index("text")
    twins = rows.loc[list(SCRIPTS[language][4])]
    assert twins["side"].nunique() == twins["unit"].nunique() == 1

    bundle = run_stages(run, workspace, lambda event: None, lambda: False)
    served = load(workspace.store.root / bundle.key / MODEL)
    assert served.classes == CLASSES[language]
    evaluation = evaluate(
        workspace.store,
        candidate(workspace, bundle),
        {},
        run.manifest,
        encoder=FrozenEncoder(run.lock.key, run.plan.pooling, run.plan.max_tokens, run.plan.precision),
        baselines=("majority", "tfidf"),
        samples=50,
    )
    assert evaluation.baselines["tfidf"]["accuracy"].value > evaluation.baselines["majority"]["accuracy"].value + 0.2
    assert evaluation.metrics["accuracy"].value > 0.7
    verdict = judge(evaluation, Policy(minimum_rows=1), workspace.store, look=1)
    made = {"created_at": "2026-11-01", "machine": this_machine(), "libraries": installed_libraries()}
    facts = ReportFacts(run, bundle, evaluation, verdict, version=None, entry=None, command="graftwork run", **made)
    page = (store_report(workspace.store, facts) / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in CLASSES[language])
