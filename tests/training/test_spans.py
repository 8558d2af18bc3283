"""Span corruption: what is hidden, what is computed of it, and a stage whose decoder tells it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretrained import write_t5
from safetensors.torch import load_file, save_file
from tiny import WORDS, facts, resolve_run, train_until, train_with_stops, write_project

from graftwork.errors import CheckpointError, RecipeError
from graftwork.models.serving.config import OWN_TABLE, WEIGHTS, ServingConfig
from graftwork.models.serving.telling import IGNORED
from graftwork.models.serving.text import TextEncoder
from graftwork.models.spans import SpanModel, SpanRows, attach_decoder, end_token
from graftwork.models.text import load_pretrained, word_numbers
from graftwork.settings import Settings
from graftwork.training.augmentation import row_generator
from graftwork.training.optimizer import set_modes
from graftwork.training.pretraining import count_spans, most_sentinels
from graftwork.training.spans import HiddenSpans, draw_spans, sentinels_of
from graftwork.workspace import Workspace

TEXTS = ["a good film", "the plot was very very long and the acting was dull and cold", "bad", ""]
CONFIG = ServingConfig(("no", "yes"), ("text",), "mean", 16)
STAGE = "name: adapt, objective: span-corruption"
STAGES = (
    f"stages=[{{{STAGE}, train: all, epochs: 3, learning_rate: 3e-3}},"
    " {name: top, train: [head, 'top:1'], epochs: 1, learning_rate: 1e-3}]"
)
FIRST_SENTINEL, END, AROUND = 1000, 1, 7


@pytest.fixture
def t5(tmp_path: Path) -> Path:
    return write_t5(tmp_path / "checkpoint")


def spans_of(folder: Path, texts: list, share: float = 0.15) -> tuple[HiddenSpans, list[list[int]]]:
    """What hides spans of these texts, and their ids."""
    encoder = TextEncoder(folder, 16)
    model = load_pretrained(folder, CONFIG, seed=0)
    sentinels = sentinels_of(encoder, most_sentinels(16, share, 2.0))
    hide = HiddenSpans(share, 2.0, word_numbers(encoder, texts), sentinels, end_token(model, encoder))
    return hide, encoder.encode(texts)


@given(
    st.lists(st.sampled_from([AROUND, *range(100, 110)]), max_size=60),
    st.floats(0, 1),
    st.floats(1, 8),
    st.integers(0, 1000),
)
@settings(max_examples=300)
def test_the_told_spans_put_back_give_the_text(ids: list[int], share: float, span: float, seed: int) -> None:
    """Each behind its own token, in order, and a last one behind which is the end; what is around words stays."""
    words = np.where(np.array(ids, int) == AROUND, -1, 0)
    sentinels = FIRST_SENTINEL + np.arange(2 * len(ids) + 2)
    hide = HiddenSpans(share, span, [words], sentinels, END)
    row = hide(0, ids, np.random.default_rng(seed)).numpy()
    read, told = ([token for token in column if token != IGNORED] for column in row.T.tolist())
    assert told.pop() == END
    spans: list[list[int]] = []
    for token in told:
        if token == FIRST_SENTINEL + len(spans):
            spans.append([])
        else:
            spans[-1].append(token)
    assert spans.pop() == []
    assert [token for token in read if token >= FIRST_SENTINEL] == [FIRST_SENTINEL + n for n in range(len(spans))]
    back = [t for token in read for t in (spans[token - FIRST_SENTINEL] if token >= FIRST_SENTINEL else [token])]
    assert back == ids
    assert not [span for span in spans if AROUND in span]
    count = int((words == 0).sum())
    assert sum(map(len, spans)) == min(count, max(1, round(share * count)))
    if ids.count(AROUND) < 2:  # as between the texts of a pair
        assert len(row) <= hide.length(len(ids))
        assert len(spans) < most_sentinels(len(ids), share, span)


@given(st.integers(1, 80), st.integers(0, 40), st.floats(0, 1), st.floats(1, 8), st.integers(0, 1000))
@settings(max_examples=300)
def test_spans_are_as_many_as_is_said_and_none_is_beside_another(
    tokens: int, more: int, share: float, span: float, seed: int
) -> None:
    """No text takes more tokens for them than a longer one may."""
    hidden, spans = count_spans(tokens, share, span)
    drawn = draw_spans(tokens, share, span, np.random.default_rng(seed))
    starts = drawn & ~np.append(False, drawn[:-1])
    assert (int(drawn.sum()), int(starts.sum())) == (hidden, spans)
    assert spans + 2 <= most_sentinels(tokens + more, share, span)


def test_every_token_is_as_likely_to_be_hidden() -> None:
    """But for the first and the last, beside which there are fewer places; on average a span is as long as is asked."""
    generator = np.random.default_rng(0)
    drawn = np.stack([draw_spans(40, 0.15, 3.0, generator) for _ in range(4000)])
    assert drawn.mean() == pytest.approx(6 / 40)
    assert np.abs(drawn.mean(0)[4:-4] - 0.155).max() < 0.02
    assert count_spans(512, 0.15, 3.0) == (77, 26)


@pytest.mark.parametrize("config", [{}, {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}])
def test_the_loss_is_that_of_transformers_own_model(tmp_path: Path, config: dict[str, object]) -> None:
    """T5's model for the purpose gives each row the same mean loss: of T5 and of T5 1.1."""
    from transformers import T5ForConditionalGeneration

    folder = write_t5(tmp_path, **config)
    theirs = T5ForConditionalGeneration.from_pretrained(folder).eval()
    model = load_pretrained(folder, CONFIG, seed=3)
    attach_decoder(model, folder)
    model.eval()
    hide, ids = spans_of(folder, TEXTS, share=0.4)
    rows = [hide(index, row, row_generator((0, 0, 0), index)) for index, row in enumerate(ids)]
    padded, mask = SpanRows(TextEncoder(folder, 16), 20).pad(rows, 20)
    with torch.inference_mode():
        found = SpanModel(model).forward(padded, mask)
        for row, (loss, right) in zip(rows, found, strict=True):
            read, told = ([*filter(lambda token: token != IGNORED, column)] for column in row.T.tolist())
            out = theirs(input_ids=torch.tensor([read]), labels=torch.tensor([told]))
            torch.testing.assert_close(loss, out.loss)
            torch.testing.assert_close(right, (out.logits.argmax(-1) == torch.tensor([told])).float().mean())


