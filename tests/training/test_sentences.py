"""Next sentence prediction: what is a sentence, what pairs are made of texts, what is computed of them, and a stage."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretrained import write_sentences
from safetensors.torch import load_file, save_file
from tiny import WORDS, facts, resolve_run, train_until, train_with_stops, write_checkpoint, write_project

from graftwork.errors import RecipeError, TrainingError
from graftwork.models.masked import MaskedRows, token_table
from graftwork.models.sentences import FIRST, FOLLOWS, FOREIGN, NextSentenceModel, attach_pair_head, measure_pairs
from graftwork.models.serving.classifier import Classifier
from graftwork.models.serving.config import WEIGHTS, ServingConfig
from graftwork.models.serving.telling import IGNORED
from graftwork.models.serving.text import TextEncoder
from graftwork.models.text import blank_token, load_pretrained
from graftwork.settings import Settings
from graftwork.training.augmentation import HiddenWords, row_generator
from graftwork.training.sentences import SentencePairs, encode_sentences, make_pairs, split_sentences
from graftwork.workspace import Workspace

TEXTS = [
    "A good film. The plot was clever! Not bad?",
    "the acting was dull. the movie was very very long",
    "a warm film",
    "It was boring. It was false. It was weak. It was cold.",
    "",
]
CONFIG = ServingConfig(("no", "yes"), ("text",), "mean", 16)
STAGE = "name: adapt, objective: next-sentence-prediction"
STAGES = (
    f"stages=[{{{STAGE}, train: all, epochs: 4, learning_rate: 3e-3}},"
    " {name: top, train: [head, 'top:1'], epochs: 1, learning_rate: 1e-3}]"
)


def pairs_of(folder: Path, texts: list, max_tokens: int = 16, share: float = 0.15) -> tuple[SentencePairs, list]:
    """What makes pairs of these texts, and their sentences."""
    encoder = TextEncoder(folder, max_tokens)
    rows = encode_sentences(encoder, texts)
    return make_pairs(encoder, texts, rows, HiddenWords(share, [], blank_token(encoder), 30)), rows


def own_ids(row: torch.Tensor) -> torch.Tensor:
    """What a row was before words of it were hidden."""
    return torch.where(row[:, 1] != IGNORED, row[:, 1], row[:, 0])


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four… five", ["One.", "Two!", "Three?", "Four…", "five"]),
        ('He said "no." (Really.) 3.14 is pi', ['He said "no."', "(Really.)", "3.14 is pi"]),
        ("a good film . the plot !", ["a good film .", "the plot !"]),
        ("一つ。二つ！「三つ。」四つ", ["一つ。", "二つ！", "「三つ。」", "四つ"]),
        ("पहला। दूसरा।", ["पहला।", "दूसरा।"]),
        ("a title\n\nand a line", ["a title", "and a line"]),
        ("wait... what?! no", ["wait...", "what?!", "no"]),
        (("one. two", "three."), ["one. two", "three."]),
        ("", []),
    ],
)
def test_sentences_end_where_their_script_ends_them(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@given(st.text('ab .!?。\n"」'))
def test_no_character_but_white_space_is_lost(text: str) -> None:
    """Between sentences, too."""
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())


def test_a_pair_is_what_the_tokenizer_makes_of_it(make_checkpoint: Callable[..., Path]) -> None:
    """The same ids as of the two parts, where nothing is cut."""
    folder = make_checkpoint("bert")
    pairs, rows = pairs_of(folder, TEXTS, max_tokens=40)
    encoder = TextEncoder(folder, 40)
    for index in (0, 3):
        found = pairs(index, rows[index], row_generator((0, 0, 1), index))
        own = own_ids(found).tolist()
        sentences = split_sentences(TEXTS[index])
        cuts = [(" ".join(sentences[:cut]), " ".join(sentences[cut:])) for cut in range(1, len(sentences))]
        follows = [row for row in encoder.encode(cuts) if row == own]
        assert bool(follows) == (found[:, 2].max() == FOLLOWS)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 6), max_size=6), min_size=1, max_size=6), st.integers(5, 20), st.integers(0, 99)
)
def test_parts_are_consecutive_or_of_another_text_and_never_too_long(
    tiny_checkpoint: Path, sizes: list[list[int]], max_tokens: int, seed: int
) -> None:
    """Each token is one of its own text or, where the row says so, the second part's of one other text."""
    hiding = HiddenWords(0.15, [], 4, 50)
    counter = iter(range(100, 10_000))
    rows = [[np.array([[next(counter) for _ in range(n)], range(n)]) for n in text] for text in sizes]
    paired = [row for row in rows if len(row) > 1]
    places = [next((place for place, each in enumerate(paired) if each is row), None) for row in rows]
    pairs = SentencePairs(paired, places, max_tokens, 2, 3, hiding)
    flat = [[token for sentence in row for token in sentence[0].tolist()] for row in rows]
    for index, row in enumerate(rows):
        found = pairs(index, row, np.random.default_rng([seed, index])).numpy()
        assert len(found) <= pairs.length(row) <= max_tokens
        ids, hidden, parts = found.T
        own = np.where(hidden != IGNORED, hidden, ids)
        assert own[0] == 2
        assert own[-1] == 3
        first = own[1 : np.flatnonzero(own == 3)[0]].tolist()
        second = own[2 + len(first) : -1].tolist()
        assert (parts[: 2 + len(first)] == FIRST).all()
        words = len(first) + len(second)
        assert (hidden != IGNORED).sum() == min(words, max(1, round(0.15 * words)))
        if len(row) < 2:
            assert parts.max() == FIRST
            assert first == flat[index][: max_tokens - 2]
            continue
        assert first
        assert second
        assert len(set(parts[2 + len(first) :].tolist())) == 1
        others = [flat[index]] if parts[-1] == FOLLOWS else [f for place, f in enumerate(flat) if place != index]
        joined = [" ".join(map(str, text)) + " " for text in others]
        assert any(" ".join(map(str, second)) + " " in text for text in joined)
        if parts[-1] == FOLLOWS:
            assert " ".join(map(str, first + second)) + " " in joined[0]


