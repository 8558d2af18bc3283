"""Masked language modelling: what is hidden, what is computed of it, and a stage that learns so before another."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny import resolve_run, write_project

from graftwork.errors import RecipeError
from graftwork.models.masked import (
    IGNORED,
    MaskedLanguageModel,
    MaskedRows,
    attach_language_head,
    detach_objective,
    token_table,
)
from graftwork.models.serving.config import WEIGHTS, ServingConfig
from graftwork.models.serving.text import TextEncoder
from graftwork.models.text import load_pretrained, word_numbers
from graftwork.training.augmentation import HiddenWords, row_generator
from graftwork.training.engine import run_stages
from graftwork.training.plan import ResolvedRun
from graftwork.workspace import Workspace

TEXTS = ["a good film", "the plot was very very long and the acting was dull", "bad", ""]
CONFIG = ServingConfig(("no", "yes"), ("text",), "mean", 16)
BLANK, VOCABULARY = 1000, 50
HIDING = "name: adapt, objective: masked-language-modelling, epochs: 3, learning_rate: 3e-3"
ADAPTED = (
    f"stages.0={{{HIDING}, train: all}}",
    "stages.1={name: top, train: [head, 'top:1'], epochs: 1, learning_rate: 1e-3}",
)


@given(st.lists(st.integers(-1, 12), min_size=1, max_size=30), st.floats(0, 1), st.integers(0, 1000))
@settings(max_examples=200)
def test_whole_words_are_hidden_and_nothing_else_changes(words: list[int], share: float, seed: int) -> None:
    """A share of the words, at least one if there is any; what is not hidden is read as it was."""
    numbers = np.unique([word for word in words if word >= 0], return_inverse=True)[1]
    known = np.full(len(words), -1)
    known[np.array(words) >= 0] = numbers
    ids = np.arange(100, 100 + len(words))
    row = HiddenWords(share, [known], BLANK, VOCABULARY)(0, ids.tolist(), np.random.default_rng(seed)).numpy()
    read, told = row.T
    is_hidden = told != IGNORED
    assert (told[is_hidden] == ids[is_hidden]).all()
    assert (read[~is_hidden] == ids[~is_hidden]).all()
    hidden = set(known[is_hidden].tolist())
    assert -1 not in hidden
    assert all(is_hidden[known == word].all() for word in hidden)
    count = len(set(known.tolist()) - {-1})
    assert len(hidden) == min(count, max(1, round(share * count)))


def test_of_ten_hidden_words_eight_are_blank_and_one_is_another() -> None:
    """And one stays as it is, so that the body can't take what it reads for what is asked."""
    words = np.arange(20_000)
    ids = np.full(len(words), 7)
    read, told = HiddenWords(0.5, [words], BLANK, VOCABULARY)(0, ids.tolist(), np.random.default_rng(0)).numpy().T
    hidden = read[told != IGNORED]
    assert len(hidden) == 10_000
    assert np.mean(hidden == BLANK) == pytest.approx(0.8, abs=0.02)
    assert np.mean((hidden != BLANK) & (hidden != 7)) == pytest.approx(0.1, abs=0.02)


