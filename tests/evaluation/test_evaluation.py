"""Evaluations: the right rows, the right figures, and nothing computed twice."""

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix

from graftwork.data.manifest import DatasetManifest, load_rows
from graftwork.errors import DataError, RecipeError, RegistryError
from graftwork.evaluation.baselines import FrozenEncoder
from graftwork.evaluation.evaluation import Contender, Evaluation, Memory, evaluate
from graftwork.evaluation.holdout import judged_rows
from graftwork.evaluation.predictions import Predictor, open_predictions
from graftwork.fingerprint import digest
from graftwork.models.serving.model import load
from graftwork.storage import Store

ROWS = 240
BASELINES = ("majority", "tfidf", "frozen-head")
Evaluate = Callable[..., Evaluation]
Publish = Callable[[pd.DataFrame], DatasetManifest]

HIT = """
import sys
from pathlib import Path
from graftwork.data.manifest import open_manifest
from graftwork.evaluation.baselines import FrozenEncoder
from graftwork.evaluation.evaluation import Contender, evaluate
from graftwork.storage import Store
store = Store(Path(sys.argv[1]))
candidate = Contender("b1", "r1", sys.argv[2], None, lambda: 1 / 0)
encoder = FrozenEncoder(sys.argv[3], "mean", 32, "float32")
evaluate(store, candidate, {}, open_manifest(store, sys.argv[2]), encoder=encoder,
         baselines=("majority", "tfidf", "frozen-head"), slices=["source"], samples=200)
print(*({"torch", "pandas", "sklearn", "scipy", "pyarrow"} & set(sys.modules)))
"""


def no_model() -> Predictor:
    raise AssertionError("a stored prediction was computed again")


@pytest.fixture
def run(store: Store, encoder: FrozenEncoder) -> Evaluate:
    """Evaluates against the tiny checkpoint's baselines."""

    def run(candidate: Contender, manifest: DatasetManifest, **references: Contender) -> Evaluation:
        chosen = {"encoder": encoder, "baselines": BASELINES, "slices": ["source"], "samples": 200}
        return evaluate(store, candidate, references, manifest, **chosen)

    return run


@pytest.fixture
def candidate(manifest: DatasetManifest, write_model: Callable[..., Path]) -> Contender:
    folder = write_model(1)
    return Contender("b1", "r1", manifest.digest, None, lambda: load(folder))


def test_figures_are_those_of_the_kept_predictions(
    run: Evaluate, store: Store, manifest: DatasetManifest, candidate: Contender
) -> None:
    """Each holdout row has one stored prediction, the model's own, and scikit-learn finds the same figures in them."""
    found = run(candidate, manifest)
    rows = load_rows(store, manifest, sides={"holdout"})
    kept = open_predictions(store, found.predictions["candidate"])
    own = candidate.open_model().probabilities(list(rows["text"]))
    assert kept["row_id"].tolist() == rows["row_id"].tolist()
    np.testing.assert_allclose(kept[["p_0", "p_1"]].to_numpy(), own, atol=1e-6)
    assert found.metrics["accuracy"].value == pytest.approx(accuracy_score(rows["label"], own.argmax(axis=1)))
    assert np.array(found.confusion).tolist() == confusion_matrix(rows["label"], own.argmax(axis=1)).tolist()
    assert (found.rows, found.excluded_rows) == (len(rows), 0)
    assert found.groups == rows["group"].nunique() + rows["group"].isna().sum()
    assert {each.value: each.rows for each in found.slices} == rows["source"].value_counts().to_dict()


def test_baselines_are_rivals_in_earnest(run: Evaluate, manifest: DatasetManifest, candidate: Contender) -> None:
    """Where one word tells the label, both linear baselines find it; the majority knows only the shares."""
    found = run(candidate, manifest).baselines
    shares = {name: count / 120 for name, count in manifest.sides["train"].items()}
    largest = max(shares, key=shares.__getitem__)
    assert found["majority"]["accuracy"].value == pytest.approx(manifest.sides["holdout"][largest] / 80)
    assert found["tfidf"]["accuracy"].value == 1
    assert found["frozen-head"]["accuracy"].value > 0.95


def test_it_tells_how_far_it_is(
    store: Store, manifest: DatasetManifest, candidate: Contender, encoder: FrozenEncoder
) -> None:
    """Who is predicted, in order, and rows up to all of them; features that are kept are not computed again."""
    told: list[tuple[str, int, int]] = []
    chosen: dict[str, Any] = {"encoder": encoder, "baselines": BASELINES, "samples": 100}
    evaluate(store, candidate, {}, manifest, **chosen, on_progress=lambda *event: told.append(event))
    assert list(dict.fromkeys(name for name, _, _ in told)) == ["candidate", *BASELINES]
    assert ("candidate", 80, 80) in told and told[-1] == ("frozen-head", ROWS, ROWS)
    store.remove(store.keys("evaluation")[0])
    for key in store.keys("predictions"):
        store.remove(key)
    told.clear()
    evaluate(store, candidate, {}, manifest, **chosen, on_progress=lambda *event: told.append(event))
    assert told[-1] == ("frozen-head", 0, 80)