def test_of_a_long_text_the_sentences_nearest_to_the_cut_stay() -> None:
    """Half of the room for each part, more where the other needs less; whole sentences, where one fits."""
    starts = range(100, 160, 10)
    row = [np.array([range(start, start + 5), range(5)]) for start in starts]
    pairs = SentencePairs([row], [0], 3 + 20, 2, 3, HiddenWords(0.15, [], 4, 50))
    sizes = set()
    for seed in range(40):
        found = pairs(0, row, np.random.default_rng(seed))
        inside = own_ids(found)[own_ids(found) >= 100]
        assert inside.tolist() == [token for start in starts for token in range(start, start + 5) if token in inside]
        sizes.add((int((own_ids(found)[found[:, 2] == FIRST] >= 100).sum()), len(inside)))
    assert sizes == {(5, 20), (10, 20), (15, 20)}


def test_half_of_the_second_parts_are_foreign(tiny_checkpoint: Path) -> None:
    """And none is the row's own, though the row is there more than once."""
    texts = [TEXTS[0], TEXTS[3], TEXTS[0], TEXTS[1], TEXTS[0]]
    pairs, rows = pairs_of(tiny_checkpoint, texts, max_tokens=40)
    assert pairs.places == [0, 1, 0, 2, 0]
    drawn = [pairs(0, rows[0], row_generator((0, 0, epoch), 0)) for epoch in range(400)]
    kinds = [int(row[:, 2].max()) for row in drawn]
    assert {*kinds} == {FOLLOWS, FOREIGN}
    assert np.mean(np.array(kinds) == FOREIGN) == pytest.approx(0.5, abs=0.07)
    foreign = [row for row in drawn if row[:, 2].max() == FOREIGN]
    own = {tuple(own_ids(row)[row[:, 2] == FOREIGN].tolist()) for row in foreign}
    endings = {(*np.concatenate([each[0] for each in rows[0][cut:]]).tolist(), 3) for cut in (1, 2)}
    assert not own & endings


