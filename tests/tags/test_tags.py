"""Tags of words piece by piece: read from cells, placed at tokens, learnt, measured, told, and refused."""

import csv
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pytest
import sklearn.metrics as oracle
import torch
from data_projects import Project, make_sentence
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from tiny import TAGS, resolve_run, train_until, write_checkpoint, write_tags_project, write_tokenizer

from graftwork.data.survey import count_tags
from graftwork.errors import DataError, RecipeError
from graftwork.evaluation.comparison import compare
from graftwork.evaluation.metrics import describe_classes, estimate
from graftwork.evaluation.predictions import frame_predictions
from graftwork.evaluation.words import judged_words
from graftwork.models.serving.config import UNPOOLED, ServingConfig
from graftwork.models.serving.text import TextEncoder
from graftwork.models.serving.words import UNREAD, find_entities, find_words, first_pieces, parts_of
from graftwork.models.text import load_pretrained
from graftwork.policy import load_policy
from graftwork.recipe import load_recipe
from graftwork.registry.adoption import adopt
from graftwork.settings import Settings
from graftwork.starter import write_recipe
from graftwork.targets.catalog import TOKENS
from graftwork.targets.target import LabelRule, Unread
from graftwork.targets.token_classification import (
    IGNORED,
    ROLES,
    find_spans,
    mean_loss,
    measure_words,
    tag_codes,
    word_labels,
)
from graftwork.training.tagging import place_tags
from graftwork.workspace import Workspace

ALL_TAGS = ("O", "B-A", "I-A", "E-A", "S-A", "B-B", "I-B", "E-B", "S-B")
Span = tuple[str, int, int]
Texts = list[list[str]]  # the tags of each text's words


def spans_of(tags: Sequence[str]) -> set[Span]:
    """Type, first word and last of each entity: conlleval's two rules, word by word, as seqeval has them."""
    found, start = set(), 0
    before, kind_before = "O", ""
    for place, tag in enumerate([*tags, "O"]):
        role, _, kind = tag.partition("-")
        is_end = before in ("E", "S") or (before in ("B", "I") and role in ("B", "S", "O"))
        is_end |= before != "O" and kind_before != kind
        is_start = role in ("B", "S") or (before in ("E", "S", "O") and role in ("E", "I"))
        is_start |= role != "O" and kind_before != kind
        if is_end:
            found.add((kind_before, start, place - 1))
        start = place if is_start else start
        before, kind_before = role, kind
    return found


def word_frame(true: Texts, tags: Sequence[str] = ALL_TAGS) -> pd.DataFrame:
    """A line for each word of texts with these tags."""
    labels = [" ".join(str(tags.index(tag)) for tag in text) for text in true]
    names = [f"s/{number:04}" for number in range(len(true))]
    return judged_words(pd.DataFrame({"row_id": names, "label": labels, "group": None, "source": "s"}), tags)


def told(texts: Texts, seed: int = 0) -> np.ndarray:
    """(words, tags) probabilities of which each word's tag has the largest."""
    chosen = [ALL_TAGS.index(tag) for text in texts for tag in text]
    values = np.random.default_rng(seed).random((len(chosen), len(ALL_TAGS))) + 3 * np.eye(len(ALL_TAGS))[chosen]
    return values / values.sum(axis=1, keepdims=True)


@st.composite
def both(draw: st.DrawFn) -> tuple[Texts, Texts]:
    """True tags and told ones of a few texts, which are often the same."""
    true = draw(st.lists(st.lists(st.sampled_from(ALL_TAGS), min_size=1, max_size=8), min_size=1, max_size=6))
    keep = st.one_of(st.none(), st.sampled_from(ALL_TAGS))
    return true, [[draw(keep) or tag for tag in text] for text in true]