def test_a_second_evaluation_loads_nothing(
    run: Evaluate, store: Store, manifest: DatasetManifest, candidate: Contender, encoder: FrozenEncoder
) -> None:
    """The same question is answered from the store, without the model and the libraries that it took."""
    run(candidate, manifest)
    command = [sys.executable, "-c", HIT, str(store.root), manifest.digest, encoder.checkpoint]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout.split() == []


def test_a_reference_is_predicted_once(run: Evaluate, manifest: DatasetManifest, candidate: Contender) -> None:
    """A champion that was itself a candidate on these rows is not loaded again, and measures the same."""
    before = run(candidate, manifest)
    champion = dataclasses.replace(candidate, version=1, open_model=no_model)
    next_one = dataclasses.replace(candidate, recipe="r2", open_model=no_model)
    found = run(next_one, manifest, champion=champion, anchor=champion)
    assert found.references["champion"].metrics == before.metrics
    assert found.predictions["champion"] == before.predictions["candidate"]
    assert found.digest != before.digest


def test_an_altered_prediction_is_made_again(
    run: Evaluate, store: Store, manifest: DatasetManifest, candidate: Contender
) -> None:
    """A damaged file of predictions is set aside; the next one who needs it computes it anew."""
    key = run(candidate, manifest).predictions["candidate"]
    kept = open_predictions(store, key)
    file = store.root / key / "predictions.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    run(dataclasses.replace(candidate, recipe="r2"), manifest)
    pd.testing.assert_frame_equal(open_predictions(store, key), kept)


def test_an_evaluation_without_its_predictions_is_done_again(
    run: Evaluate, store: Store, manifest: DatasetManifest, candidate: Contender
) -> None:
    """The figures alone are not enough for a verdict: predictions that were cleaned away are made anew."""
    before = run(candidate, manifest)
    shutil.rmtree(store.root / before.predictions["tfidf"])
    assert run(dataclasses.replace(candidate, open_model=no_model), manifest) == before
    assert store.find(before.predictions["tfidf"])


def test_a_slice_by_no_column_is_refused_before_anything_is_predicted(
    store: Store, manifest: DatasetManifest, candidate: Contender, encoder: FrozenEncoder
) -> None:
    """The column is named, and no model was loaded for it."""
    unloadable = dataclasses.replace(candidate, open_model=no_model)
    with pytest.raises(RecipeError, match="no column mood"):
        evaluate(store, unloadable, {}, manifest, encoder=encoder, baselines=(), slices=["source", "mood"])


def test_rows_that_a_champion_was_trained_on_never_judge_it(
    store: Store, rows: pd.DataFrame, manifest: DatasetManifest, publish: Publish
) -> None:
    """A champion of another lineage knew some holdout rows: by id, by the same text in capitals, or by their group."""
    holdout = rows[rows["side"] == "holdout"]
    alone = holdout[holdout["group"].isna()]
    by_id = alone.iloc[:3].assign(text="another text altogether")
    by_text = alone.iloc[3:5].assign(row_id=["t/1", "t/2"], text=alone["text"].iloc[3:5].str.upper())
    by_group = holdout[holdout["group"].notna()].iloc[:1]
    mates = holdout[holdout["group"] == by_group["group"].iloc[0]]
    known = pd.concat([by_id, by_text, by_group.assign(row_id="t/3", text="a third text")]).assign(side="train")
    elsewhere = publish(pd.concat([rows[rows["side"] != "holdout"].assign(row_id=lambda r: "x" + r["row_id"]), known]))
    left, excluded = judged_rows(store, manifest, [manifest.digest, elsewhere.digest])
    gone = set(holdout["row_id"]) - set(left["row_id"])
    assert gone == {*by_id["row_id"], *alone["row_id"].iloc[3:5], *mates["row_id"]}
    assert excluded == len(gone)


def test_a_row_that_is_named_by_its_line_is_known_by_its_text(
    store: Store, rows: pd.DataFrame, publish: Publish
) -> None:
    """Without an id column, a line added on top gives every row the id of the one before; none of them is known."""
    placed = rows.assign(group=None, row_id="s/reviews.csv:" + rows["line"].astype(str), source="s")
    moved = placed.assign(line=rows["line"] + 1, row_id="s/reviews.csv:" + (rows["line"] + 1).astype(str))
    left, excluded = judged_rows(store, publish(moved), [publish(placed).digest])
    assert (len(left), excluded) == (80, 0)


