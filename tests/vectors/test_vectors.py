"""Word vectors as checkpoints: what a model makes of them, where they come from, and what is refused."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from gensim.models import KeyedVectors, Word2Vec
from projects import ROOT
from safetensors.numpy import load_file
from tiny import land_reviews, resolve_run, write_family_project, write_project

from graftwork.data.manifest import load_rows, validate_data
from graftwork.errors import CheckpointError, DataError, RecipeError
from graftwork.evaluation.predictions import inputs_of, labels_of
from graftwork.models.probe import LabelledVectors, best_probe, fit_probes
from graftwork.models.serving.classifier import Classifier
from graftwork.models.serving.config import WEIGHTS, ServingConfig
from graftwork.models.serving.model import load
from graftwork.models.serving.text import TextEncoder
from graftwork.models.text import load_body
from graftwork.models.word_vectors import VectorTraining
from graftwork.recipe import load_recipe
from graftwork.settings import Settings
from graftwork.training.bundle import MODEL
from graftwork.training.engine import run_stages
from graftwork.vectors import import_vectors, train_vectors
from graftwork.workspace import Workspace

TEXTS = ["The film was good, good!", "an unknown FILM", "?", ""]
FEW = VectorTraining(size=8, epochs=2, minimum_count=1)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose recipe starts from word vectors that are yet to be made, in the folder `vectors`."""
    monkeypatch.setenv("GRAFTWORK_HOME", str(tmp_path / "home"))
    write_project(tmp_path, Path("vectors"))
    return tmp_path


def save(folder: Path, words: list[str], name: str = "vectors.txt") -> KeyedVectors:
    keyed = KeyedVectors(5)
    keyed.add_vectors(words, np.random.default_rng(1).standard_normal((len(words), 5)).astype(np.float32))
    keyed.save_word2vec_format(folder / name)
    return KeyedVectors.load_word2vec_format(folder / name)


def pooled(folder: Path, pooling: str = "mean") -> np.ndarray:
    """What a classifier's head is given of TEXTS."""
    model = Classifier(load_body(folder), ServingConfig(("a", "b"), ("text",), pooling, 16)).eval()
    encoder = TextEncoder(folder, 16)
    with torch.inference_mode():
        return model.features(*encoder.pad(encoder.encode(TEXTS), 12)).numpy()


def test_a_text_is_the_mean_of_its_words(tmp_path: Path) -> None:
    """By numpy, of gensim's vectors. Marks are words, one that the file lacks is the mean of all; no words are zero."""
    theirs = save(tmp_path, ["the", "film", "was", "good", ",", "an"])
    done = import_vectors(tmp_path / "vectors.txt", tmp_path / "made", "mit")
    assert (done.words, done.size, done.is_lowered) == (8, 5, True)
    unknown = theirs.vectors.mean(axis=0)
    words = [["the", "film", "was", "good", ",", "good", "!"], ["an", "unknown", "film"], ["?"]]
    rows = [np.array([theirs[word] if word in theirs.key_to_index else unknown for word in text]) for text in words]
    nothing = np.zeros(5)
    np.testing.assert_allclose(pooled(tmp_path / "made"), [*(r.mean(axis=0) for r in rows), nothing], atol=1e-6)
    np.testing.assert_allclose(pooled(tmp_path / "made", "max"), [*(r.max(axis=0) for r in rows), nothing], atol=1e-6)


def test_a_vector_for_unknown_words_is_taken(tmp_path: Path) -> None:
    """Where the file has one, as GloVe's may; names of ours in it make no second row."""
    theirs = save(tmp_path, ["a", "<unk>", "[PAD]", "b"])
    import_vectors(tmp_path / "vectors.txt", tmp_path / "made", "mit")
    table = load_file(tmp_path / "made" / WEIGHTS)["embeddings.weight"]
    np.testing.assert_array_equal(table, [np.zeros(5), theirs["<unk>"], theirs["a"], theirs["<unk>"], theirs["b"]])


