"""Retrieval figures, against sorted lists; and those of a trained stage on pairs that it has not seen."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny import resolve_run, train_until, write_image_project, write_pair, write_stripes

from graftwork.data.manifest import load_auxiliary
from graftwork.errors import DataError, RecipeError, TrainingError
from graftwork.evaluation.metrics import Interval
from graftwork.evaluation.retrieval import measure_gain, measure_ranks, rank_found
from graftwork.recipe import load_recipe
from graftwork.retrieval import CANDIDATE, CHECKPOINT, GAIN, OF_CAPTIONS, OF_PICTURES, measure_retrieval, read_pairs
from graftwork.settings import Settings
from graftwork.workspace import Workspace

AUXILIARY = "auxiliary=[{name: told, sources: [{name: captions, path: more}], caption: caption}]"
STAGES = (
    "stages=[{name: pairs, objective: contrastive-image-text, train: all, epochs: 6, learning_rate: 2e-3,"
    " auxiliary: told}, {name: head, train: head, epochs: 1, learning_rate: 1e-3}]"
)


def test_figures_are_those_of_sorted_lists() -> None:
    """Of random states, of which some have several that belong to them."""
    chance = np.random.default_rng(3)
    asked, told = chance.normal(size=(80, 4)), chance.normal(size=(50, 4))
    belongs = [chance.choice(50, size=chance.integers(1, 4), replace=False).tolist() for _ in asked]
    ranks = rank_found(asked, told, belongs)
    for row, mine, rank in zip(asked, belongs, ranks, strict=True):
        cosines = [float(row @ other / np.linalg.norm(row) / np.linalg.norm(other)) for other in told]
        order = np.argsort(cosines)[::-1].tolist()
        assert rank == 1 + min(order.index(place) for place in mine)
    found = measure_ranks(ranks, np.arange(80), samples=200, seed=0)
    assert found["recall@5"].value == np.mean([rank <= 5 for rank in ranks])
    assert found["mean_reciprocal_rank"].value == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert all(each.low <= each.value <= each.high for each in found.values())


def test_what_is_all_alike_finds_nothing() -> None:
    """A tie is no find."""
    assert rank_found(np.ones((3, 2)), np.ones((5, 2)), [[0], [1, 2], [3]]).tolist() == [5, 4, 5]


def test_what_is_no_number_finds_nothing() -> None:
    """A model that has run away is not told to be perfect."""
    states = np.full((3, 2), np.nan)
    assert rank_found(states, np.ones((3, 2)), [[0], [1], [2]]).tolist() == [3, 3, 3]


def test_what_is_gained_is_told_pair_by_pair() -> None:
    """Each found one place sooner: sure, though the figures by themselves are anything but."""
    before = np.array([4, 11] * 20)
    found = measure_gain(before, before - 1, np.arange(40), samples=300, seed=0)
    assert found["recall@5"] == Interval(0.0, 0.0, 0.0)
    assert found["recall@10"].value == 0.5
    assert found["mean_reciprocal_rank"].value == pytest.approx(np.mean(1 / (before - 1) - 1 / before))
    alone = [measure_ranks(ranks, np.arange(40), 300, 0)["mean_reciprocal_rank"] for ranks in (before, before - 1)]
    assert found["mean_reciprocal_rank"].low > 0
    assert alone[0].high > alone[1].low


def test_groups_are_drawn_whole() -> None:
    """Two groups of which one finds all and the other nothing: any share of them may come."""
    ranks = np.array([1] * 50 + [100] * 50)
    found = measure_ranks(ranks, np.repeat([0, 1], 50), samples=500, seed=0)["recall@1"]
    assert found == Interval(0.5, 0.0, 1.0)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Pictures to judge by, others with captions to learn from, and others to look for."""
    write_pair(tmp_path / "checkpoint", "clip")
    write_image_project(tmp_path, tmp_path / "checkpoint")
    for name, first in (("more", 500), ("held", 700)):
        write_stripes(tmp_path / name, 40, first)
        words = {"no": "dark film", "yes": "bright plot"}
        lines = [f"{label}/{first + n:03}.png,the {told}" for n in range(40) for label, told in words.items()]
        (tmp_path / name / "captions.csv").write_text("file,caption\n" + "\n".join(lines) + "\n")
    return tmp_path