@pytest.mark.parametrize("architecture", ["bert", "ernie"])
def test_the_losses_are_those_of_transformers_own_model(
    tmp_path: Path, architecture: str, make_checkpoint: Callable[..., Path]
) -> None:
    """The family's model for the purpose, with the checkpoint's own head for pairs, row by row."""
    from transformers import AutoConfig, AutoModelForPreTraining

    folder = make_checkpoint(architecture)
    config = AutoConfig.from_pretrained(folder, layer_norm_eps=1e-5)
    theirs = AutoModelForPreTraining.from_config(config).eval()
    theirs.save_pretrained(folder)
    model = load_pretrained(folder, CONFIG, seed=3).eval()
    attach_pair_head(model, 5, folder)
    head = model.get_submodule("objective")
    prediction = theirs.cls.predictions
    prediction.transform.dense.load_state_dict(head.words.dense.state_dict())
    prediction.transform.LayerNorm.load_state_dict(head.words.norm.state_dict())
    with torch.no_grad():
        prediction.bias.copy_(head.words.bias.normal_())
        prediction.decoder.bias = prediction.bias
        prediction.decoder.weight = token_table(theirs.base_model)
    pairs, rows = pairs_of(folder, TEXTS, share=0.5)
    drawn = [pairs(index, row, row_generator((1, 0, 0), index)) for index, row in enumerate(rows)]
    padded, mask = MaskedRows(TextEncoder(folder, 16), FIRST).pad(drawn, 16)
    with torch.inference_mode():
        found = NextSentenceModel(model).forward(padded, mask)
        for row, (loss, right, is_pair) in zip(drawn, found, strict=True):
            ids, told, parts = row.T[:, None]
            answer = (parts.amax(1) == FOREIGN).long()
            given = {"labels": told, "next_sentence_label": answer} if is_pair else {}
            out = theirs(input_ids=ids, token_type_ids=parts.clamp(max=1), **given)
            if is_pair:
                torch.testing.assert_close(loss, out.loss)
                assert right == (out.seq_relationship_logits.argmax(1) == answer).float()
            elif (told != IGNORED).any():
                torch.testing.assert_close(
                    loss, torch.nn.functional.cross_entropy(out.prediction_logits[0], told[0], ignore_index=IGNORED)
                )
    assert found[:, 2].tolist() == [1, 1, 0, 1, 0]
    assert found[4].tolist() == [0, 0, 0]
    assert measure_pairs(found, found)[1] == pytest.approx(float(found[:, 1].sum() / 3))