def test_a_stage_learns_so_and_is_resumed_exactly(tmp_path: Path, t5: Path) -> None:
    """The decoder begins as pretrained and is gone with the stage; parameters are counted before they are there."""
    write_project(tmp_path, t5)
    whole, broken = (Workspace.open(Settings(home=tmp_path / name)) for name in ("whole", "broken"))
    run = resolve_run(tmp_path, whole, STAGES)
    adapt, top = run.plan.stages
    assert (adapt.span, top.span) == (3.0, 0.0)
    assert adapt.rates.keys() == {"embeddings", "block.0", "block.1", "block.2", "neck", "objective"}
    model = load_pretrained(t5, CONFIG, seed=0)
    attach_decoder(model, t5)
    assert adapt.own_parameters == sum(p.numel() for p in model.get_submodule("objective").parameters())
    bundle = train_until(run, whole)
    first, *_, last = bundle.stages[0].epochs
    assert last.validation_loss < 0.9 * first.validation_loss
    assert not [name for name in load_file(whole.store.root / adapt.key / WEIGHTS) if name.startswith("objective.")]
    again = resolve_run(tmp_path, broken, STAGES)
    assert facts(train_with_stops(again, broken, 7)) == facts(bundle)


def test_what_is_frozen_stays_and_texts_beside_are_read(tmp_path: Path, t5: Path) -> None:
    """The deepest block and what follows it learn alone of the encoder, from unlabelled texts, too."""
    write_project(tmp_path, t5)
    (tmp_path / "more.csv").write_text("text\n" + "".join(f"a {word} movie and {word}\n" for word in WORDS))
    workspace = Workspace.open(Settings(home=tmp_path / "home"))
    run = resolve_run(
        tmp_path,
        workspace,
        "auxiliary=[{name: more, sources: [{name: more, path: more.csv}]}]",
        f"stages=[{{{STAGE}, train: 'top:1', epochs: 1, learning_rate: 1e-3, auxiliary: more, span: 1.5}},"
        " {name: head, train: head, epochs: 1, learning_rate: 1e-3}]",
    )
    train_until(run, workspace)
    left = load_file(workspace.store.root / run.plan.stages[0].key / WEIGHTS)
    fresh = load_pretrained(t5, CONFIG, seed=run.plan.seed).state_dict()
    moved = {name for name in left if not torch.equal(left[name], fresh[name])}
    assert moved
    assert all(name.startswith(("body.block.2.", "body.final_layer_norm.")) for name in moved)