@pytest.mark.parametrize(
    ("words", "case", "known"),
    [
        (["Film", "film", "The"], "auto", ["Film", "film", "The"]),
        (["Film", "film", "The"], "lower", ["film", "the"]),
        (["film", "the"], "auto", ["film", "the"]),
        (["film", "the"], "keep", ["film", "the"]),
        (["e\u0301te"], "auto", ["\u00e9te"]),
    ],
)
def test_words_are_found_as_texts_are_read(tmp_path: Path, words: list[str], case: str, known: list[str]) -> None:
    """In the case of the file's words unless it is said, composed; of words that become one the first counts."""
    theirs = save(tmp_path, words)
    done = import_vectors(tmp_path / "vectors.txt", tmp_path / "made", "mit", case=case)
    encoder = TextEncoder(tmp_path / "made", 16)
    assert [encoder.encode([word])[0] for word in known] == [[index] for index in range(2, 2 + len(known))]
    assert done.is_lowered == (encoder.encode([known[-1].upper()]) == encoder.encode([known[-1]]))
    table = load_file(tmp_path / "made" / WEIGHTS)["embeddings.weight"]
    np.testing.assert_array_equal(table[2], theirs[words[0]])


def test_scripts_without_spaces_are_read_by_character(tmp_path: Path) -> None:
    """As by the baseline: the vectors of characters are found, whatever is written around them."""
    save(tmp_path, ["电", "影", "好", "film"])
    import_vectors(tmp_path / "vectors.txt", tmp_path / "made", "mit")
    assert TextEncoder(tmp_path / "made", 16).encode(["film电影好!"]) == [[5, 2, 3, 4, 1]]


def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    """Neither a folder nor a part of one."""
    (tmp_path / "bad.txt").write_text("a 1 2\nb 1 nan\n")
    with pytest.raises(CheckpointError, match=r"bad\.txt: line 2"):
        import_vectors(tmp_path / "bad.txt", tmp_path / "made", "mit")
    with pytest.raises(RecipeError, match="--most: expected at least 1"):
        import_vectors(tmp_path / "bad.txt", tmp_path / "made", "mit", most=0)
    with pytest.raises(RecipeError, match="--size: expected at least 1"):
        train_vectors(tmp_path / "bad.txt", tmp_path / "made", "mit", VectorTraining(size=0))
    assert [path.name for path in tmp_path.iterdir()] == ["bad.txt"]
    save(tmp_path, ["a"])
    import_vectors(tmp_path / "vectors.txt", tmp_path / "made", "mit")
    with pytest.raises(RecipeError, match="it is there already"):
        import_vectors(tmp_path / "vectors.txt", tmp_path / "made", "mit")


def test_training_is_gensims(tmp_path: Path) -> None:
    """The words and the vectors that gensim gives for the same sentences."""
    texts = [" ".join(words) for words in product("abcd", "ef", "ghi")]
    (tmp_path / "texts.csv").write_text("text\n" + "\n".join(texts) + "\n")
    told: list[tuple[int, int]] = []
    done = train_vectors(
        tmp_path / "texts.csv", tmp_path / "made", "mit", FEW, text="text", on_progress=lambda *step: told.append(step)
    )
    model = Word2Vec([text.split() for text in texts], vector_size=8, sg=1, epochs=2, min_count=1, seed=1, workers=1)
    vocabulary = json.loads((tmp_path / "made/tokenizer.json").read_text())["model"]["vocab"]
    assert list(vocabulary)[2:] == model.wv.index_to_key
    table = load_file(tmp_path / "made" / WEIGHTS)["embeddings.weight"]
    np.testing.assert_array_equal(table[2:], model.wv.vectors)
    assert (done.texts, done.words) == (24, 11)


def test_the_same_again_is_the_same(project: Path) -> None:
    """Byte for byte, in processes that hash otherwise."""
    for seed in "12":
        command = ["train-vectors", "recipe.yaml", "-o", f"made{seed}", "--licence", "mit", "--size", "8"]
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        program = [sys.executable, "-c", "from flows.cli import main; main()", *command]
        subprocess.run(program, cwd=project, env=environment, check=True, capture_output=True)
    first, second = ({path.name: path.read_bytes() for path in (project / f"made{n}").iterdir()} for n in "12")
    assert len(first) == 5
    assert first == second