@given(both())
@settings(max_examples=300, deadline=None)
def test_entities_are_those_of_conlleval(case: tuple[Texts, Texts]) -> None:
    """F1 over exact spans with their types, in each text by itself; what a bundle tells are the same spans."""
    true, found = case
    for text in (*true, *found):
        parts = [parts_of(ALL_TAGS)[ALL_TAGS.index(tag)] for tag in text]
        assert {(kind, first, last - 1) for kind, first, last in find_entities(parts)} == spans_of(text)
    right = sum(len(spans_of(a) & spans_of(b)) for a, b in zip(true, found, strict=True))
    count = sum(len(spans_of(text)) for text in (*true, *found))
    labels = TOKENS.learning.as_array(word_frame(true)["label"])
    metric = TOKENS.learning.metrics["entity_f1"]
    value = float(metric.value(metric.columns(labels, told(found)).sum(axis=0)))
    assert value == pytest.approx(2 * right / count if count else 0.0)


def test_tags_without_prefixes_are_entities_of_a_word() -> None:
    """All but O; a dash in a name is part of it, and so is what looks like a prefix where none begins an entity."""
    codes = np.array(tag_codes(["O", "CAP", "S-bahn"]))
    words = codes[[0, 1, 1, 2, 0]]
    starts, _ = find_spans(words, np.array([True, False, False, False, False]))
    assert starts.tolist() == [False, True, True, True, False]
    assert len({code // ROLES for code in codes[1:]}) == 2
    assert parts_of(["O", "CAP", "S-bahn"]) == [None, ("S", "CAP"), ("S", "S-bahn")]


def test_metrics_of_words_are_scikit_learns() -> None:
    """Accuracy, macro F1 over tags, and log-loss; a table for each tag, and a matrix of words."""
    rng = np.random.default_rng(1)
    true, found = ([[str(tag) for tag in rng.choice(ALL_TAGS, 6)] for _ in range(60)] for _ in range(2))
    found = [a if n % 2 else b for n, (a, b) in enumerate(zip(true, found, strict=True))]
    frame, values = word_frame(true), told(found)
    labels, groups = TOKENS.learning.as_array(frame["label"]), np.arange(len(frame)) // 6
    expected = {
        "word_accuracy": oracle.accuracy_score(labels[:, 0], values.argmax(1)),
        "macro_f1": oracle.f1_score(labels[:, 0], values.argmax(1), average="macro"),
        "log_loss": oracle.log_loss(labels[:, 0], values, labels=range(len(ALL_TAGS))),
    }
    for name, value in expected.items():
        found_value = estimate(name, labels, values, groups, 50, 0, TOKENS)
        assert found_value.value == pytest.approx(value, rel=1e-6)
        assert found_value.low < found_value.value < found_value.high
    classes, matrix = describe_classes(labels, values, ALL_TAGS, TOKENS)
    assert [each.support for each in classes] == np.bincount(labels[:, 0]).tolist()
    assert np.array_equal(matrix, oracle.confusion_matrix(labels[:, 0], values.argmax(1)))


def test_a_word_without_values_is_wrong_and_known_to_nobody() -> None:
    """Even where its tag is O; its loss is that of all tags being as likely."""
    labels = TOKENS.learning.as_array(word_frame([["O", "S-A"]])["label"])
    nothing = np.zeros((2, len(ALL_TAGS)))
    of = {name: metric.columns(labels, nothing).sum(axis=0) for name, metric in TOKENS.learning.metrics.items()}
    value = {name: float(metric.value(of[name])) for name, metric in TOKENS.learning.metrics.items()}
    assert value["word_accuracy"] == value["entity_f1"] == value["macro_f1"] == 0
    assert value["log_loss"] == pytest.approx(np.log(len(ALL_TAGS)))


def test_the_score_on_validation_is_that_of_the_words() -> None:
    """Of logits of tokens, of which some begin no word, and of the same words one after the other."""
    draw = torch.Generator().manual_seed(3)
    tags = ("O", "B-X", "I-X", "B-Y")
    labels = torch.randint(-1, len(tags), (20, 9), generator=draw)
    labels[labels < 0] = IGNORED
    logits = torch.randn(20, 11, len(tags), generator=draw)  # two of padding
    loss, score = measure_words(logits, labels, tag_codes(tags))
    rows = [row[row != IGNORED].tolist() for row in labels]
    truth = [word for row in rows for word in word_labels(" ".join(map(str, row)), tag_codes(tags))]
    values = logits[:, :9][labels != IGNORED].softmax(1).double().numpy()
    learning = TOKENS.learning
    for name, found in (("entity_f1", score), ("log_loss", loss)):
        metric = learning.metrics[name]
        wanted = metric.value(metric.columns(learning.as_array(truth), values).sum(axis=0))
        assert found == pytest.approx(float(wanted), rel=1e-5)


def test_a_part_of_the_words_may_have_one_tag() -> None:
    """Where a rare tag is in none of the rows that a baseline learns from, it tells the other one."""
    labels = TOKENS.learning.as_array(word_labels("0 0 0", tag_codes(("O", "A"))))
    told = TOKENS.learning.regress(np.eye(3), labels, 1.0, 2)(np.ones((2, 3)))
    assert told.tolist() == [[1.0, 0.0]] * 2


def test_two_models_are_compared_by_rows() -> None:
    """Words of a row are drawn together, and rows are what is counted; McNemar's test is not asked."""
    true = [["B-A", "I-A", "O"]] * 30
    wrong = [["O", "O", "O"] if n % 3 == 0 else text for n, text in enumerate(true)]
    frame = word_frame(true)
    ours, theirs = (frame_predictions(frame, told(texts)).sample(frac=1, random_state=1) for texts in (true, wrong))
    found = compare(theirs, ours, name="x", metric="entity_f1", threshold=0.0, level=0.95, samples=200, target=TOKENS)
    assert (found.rows, found.groups, found.mid_p) == (30, 30, None)
    assert (found.candidate_value, found.reference_value) == (1.0, pytest.approx(2 * 20 / 50))


def test_a_tag_is_read_for_each_word() -> None:
    """Whatever white space stands between; too few, too many and unknown ones are told."""
    read = TOKENS.reader(LabelRule(("O", "A"), mapping={"0": "O", "a": "A"}))
    assert read(["0 a\t0", " one\u00a0two \n three "]) == "0 1 0"
    assert read(["0 a", "one two three"]) == Unread("2 tags for 3 words")
    assert read(["0 b", "one two"]) == Unread("label outside the set")
    assert TOKENS.members("0 1 0") == [0, 1]
    assert TOKENS.tell("0 1 0", ("O", "A")) == "O A O"


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_words_and_tags_come_from_every_format(suffix: str, tmp_path: Path) -> None:
    """As texts, or as lists in JSON lines and Parquet; a row whose tags are no fit is set aside with the counts."""
    project = Project(tmp_path)
    rows: list[tuple[Any, Any]] = [
        (make_sentence(n), " ".join(["O", "A"][n % 2] for _ in range(12))) for n in range(200)
    ]
    rows.append(("one two", "O"))
    if suffix == "csv":
        text = "text,label\n" + "".join(f"{text},{tags}\n" for text, tags in rows)
        project.write("reviews.csv", text)
    lists = [(text.split(), tags.split()) for text, tags in rows] + [(["a b"], ["O"])]
    if suffix == "jsonl":
        lines = [json.dumps({"text": words, "label": tags}) for words, tags in lists]
        project.write("reviews.jsonl", "\n".join(lines) + "\n")
    if suffix == "parquet":
        table = pyarrow.table({"text": [words for words, _ in lists], "label": [tags for _, tags in lists]})
        parquet.write_table(table, tmp_path / "reviews.parquet")
    project.data["sources"] = [{"name": "reviews", "path": f"reviews.{suffix}"}]
    project.data["label"] = {"from": "label", "classes": ["O", "A"]}
    manifest = project.validate_as("text-token-classification")
    kept = project.rows(manifest)
    assert {(row["text"], row["label"]) for row in kept.values()} == {
        (text, tags.replace("O", "0").replace("A", "1")) for text, tags in rows[:-1]
    }
    assert manifest.counts.quarantined == (1 if suffix == "csv" else 2)
    assert "1 tags for 2 words" in project.report(manifest)
    assert sum(manifest.side_rows.values()) == 200


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_numbers_of_tags_are_mapped_to_their_names(suffix: str, tmp_path: Path) -> None:
    """As data sets with lists often hold them; in both formats that have lists."""
    project = Project(tmp_path)
    lists = [(make_sentence(n).split(), [n % 2] * 12) for n in range(200)]
    lines = [json.dumps({"text": words, "label": tags}) for words, tags in lists]
    project.write("reviews.jsonl", "\n".join(lines) + "\n")
    table = pyarrow.table({"text": [words for words, _ in lists], "label": [tags for _, tags in lists]})
    parquet.write_table(table, tmp_path / "reviews.parquet")
    project.data["sources"] = [{"name": "reviews", "path": f"reviews.{suffix}"}]
    project.data["label"] = {"from": "label", "classes": ["O", "A"], "map": {"0": "O", "1": "A"}}
    manifest = project.validate_as("text-token-classification")
    assert manifest.counts.kept == 200
    assert {row["label"] for row in project.rows(manifest).values()} == {" ".join("0" * 12), " ".join("1" * 12)}


def test_text_that_is_not_utf_8_refuses_its_parquet_file(tmp_path: Path) -> None:
    """Among words of a list, too: pyarrow looks at them no sooner than when they are asked for."""
    project = Project(tmp_path)
    words = pyarrow.array([b"good", b"f\xfflm"], pyarrow.binary()).cast(pyarrow.string(), safe=False)
    texts = pyarrow.ListArray.from_arrays(pyarrow.array([0, 2]), words)
    parquet.write_table(pyarrow.table({"text": texts, "label": [["O", "O"]]}), tmp_path / "reviews.parquet")
    project.data["sources"] = [{"name": "reviews", "path": "reviews.parquet"}]
    project.data["label"] = {"from": "label", "classes": ["O", "A"]}
    with pytest.raises(DataError, match="not UTF-8"):
        project.validate_as("text-token-classification")


def test_lists_stay_refused_where_a_row_has_one_class(tmp_path: Path) -> None:
    """Nobody says there what a list would be."""
    project = Project(tmp_path)
    lines = [json.dumps({"text": make_sentence(n).split(), "label": "good"}) for n in range(20)]
    project.write("reviews.jsonl", "\n".join(lines) + "\n")
    project.data["sources"] = [{"name": "reviews", "path": "reviews.jsonl"}]
    with pytest.raises(DataError, match="20 of 20 rows are set aside"):
        project.validate()


def test_equal_texts_with_different_tags_contradict_each_other(tmp_path: Path) -> None:
    """Both are set aside, with the tags that they had."""
    project = Project(tmp_path)
    rows = [f"{make_sentence(n)},{'O ' * 11}A\n" for n in range(200)]
    rows += [f"{make_sentence(300)},{'O ' * 11}A\n", f"{make_sentence(300)},{'A ' * 12}\n"]
    project.write("reviews.csv", "text,label\n" + "".join(rows))
    project.data["label"] = {"from": "label", "classes": ["O", "A"]}
    manifest = project.validate_as("text-token-classification")
    assert "equal texts with different labels" in project.report(manifest)


@cache
def byte_level(folder: Path, trims: bool) -> Path:
    """A tokenizer of bytes, as GPT-2's and RoBERTa's are, with few merges: a word is many tokens, an emoji several."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trims)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["the film was good and the plot was not"] * 20, trainer)
    return save(tokenizer, folder / f"bytes-{trims}")


@cache
def pieces(folder: Path) -> Path:
    """A tokenizer of pieces, as those of T5 and DeBERTa are, whose words begin with a mark of their own."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    letters = [(letter, -5.0) for letter in "abcdefghijklmnopqrstuvwxyz'.,"]
    table = [("<unk>", 0.0), ("▁", -2.0), ("▁the", -1.0), ("▁film", -1.0), ("don", -3.0), ("▁don't", -1.0), *letters]
    tokenizer = Tokenizer(models.Unigram(table, unk_id=0))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return save(tokenizer, folder / "pieces")


@cache
def words(folder: Path) -> Path:
    """A tokenizer of words that splits at punctuation and drops control characters, as BERT's does."""
    (folder / "words").mkdir()
    write_tokenizer(folder / "words")
    return folder / "words"


def save(tokenizer: Any, folder: Path) -> Path:
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return folder


KINDS: dict[str, Callable[[Path], Path]] = {
    "bytes": lambda folder: byte_level(folder, False),
    "trimmed bytes": lambda folder: byte_level(folder, True),
    "pieces": pieces,
    "words": words,
}
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            ["don't", "the", "film,", "🎉", "👩‍👩‍👧", "ﬁne", "你好", "e\u0301", "...", "\u200b", "<unk>", "ß"]
        ),
        st.text(min_size=1, max_size=5),
        st.sampled_from([" ", "  ", "\t", "\u00a0", "\u2003", "\n", "\x1c"]),
    ),
    min_size=1,
    max_size=12,
).map(" ".join)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS, longest=st.integers(3, 40))
@settings(max_examples=150, deadline=None)
def test_each_word_has_one_first_token_or_is_not_read(kind: str, tokenizers: Path, text: str, longest: int) -> None:
    """Words are white space's: a token of another word is never a word's, and the first of its own always."""
    encoder = TextEncoder(KINDS[kind](tokenizers), longest)
    spans, (places,) = find_words(text), first_pieces(encoder, [text])
    (row,), offsets = encoder.encode([text]), encoder.tokenize([text]).encodings[0].offsets
    assert [text[start:end] for start, end in spans] == text.split()
    assert len(places) == len(spans)
    read = places[places != UNREAD]
    assert (np.diff(read) > 0).all()
    assert read.max(initial=-1) < len(row) <= longest
    for (start, end), place in zip(spans, places, strict=True):
        own = [
            token for token, (a, b) in enumerate(offsets) if start <= a + _blank(text[a:b]) < end and text[a:b].strip()
        ]
        assert place == (own[0] if own else UNREAD)
    if kind.endswith("bytes") and longest >= 4 * len(text):
        assert (places != UNREAD).all()