def test_what_can_t_be_told_is_refused(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    """By a family without a decoder, an encoder alone, or a tokenizer with too few tokens for spans."""
    workspace = Workspace.open(Settings(home=tmp_path / "home"))
    for place, (checkpoint, message) in enumerate(
        [
            (make_checkpoint("bert"), r"not made to tell hidden spans by a decoder.*is for t5"),
            (make_checkpoint("t5"), "an encoder alone"),
            (write_t5(tmp_path / "few", sentinels=2), "has 2 tokens that stand for spans .* may take 3"),
        ]
    ):
        folder = tmp_path / str(place)
        folder.mkdir()
        write_project(folder, checkpoint)
        with pytest.raises(RecipeError, match=message):
            resolve_run(folder, workspace, STAGES)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (f"{STAGE}, adversary: {{}}", "adversary moves what a body reads"),
        (f"{STAGE}, span: 0.5", "span"),
        ("name: adapt, objective: masked-language-modelling, span: 2.0", "span is for objective: span-corruption"),
    ],
)
def test_what_can_t_be_meant_is_refused(tmp_path: Path, t5: Path, said: str, message: str) -> None:
    """Before anything is spent."""
    write_project(tmp_path, t5)
    stage = f"stages.0={{{said}, train: all, epochs: 1, learning_rate: 1e-3}}"
    with pytest.raises(RecipeError, match=message):
        resolve_run(tmp_path, Workspace.open(Settings(home=tmp_path / "home")), stage)


def test_a_decoder_that_is_not_whole_is_refused(t5: Path) -> None:
    """Each tensor by its name."""
    tensors = load_file(t5 / WEIGHTS)
    del tensors["decoder.final_layer_norm.weight"]
    save_file(tensors, t5 / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"decoder\.final_layer_norm\.weight is missing"):
        attach_decoder(load_pretrained(t5, CONFIG, seed=0), t5)


def test_a_table_of_the_decoder_s_own_is_counted(tmp_path: Path) -> None:
    """As T5 1.1 has it; and without dropout nothing drops out of the decoder either."""
    folder = write_t5(tmp_path / "own", tie_word_embeddings=False)
    write_project(tmp_path, folder)
    run = resolve_run(tmp_path, Workspace.open(Settings(home=tmp_path / "home")), STAGES)
    model = load_pretrained(folder, CONFIG, seed=0)
    attach_decoder(model, folder)
    own = sum(p.numel() for p in model.get_submodule("objective").parameters())
    assert run.plan.stages[0].own_parameters == own
    assert OWN_TABLE in model.get_submodule("objective").state_dict()
    set_modes(model, has_body_dropout=False)
    assert not [name for name, module in model.named_modules() if module.training and "objective" in name]