def test_no_word_of_the_holdout_is_learnt(project: Path) -> None:
    """Of a recipe's rows those of the training side are read, and no others."""
    land_reviews(project, 200)
    lines = (project / "made.csv").read_text().splitlines()
    marked = [line.replace(",", f" row{number},") for number, line in enumerate(lines[1:])]
    (project / "made.csv").write_text("\n".join([lines[0], *marked]) + "\n")
    done = train_vectors(project / "recipe.yaml", project / "made", "mit", FEW)
    workspace = Workspace.open()
    rows = load_rows(workspace.store, validate_data(load_recipe(project / "recipe.yaml"), workspace))
    encoder = TextEncoder(project / "made", 16)
    for side, known in (("train", True), ("validation", False), ("holdout", False)):
        texts = rows["text"][rows["side"] == side]
        assert len(texts) and all((encoder.encode([text])[0][-1] != 1) == known for text in texts)
    assert done.texts == (rows["side"] == "train").sum()
    assert "the training side of dataset" in (project / "made/README.md").read_text()


def test_what_can_not_be_trained_on_is_said(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column that is not there, words that are too rare, and the library that is not."""
    table = project / "made.csv"
    with pytest.raises(RecipeError, match=r"which column holds the texts\? \(--text: one of text, label"):
        train_vectors(table, tmp_path / "made", "mit", FEW)
    with pytest.raises(RecipeError, match="no column 'words'"):
        train_vectors(table, tmp_path / "made", "mit", FEW, text="words")
    with pytest.raises(RecipeError, match="--text: the recipe says which column it is"):
        train_vectors(project / "recipe.yaml", tmp_path / "made", "mit", FEW, text="text")
    with pytest.raises(DataError, match="none of their words is there 1000 times"):
        train_vectors(table, tmp_path / "made", "mit", VectorTraining(minimum_count=1000), text="text")
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    with pytest.raises(RecipeError, match=r"pip install 'graftwork\[vectors\]'"):
        train_vectors(table, tmp_path / "made", "mit", FEW, text="text")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stages={preset: lora}", r"stages\.0\.lora: Word2Vec, GloVe: it has no blocks with linear layers"),
        ("stages.1.train=[head, 'top:1']", r"'top:1' names nothing to train \(known are all, embeddings, head\)"),
        (
            "stages.0={name: told, train: all, epochs: 1, learning_rate: 1e-3, objective: masked-language-modelling}",
            "Word2Vec, GloVe: it has no token that hides a word",
        ),
        ("input.text=[text, label]", "it has no token between the texts of a pair"),
        ("input.pooling=cls", r"can't be pooled by cls"),
    ],
)
def test_what_they_can_not_do_is_refused(change: str, message: str, tmp_path: Path) -> None:
    """By the plan, before anything is trained."""
    write_family_project(tmp_path, "word-vectors")
    with pytest.raises(RecipeError, match=message):
        resolve_run(tmp_path, Workspace.open(Settings(home=tmp_path / "home")), change)


def test_a_solved_head_is_the_best_of_the_frozen_means(tmp_path: Path) -> None:
    """Logistic regression on the means that numpy takes of the table; the table stays as it was."""
    write_family_project(tmp_path, "word-vectors")
    workspace = Workspace.open(Settings(home=tmp_path / "home"))
    run = resolve_run(tmp_path, workspace, "stages=[{name: head, train: head, solver: lbfgs}]")
    (stage,) = run.plan.stages
    assert (stage.cut, stage.is_pooled) == (0, True)
    bundle = run_stages(run, workspace, lambda event: None, lambda: False)
    table = load_file(tmp_path / "checkpoint" / WEIGHTS)["embeddings.weight"]
    encoder = TextEncoder(tmp_path / "checkpoint", 16)
    sides = [load_rows(workspace.store, run.manifest, sides=(side,)) for side in ("train", "validation", "holdout")]
    means = [np.array([table[ids].mean(axis=0) for ids in encoder.encode(inputs_of(rows))]) for rows in sides]
    train, validation = (LabelledVectors(v, labels_of(rows)) for v, rows in zip(means[:2], sides[:2], strict=True))
    expected = best_probe(fit_probes(train, validation, 2)).values(means[2])
    served = load(workspace.store.root / bundle.key / MODEL)
    np.testing.assert_allclose(served.probabilities(inputs_of(sides[2])), expected, atol=1e-4)
    after = load_file(workspace.store.root / bundle.stages[0].key / WEIGHTS)["body.embeddings.weight"]
    np.testing.assert_array_equal(after, table)