def test_the_loss_is_that_of_transformers_own_model(tiny_checkpoint: Path) -> None:
    """BERT's model for the purpose, with the same head, gives each row the same mean loss."""
    from transformers import BertConfig, BertForMaskedLM

    model, encoder = load_pretrained(tiny_checkpoint, CONFIG, seed=3).eval(), TextEncoder(tiny_checkpoint, 16)
    attach_language_head(model, seed=5)
    head = model.get_submodule("objective")
    config = BertConfig.from_pretrained(tiny_checkpoint, layer_norm_eps=1e-5)
    theirs = BertForMaskedLM(config).eval()
    theirs.bert.load_state_dict(model.body.state_dict())
    prediction = theirs.cls.predictions
    prediction.transform.dense.load_state_dict(head.dense.state_dict())
    prediction.transform.LayerNorm.load_state_dict(head.norm.state_dict())
    with torch.no_grad():
        prediction.bias.copy_(head.bias.normal_())
        prediction.decoder.bias = prediction.bias
        prediction.decoder.weight = theirs.bert.embeddings.word_embeddings.weight
    for module in model.body.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5
    hide = HiddenWords(0.5, word_numbers(encoder, TEXTS), 4, len(token_table(model.body)))
    rows = [hide(index, ids, row_generator((0, 0, 0), index)) for index, ids in enumerate(encoder.encode(TEXTS))]
    padded, mask = MaskedRows(encoder).pad(rows, 16)
    with torch.inference_mode():
        found = MaskedLanguageModel(model).forward(padded, mask)
        for index in range(3):
            whole = padded[index : index + 1, : len(rows[index])]
            loss = theirs(input_ids=whole[..., 0], labels=whole[..., 1]).loss
            torch.testing.assert_close(found[index, 0], loss)
    assert found[3].tolist() == [0, 0]  # nothing is hidden where there is no word
    detach_objective(model)
    assert not [name for name, _ in model.named_parameters() if name.startswith("objective.")]


def test_a_stage_learns_from_texts_and_leaves_a_classifier(
    resolve: Callable[..., ResolvedRun], workspace: Workspace
) -> None:
    """It tells hidden words better from epoch to epoch; its own head is gone, the classifier's rested."""
    run = resolve(*ADAPTED)
    adapt, top = run.plan.stages
    assert [*adapt.rates] == ["embeddings", "block.0", "block.1", "block.2", "objective"]
    assert (adapt.cut, top.cut) == (0, 2)
    bundle = run_stages(run, workspace, lambda event: None, lambda: False)
    first, *_, last = bundle.stages[0].epochs
    assert last.validation_loss < 0.9 * first.validation_loss
    assert last.validation_accuracy > first.validation_accuracy
    left = load_file(workspace.store.root / adapt.key / WEIGHTS)
    fresh = load_pretrained(workspace.store.root / run.lock.key, CONFIG, seed=run.plan.seed).state_dict()
    assert left.keys() == fresh.keys()
    same = {name for name in left if torch.equal(left[name], fresh[name])}
    assert {"head.1.weight", "head.1.bias"} <= same
    assert not {name for name in same if name.endswith("query.weight")}


def test_parameters_are_counted_before_they_are_there(
    resolve: Callable[..., ResolvedRun], workspace: Workspace
) -> None:
    """From the checkpoint's header alone."""
    run = resolve(*ADAPTED)
    model = load_pretrained(workspace.store.root / run.lock.key, CONFIG, seed=0)
    attach_language_head(model, seed=0)
    counted = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("head."))
    assert run.plan.stages[0].trainable == counted


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (f"{{{HIDING}, train: [head, 'top:1']}}", "needs no head and trains none"),
        (f"{{{HIDING}, train: all, label_smoothing: 0.1}}", "takes no label_smoothing"),
        (f"{{{HIDING}, train: objective}}", "what this trains alone is gone"),
        ("{name: a, train: all, epochs: 1, learning_rate: 1, hidden_share: 0.2}", "hidden_share is for"),
    ],
)
def test_what_can_t_be_meant_is_refused(resolve: Callable[..., ResolvedRun], stage: str, message: str) -> None:
    """Before anything is spent."""
    with pytest.raises(RecipeError, match=message):
        resolve(f"stages.0={stage}")


def test_labels_come_last(resolve: Callable[..., ResolvedRun]) -> None:
    with pytest.raises(RecipeError, match="the last stage has to train a classifier"):
        resolve(f"stages=[{{{HIDING}, train: all}}]")


def test_a_family_without_a_mask_is_refused(
    tmp_path: Path, workspace: Workspace, make_checkpoint: Callable[..., Path]
) -> None:
    """With those that have one."""
    write_project(tmp_path, make_checkpoint("gpt2"))
    with pytest.raises(RecipeError, match=r"GPT-2.*no token that hides a word.*bert, roberta"):
        resolve_run(tmp_path, workspace, *ADAPTED)