def _blank(text: str) -> int:
    return len(text) - len(text.lstrip())


def test_tags_stand_at_first_tokens(tmp_path: Path) -> None:
    """Of the words that are read; all else is ignored."""
    write_tokenizer(tmp_path)
    encoder = TextEncoder(tmp_path, 7)
    found = place_tags(encoder, ["don't film, plot good", "bad"], ["1 2 3 4", "5"], longest=7)
    assert found.tolist() == [[-100, 1, -100, -100, 2, -100, -100], [-100, 5, -100, -100, -100, -100, -100]]


def test_the_loss_is_that_of_transformers(tmp_path: Path) -> None:
    """Of a batch, with its gradients, as BertForTokenClassification has it from the same weights and tokens."""
    from transformers import BertForTokenClassification

    write_checkpoint(tmp_path)
    config = ServingConfig(TAGS, ("text",), UNPOOLED, 16, target=TOKENS.name)
    ours = load_pretrained(tmp_path, config, seed=3).eval()
    theirs = BertForTokenClassification.from_pretrained(tmp_path, num_labels=len(TAGS)).eval()
    theirs.classifier.load_state_dict(ours.head[-1].state_dict())
    encoder = TextEncoder(tmp_path, 16)
    texts, tags = ["the long film, was good", "a bad plot"], ["0 1 2 0 3", "0 3 1"]
    rows = encoder.encode(texts)
    ids, mask = encoder.pad(rows, max(map(len, rows)))
    labels = torch.from_numpy(place_tags(encoder, texts, tags, ids.shape[1]))
    loss = mean_loss(ours(ids, mask), labels)
    expected = theirs(input_ids=ids, attention_mask=mask, labels=labels.long()).loss
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.head[-1].weight.grad, theirs.classifier.weight.grad)
    whole = theirs.bert.embeddings.word_embeddings.weight.grad
    torch.testing.assert_close(ours.body.get_parameter("embeddings.word_embeddings.weight").grad, whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("input.text=[text, more]", "is of one text, not of a pair"),
        ("input.pooling=mean", "each word is told by a state of its own"),
        ("evaluation.baselines=[tfidf]", "tfidf is of whole texts"),
        ("data.label.separator='|'", "separator is not for token classification"),
        ("stages.0={name: head, train: head, solver: lbfgs}", "solver of head is not for token classification"),
        ("stages.1.class_weights=balanced", "class_weights of top is not for token classification"),
        ("stages.1.augment={word_deletion: 0.1}", "word_deletion of top is not for"),
        ("stages.1.augment={word_swap: 0.1}", "word_swap of top is not for"),
        ("stages.1.keep_epoch=accuracy", "keep_epoch: accuracy of top is not for"),
        ("stages.1.distil={from: champion}", "distil of top is not for"),
        (
            "stages.0={name: near, objective: contrastive, train: all, epochs: 1, learning_rate: 1e-3}",
            "contrastive of near is not for",
        ),
        (
            "auxiliary=[{name: more, sources: [{name: m, path: made.csv}], label: {from: tags, classes: [a, b]}}]",
            "no label is learnt beside token classification",
        ),
    ],
)
def test_what_means_nothing_is_refused_by_name(change: str, message: str, tmp_path: Path) -> None:
    """Before anything is spent."""
    write_tags_project(tmp_path, tmp_path / "checkpoint")
    with pytest.raises(RecipeError, match=message):
        resolve_run(tmp_path, Workspace.open(Settings(home=tmp_path / "home")), change)