def test_a_stage_is_measured_beside_its_checkpoint(project: Path) -> None:
    """On pairs that it has not learnt from: two captions, of which each has forty pictures."""
    workspace, changes = Workspace.open(Settings(home=project / "home")), (AUXILIARY, STAGES)
    recipe = load_recipe(project / "recipe.yaml", changes)
    table = project / "held/captions.csv"
    with pytest.raises(TrainingError, match="not trained yet"):
        measure_retrieval(workspace, recipe, "pairs", table)
    train_until(resolve_run(project, workspace, *changes), workspace)
    with pytest.raises(RecipeError, match=r"no stage 'head' learnt from pictures and captions.*pairs"):
        measure_retrieval(workspace, recipe, "head", table)
    found = measure_retrieval(workspace, recipe, "pairs", table, samples=100)
    assert (found.pairs, found.pictures, found.captions, found.known) == (80, 80, 2, 0)
    before, after = (found.figures[name] for name in (CHECKPOINT, CANDIDATE))
    assert after[OF_PICTURES]["recall@1"].value > 0.9 > before[OF_PICTURES]["recall@1"].value
    assert after[OF_CAPTIONS]["recall@10"].value == 1
    gained = found.figures[GAIN][OF_PICTURES]["recall@1"]
    assert gained.value == pytest.approx(after[OF_PICTURES]["recall@1"].value - before[OF_PICTURES]["recall@1"].value)
    assert gained.low > 0
    (table.parent / "one.csv").write_text("\n".join(table.read_text().splitlines()[:2]) + "\n")
    with pytest.raises(DataError, match="1 pictures and 1 captions: nothing else could be found"):
        measure_retrieval(workspace, recipe, "pairs", table.parent / "one.csv")
    lines = (project / "more/captions.csv").read_text().splitlines()
    learnt = load_auxiliary(workspace.store, resolve_run(project, workspace, *changes).manifest, "told")["line"]
    shutil.copytree(project / "more", project / "copies")
    table = project / "copies/captions.csv"
    table.write_text("\n".join([lines[0], *(lines[line - 1] for line in learnt)]) + "\n")
    with pytest.raises(DataError, match="has learnt from the pictures of all"):
        measure_retrieval(workspace, recipe, "pairs", table)


def test_a_stage_is_found_however_much_room_the_cache_had(project: Path) -> None:
    """What an earlier stage had computed once, or each time again, decides under which key a later one lies."""
    workspace = Workspace.open(Settings(home=project / "home", cache_bytes=0))
    first = "stages=[{name: before, train: head, epochs: 1, learning_rate: 1e-3}, "
    changes = AUXILIARY, STAGES.replace("stages=[", first).replace("epochs: 6", "epochs: 1")
    train_until(resolve_run(project, workspace, *changes), workspace)
    recipe = load_recipe(project / "recipe.yaml", changes)
    assert measure_retrieval(workspace, recipe, "pairs", project / "held/captions.csv", samples=10).pairs == 80


def test_pairs_that_can_not_be_read_are_told_by_their_rows(project: Path) -> None:
    """All at once."""
    table = project / "held/captions.csv"
    table.write_text(table.read_text() + "no/nosuch.png,the film\nno/700.png,\n")
    with pytest.raises(DataError, match=r"(?s)captions\.csv:82: the picture no/nosuch\.png.*csv:83: .*is missing"):
        read_pairs(table, "file", "caption", None)
    with pytest.raises(DataError, match="no column 'title'"):
        read_pairs(table, "file", "title", None)
    with pytest.raises(DataError, match="both in column 'file'"):
        read_pairs(table, "file", "file", None)


def test_captions_may_be_what_belongs_together(project: Path) -> None:
    """All pairs of one caption are a group then."""
    pairs = read_pairs(project / "held/captions.csv", "file", "caption", "caption")
    assert {pair.group for pair in pairs} == {pair.caption for pair in pairs}
    assert len(pairs) == 80