def test_a_stage_learns_so_and_is_resumed_exactly(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """Parameters are counted before they are there, and are gone with the stage; rows of one sentence are told."""
    write_sentences(tmp_path, tiny_checkpoint)
    whole, broken = (Workspace.open(Settings(home=tmp_path / name)) for name in ("whole", "broken"))
    run = resolve_run(tmp_path, whole, STAGES)
    adapt, top = run.plan.stages
    assert (adapt.sentences, top.sentences) == ("pooler", "")
    model = load_pretrained(whole.store.root / run.lock.key, CONFIG, seed=0)
    attach_pair_head(model, 0, whole.store.root / run.lock.key)
    assert adapt.own_parameters == sum(p.numel() for p in model.get_submodule("objective").parameters())
    bundle = train_until(run, whole)
    first, *_, last = bundle.stages[0].epochs
    assert last.train_loss < first.train_loss
    assert not [name for name in load_file(whole.store.root / adapt.key / WEIGHTS) if name.startswith("objective.")]
    again = resolve_run(tmp_path, broken, STAGES)
    assert facts(train_with_stops(again, broken, 7)) == facts(bundle)


def test_what_is_frozen_stays_and_texts_beside_are_read(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """The deepest block alone learns, from unlabelled texts too, whose sentences are others' second parts as well."""
    write_sentences(tmp_path, tiny_checkpoint)
    (tmp_path / "more.csv").write_text("text\n" + "".join(f"a {word} movie. the plot was {word}\n" for word in WORDS))
    workspace = Workspace.open(Settings(home=tmp_path / "home"))
    run = resolve_run(
        tmp_path,
        workspace,
        "auxiliary=[{name: more, sources: [{name: more, path: more.csv}]}]",
        f"stages=[{{{STAGE}, train: 'top:1', epochs: 1, learning_rate: 1e-3, auxiliary: more, adversary: {{}}}},"
        " {name: head, train: head, epochs: 1, learning_rate: 1e-3}]",
    )
    train_until(run, workspace)
    left = load_file(workspace.store.root / run.plan.stages[0].key / WEIGHTS)
    fresh = load_pretrained(workspace.store.root / run.lock.key, CONFIG, seed=run.plan.seed).state_dict()
    moved = {name for name in left if not torch.equal(left[name], fresh[name])}
    assert moved
    assert all(name.startswith("body.encoder.layer.2.") for name in moved)


def test_the_plan_knows_a_head_that_the_checkpoint_has(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """What lies beside the body under the names that pretraining gave it is gone on with."""
    folder = tmp_path / "checkpoint"
    (tmp_path / "other").mkdir()
    write_checkpoint(folder)
    tensors = load_file(folder / WEIGHTS) | {
        "cls.seq_relationship.weight": torch.ones(2, 32),
        "cls.seq_relationship.bias": torch.ones(2),
    }
    save_file(tensors, folder / WEIGHTS)
    write_sentences(tmp_path, folder)
    run = resolve_run(tmp_path, Workspace.open(Settings(home=tmp_path / "home")), STAGES)
    assert run.plan.stages[0].sentences == "checkpoint"
    model: Classifier = load_pretrained(folder, CONFIG, seed=0)
    attach_pair_head(model, 0, folder)
    head = model.get_submodule("objective")
    assert torch.equal(head.answer.weight, torch.ones(2, 32))
    assert torch.equal(head.pooler.weight, tensors["pooler.dense.weight"])
    save_file({name: tensor for name, tensor in tensors.items() if "pooler" not in name}, folder / WEIGHTS)
    write_sentences(tmp_path / "other", folder)
    run = resolve_run(tmp_path / "other", Workspace.open(Settings(home=tmp_path / "other")), STAGES)
    assert run.plan.stages[0].sentences == "new"
    attach_pair_head(model, 0, folder)
    assert not torch.equal(model.get_submodule("objective").answer.weight, torch.ones(2, 32))


def test_a_head_that_tells_something_else_is_not_gone_on_with(tmp_path: Path) -> None:
    """Of three answers, such as StructBERT gives: its pooler is, and the plan says so."""
    folder = tmp_path / "checkpoint"
    write_checkpoint(folder)
    three = {"cls.seq_relationship.weight": torch.ones(3, 32), "cls.seq_relationship.bias": torch.ones(3)}
    tensors = load_file(folder / WEIGHTS) | three
    save_file(tensors, folder / WEIGHTS)
    write_sentences(tmp_path, folder)
    run = resolve_run(tmp_path, Workspace.open(Settings(home=tmp_path / "home")), STAGES)
    assert run.plan.stages[0].sentences == "pooler"
    model: Classifier = load_pretrained(folder, CONFIG, seed=0)
    attach_pair_head(model, 0, folder)
    head = model.get_submodule("objective")
    assert torch.equal(head.pooler.weight, tensors["pooler.dense.weight"])
    assert head.answer.weight.shape == (2, 32)


def test_texts_without_a_second_sentence_are_refused(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """Nothing could be told of them."""
    write_project(tmp_path, tiny_checkpoint)
    workspace = Workspace.open(Settings(home=tmp_path / "home"))
    with pytest.raises(TrainingError, match=r"stage 'adapt': 0 of .* texts have two sentences"):
        train_until(resolve_run(tmp_path, workspace, STAGES), workspace)


def test_what_was_made_otherwise_is_refused(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    """With those that were made so."""
    write_project(tmp_path, make_checkpoint("roberta"))
    with pytest.raises(RecipeError, match=r"not made to tell whether one text follows another.*is for bert, ernie"):
        resolve_run(tmp_path, Workspace.open(Settings(home=tmp_path / "home")), STAGES)


def test_a_checkpoint_without_parts_is_refused(tmp_path: Path) -> None:
    """It could not be told where the second begins."""
    folder = tmp_path / "checkpoint"
    write_checkpoint(folder)
    config = json.loads((folder / "config.json").read_text()) | {"type_vocab_size": 1}
    (folder / "config.json").write_text(json.dumps(config))
    tensors, name = load_file(folder / WEIGHTS), "embeddings.token_type_embeddings.weight"
    save_file(tensors | {name: tensors[name][:1].clone()}, folder / WEIGHTS)
    write_project(tmp_path, folder)
    with pytest.raises(RecipeError, match="does not tell the parts of a text apart"):
        resolve_run(tmp_path, Workspace.open(Settings(home=tmp_path / "home")), STAGES)