@pytest.mark.parametrize("tower", ["clip_text_model", "siglip_text_model"])
def test_a_tower_of_texts_tags_no_words(tower: str, tmp_path: Path) -> None:
    """What it ends in is made of one state, of which a head of words would have another width, or another meaning."""
    write_checkpoint(tmp_path / "checkpoint", tower)
    write_tags_project(tmp_path, tmp_path / "checkpoint")
    with pytest.raises(RecipeError, match="one state of a text"):
        resolve_run(tmp_path, Workspace.open(Settings(home=tmp_path / "home")))


def test_other_stages_go_before_and_a_champion_is_gone_on_from(tmp_path: Path) -> None:
    """Hidden words first, then tags under blanks, moved embeddings and smoothed labels; then on from there."""
    write_checkpoint(tmp_path / "checkpoint")
    write_tags_project(tmp_path, tmp_path / "checkpoint")
    workspace = Workspace.open(Settings(home=tmp_path / "home"))
    adapt = "{name: adapt, objective: masked-language-modelling, train: all, epochs: 1, learning_rate: 1e-3}"
    rough = "label_smoothing: 0.1, adversary: {epsilon: 0.1}, augment: {word_dropout: 0.1}"
    tags = f"{{name: tags, train: all, epochs: 3, learning_rate: 2e-3, {rough}}}"
    wanted = (f"stages=[{adapt}, {tags}]", "start.from=champion")
    first = train_until(resolve_run(tmp_path, workspace, *wanted), workspace)
    again = train_until(resolve_run(tmp_path, workspace, *wanted, before=first), workspace)
    scores = [bundle.stages[-1].best.validation_accuracy for bundle in (first, again)]
    assert 0.5 < scores[0] <= scores[1]