def test_rows_that_are_grouped_later_are_resampled_by_group(
    run: Evaluate, rows: pd.DataFrame, publish: Publish, candidate: Contender
) -> None:
    """The predictions of a model are not reused with the groups that its rows had before."""
    assert run(candidate, publish(rows.assign(group=None))).groups == 80
    grouped = rows.assign(group="s/" + rows["side"] + (rows["line"] // 60).astype(str))
    assert run(candidate, publish(grouped)).groups == 4


def test_a_champion_that_knows_every_row_can_not_be_judged(
    store: Store, rows: pd.DataFrame, manifest: DatasetManifest, publish: Publish
) -> None:
    """No row left is an error of the data that says how many were known."""
    elsewhere = publish(rows.assign(side=["validation", "train"] * 120))
    with pytest.raises(DataError, match="trained on 80"):
        judged_rows(store, manifest, [elsewhere.digest])


def test_a_champion_with_other_classes_is_named(
    run: Evaluate, manifest: DatasetManifest, candidate: Contender, write_model: Callable[..., Path]
) -> None:
    """Figures of different classes are not put side by side."""
    folder = write_model(2, classes=("positive", "negative"))
    champion = Contender("b2", "r1", manifest.digest, 4, lambda: load(folder))
    with pytest.raises(RegistryError, match=r"champion, version 4.*positive, negative.*negative, positive"):
        run(candidate, manifest, champion=champion)


def test_what_a_reference_knew_is_told_apart_from_what_is_new(
    run: Evaluate,
    store: Store,
    rows: pd.DataFrame,
    publish: Publish,
    candidate: Contender,
    write_model: Callable[..., Path],
) -> None:
    """By text and label: the anchor's data had every second row, and one of another label; figures by hand."""
    before = rows.iloc[::2].copy()
    mended = before.index[before["side"] == "holdout"][0]
    before.loc[mended, "label"] = 1 - before.loc[mended, "label"]
    grown, old = publish(rows), publish(before)
    references = {
        "champion": Contender("b2", "r2", grown.digest, 2, lambda: load(write_model(2))),
        "anchor": Contender("b3", "r3", old.digest, 1, lambda: load(write_model(3))),
    }
    found = run(candidate, grown, **references)
    assert found.memory.keys() == {"anchor"}
    memory = found.memory["anchor"]
    assert memory.known is not None and memory.new is not None
    kept = {role: open_predictions(store, key) for role, key in memory.predictions.items()}
    expected = sorted(row for row in before.loc[before["side"] == "holdout", "row_id"] if row != rows["row_id"][mended])
    for role, value in (("candidate", memory.known.candidate), ("anchor", memory.known.reference)):
        assert kept[role]["row_id"].tolist() == expected
        right = kept[role]["p_1"].gt(kept[role]["p_0"]) == kept[role]["label"]
        assert value.value == pytest.approx(right.mean())
    assert memory.known.rows + memory.new.rows == found.rows
    whole = (
        memory.known.rows * memory.known.candidate.value + memory.new.rows * memory.new.candidate.value
    ) / found.rows
    assert whole == pytest.approx(found.metrics["accuracy"].value)


def test_what_has_no_memory_keeps_its_digest(run: Evaluate, manifest: DatasetManifest, candidate: Contender) -> None:
    """An evaluation that an older version made is found as what it was."""
    found = run(candidate, manifest)
    plain = {name: value for name, value in dataclasses.asdict(found).items() if name not in ("memory", "target")}
    assert found.digest == digest(plain)
    assert dataclasses.replace(found, memory={"anchor": Memory(None, None, {})}).digest != found.digest


def test_rows_of_a_teacher_do_not_judge_its_student(
    run: Evaluate, store: Store, rows: pd.DataFrame, publish: Publish, candidate: Contender
) -> None:
    """Those that the teacher was trained on, in a split of its own."""
    manifest = publish(rows)
    other = publish(rows.assign(side=rows["side"].map({"holdout": "train", "train": "holdout"}).fillna("validation")))
    holdout = rows[rows["side"] == "holdout"]
    few = publish(rows.drop(index=holdout.index[10:]).assign(side=lambda r: r["side"].replace("holdout", "train")))
    taught = dataclasses.replace(candidate, taught_by=(few.digest,))
    found = run(taught, manifest)
    assert found.excluded_rows >= 10
    assert found.rows == len(holdout) - found.excluded_rows
    with pytest.raises(DataError, match="no row to judge on"):
        run(dataclasses.replace(candidate, taught_by=(other.digest,)), manifest)