@pytest.mark.parametrize("named", [True, False])
def test_init_proposes_tags_where_each_word_has_one(named: bool, tmp_path: Path) -> None:
    """The recipe runs as it is, with a policy for it; which columns they are it finds out by itself, too."""
    write_checkpoint(tmp_path / "checkpoint")
    write_tags_project(tmp_path, tmp_path / "checkpoint")
    for name in ("recipe.yaml", "policy.yaml"):
        (tmp_path / name).unlink()
    columns = ("text", "tags") if named else (None, None)
    write_recipe(tmp_path / "made.csv", *columns, f"file://{tmp_path / 'checkpoint'}", tmp_path / "recipe.yaml")
    workspace = Workspace.open(Settings(home=tmp_path / "home"))
    run = resolve_run(tmp_path, workspace, "data.split.by=[group]")
    assert (run.plan.problem_type, run.plan.classes[0], set(run.plan.classes)) == (
        "text-token-classification",
        "O",
        set(TAGS),
    )
    assert run.manifest.counts.quarantined == 0
    assert "B-VIEW: 512 rows, 100%" in (tmp_path / "recipe.yaml").read_text()
    policy = load_policy(tmp_path / "policy.yaml")
    assert (policy.metric, policy.baselines) == ("entity_f1", ("majority", "word-features", "frozen-head"))


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("columns", [("text", "tags"), (None, None)])
def test_init_reads_lists_of_words_and_tags(
    columns: tuple[str | None, str | None], suffix: str, tmp_path: Path
) -> None:
    """As such data comes: the recipe is that of texts with blanks, and runs on the lists."""
    write_checkpoint(tmp_path / "checkpoint")
    write_tags_project(tmp_path, tmp_path / "checkpoint")
    rows = [{name: row[name].split() for name in ("text", "tags")} for row in read_csv(tmp_path / "made.csv")]
    source = write_lists(tmp_path / f"made.{suffix}", rows)
    (tmp_path / "recipe.yaml").unlink()
    write_recipe(source, *columns, f"file://{tmp_path / 'checkpoint'}", tmp_path / "recipe.yaml")
    run = resolve_run(tmp_path, Workspace.open(Settings(home=tmp_path / "home")), "data.split.by=[group]")
    assert set(run.plan.classes) == set(TAGS)
    assert (run.manifest.counts.kept, run.manifest.counts.quarantined) == (len(rows), 0)


@pytest.mark.parametrize("columns", [("tokens", "tags"), (None, None)])
def test_init_takes_no_other_lists(columns: tuple[str | None, str | None], tmp_path: Path) -> None:
    """Such as the labels of a row, of which it knows no recipe."""
    write_checkpoint(tmp_path / "checkpoint")
    path = tmp_path / "made.jsonl"
    path.write_text('{"tokens": ["a", "good", "film"], "tags": ["news"]}\n' * 9)
    with pytest.raises(DataError, match=r"not one of 9 rows can be read: .*'tokens' is an array.*with a tag each"):
        write_recipe(path, *columns, f"file://{tmp_path / 'checkpoint'}", tmp_path / "recipe.yaml")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def write_lists(path: Path, rows: list[dict[str, list[str]]]) -> Path:
    """Rows of lists, as JSON lines or Parquet by the suffix."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_a_class_is_no_tag_of_words() -> None:
    """Where texts have a single word each, or labels one for all their words."""
    assert count_tags(["yes", "no"], ["O", "A"]) == {}
    assert count_tags(["a good film", "a bad one"], ["O", "A"]) == {}
    assert count_tags(["a good film", "a bad one"], ["O B-X O", "O O I-X"]) == {"O": 2, "B-X": 1, "I-X": 1}


def test_a_model_of_others_is_not_adopted(tmp_path: Path) -> None:
    """What it would tell of words nobody has agreed on."""
    write_tags_project(tmp_path, tmp_path / "checkpoint")
    workspace = Workspace.open(Settings(home=tmp_path / "home"))
    with pytest.raises(RecipeError, match="no model for token classification can be adopted"):
        adopt(workspace, load_recipe(tmp_path / "recipe.yaml"), "theirs/1", "it serves already")
