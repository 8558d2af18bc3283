"""A manifest accounts for every row, is the same for the same data, and is inherited."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from sqlalchemy import func, select

from graftwork.data.manifest import open_manifest, validate_data
from graftwork.database import manifests
from graftwork.errors import DataError, RecipeError
from graftwork.recipe import load_recipe

REPOSITORY = Path(__file__).parents[2]


def count_entries(project) -> int:
    """Manifests in the table."""
    with project.workspace.database.begin() as connection:
        return connection.scalar(select(func.count()).select_from(manifests))


def test_the_formats_read_the_same_rows(project, sentence):
    """CSV, TSV with and without a header, JSON lines and Parquet give the same texts, labels and sides."""
    rows = [(str(n), f"{sentence(n)} ' é", ("bad", "good")[n % 2]) for n in range(120)]
    names = ["id", "text", "label"]
    tsv = "".join("\t".join(row) + "\r\n" for row in rows)
    project.write("r.csv", "\n".join(",".join(row) for row in [names, *rows]))
    project.write("r.tsv", "id\ttext\tlabel\r\n" + tsv)
    project.write("bare.tsv", tsv)
    project.write("r.jsonl", "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    parquet.write_table(
        pyarrow.Table.from_pylist([dict(zip(names, r, strict=True)) for r in rows]), project.root / "r.parquet"
    )
    digests = set()
    for name in ("r.csv", "r.tsv", "bare.tsv", "r.jsonl", "r.parquet"):
        header = names if name == "bare.tsv" else None
        project.data["sources"] = [{"name": "reviews", "path": name, "id": "id", "header": header}]
        digests.add(project.validate().rows_digest)
    assert len(digests) == 1


CELL = st.text(st.sampled_from("ab \"',\t\0é=1"), max_size=6)
LINES = st.lists(st.lists(CELL, min_size=1, max_size=4).map(",".join), max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINES, max_size=3))
def test_no_row_is_lost(make_project, landings):
    """Whatever lands, rows read = kept + quarantined + duplicates in every file, and each of them can be looked up."""
    project = make_project()
    project.land()
    project.data["quarantine_tolerance"] = 0.999
    for number, lines in enumerate(landings):
        project.write(f"landing/{number}.csv", "\n".join(["id,text,label", *lines]))
    manifest = project.validate()
    for file in manifest.sources:
        counts = file.counts
        assert counts.read == counts.kept + counts.quarantined + counts.duplicates
    unreadable = sum(file.problem is not None for file in manifest.sources)
    assert len(project.rows(manifest)) == manifest.counts.kept
    assert project.report(manifest).count("\n") == 1 + manifest.counts.quarantined + unreadable
    assert project.report(manifest, "duplicates.csv").count("\n") == 1 + manifest.counts.duplicates


def test_the_demo_reviews_come_through(project):
    """Ten thousand movie reviews with stray quotes: all read, none set aside, two copies dropped."""
    movies = (REPOSITORY / "examples/reviews/movies.tsv").read_bytes()
    project.write("movies.tsv", movies)
    project.data |= {
        "sources": [{"name": "movies", "path": "movies.tsv", "header": ["id", "rating", "text"]}],
        "label": {"from": "rating", "threshold": 0, "classes": ["bad", "good"]},
        "contract": str(REPOSITORY / "contracts/reviews.yaml"),
    }
    counts = project.validate().counts
    assert (counts.read, counts.kept, counts.quarantined, counts.duplicates) == (10_605, 10_603, 0, 2)


def test_the_same_content_landed_twice_changes_no_side(project):
    """A renamed copy adds nothing but duplicates, which name the rows that stand for them."""
    project.land()
    before = project.validate()
    project.write_rows("landing/0.csv")
    after = project.validate()
    assert (after.counts.kept, after.counts.duplicates) == (200, 200)
    assert after.rows_digest == before.rows_digest and after.parent == before.digest
    assert "reviews/0.csv:2,reviews/a.csv:2,reviews,0.csv,2" in project.report(after, "duplicates.csv")


def test_new_data_leaves_every_known_row_on_its_side(project):
    """Also after files went away and came back, and under another seed, a row is where it first was."""
    project.land()
    first = project.rows(project.validate())
    project.write_rows("landing/b.csv", range(200, 500))
    (project.root / "landing" / "a.csv").unlink()
    second = project.rows(project.validate())
    project.data["split"]["seed"] = 8
    project.write_rows("landing/a.csv")
    both = project.rows(project.validate())
    assert {key: row["side"] for key, row in both.items()} == {
        key: row["side"] for rows in (first, second) for key, row in rows.items()
    }


def test_a_group_never_stands_on_two_sides(project, sentence):
    """Rows of one group share a side in every manifest, and groups of two sources are not the same group."""
    project.data["sources"] = [
        {"name": name, "path": name, "id": "id", "group": {"from": "id", "before": "_"}} for name in ("one", "two")
    ]
    for name, start in (("one/a.csv", 0), ("two/a.csv", 200)):
        rows = "".join(f"g{n % 40}_{n},{sentence(n + start)},{('bad', 'good')[n % 2]}\n" for n in range(200))
        project.write(name, f"id,text,label\n{rows}")
    project.validate()
    more = "".join(f"g{n % 60}_{n},{sentence(n + 400)},good\n" for n in range(200, 400))
    project.write("one/b.csv", f"id,text,label\n{more}")
    rows = project.rows(project.validate()).values()
    assert len({row["group"] for row in rows}) == 100
    assert len({(row["group"], row["side"]) for row in rows}) == 100


def test_a_new_row_between_two_sides_is_set_aside(project):
    """A row of a held-out group that repeats a training text, nearly, would leak: it names both sides."""
    project.data["sources"] = [{"name": "r", "path": "landing", "id": "id", "group": {"from": "id", "before": "_"}}]
    project.write_rows("landing/a.csv")
    rows = project.rows(project.validate())
    held, trained = (next(key for key, row in rows.items() if row["side"] == side) for side in ("holdout", "train"))
    project.write("landing/b.csv", f"id,text,label\n{held[2:]}_x,{rows[trained]['text']} indeed,good\n")
    manifest = project.validate()
    assert manifest.counts.quarantined == 1
    assert f'would join rows on opposite sides,"holdout (group {held}), train ({trained})"' in project.report(manifest)


def test_an_id_with_another_text_is_set_aside(project):
    """The first row of an id stays, also when the other one's file comes first in the folder."""
    project.land(id="id")
    kept = project.rows(project.validate())["reviews/5"]["text"]
    project.write("landing/0.csv", "id,text,label\n5,something else,good\n")
    manifest = project.validate()
    assert project.rows(manifest)["reviews/5"]["text"] == kept
    assert "0.csv,2,,id seen before with another text,reviews/5" in project.report(manifest)


def test_conflicting_labels_are_set_aside_or_kept(project):
    """Equal texts with different labels: all of them go, or, if the recipe says so, stay on one side."""
    project.write_rows("reviews.csv", extra="x,two minds,good\ny,Two  minds,bad\n")
    assert project.report(project.validate()).count("equal texts with different labels") == 2
    project.data["conflicts"] = "keep"
    rows = project.rows(project.validate())
    assert len(rows) == 202
    assert rows["reviews/reviews.csv:202"]["side"] == rows["reviews/reviews.csv:203"]["side"]


def test_the_order_of_files_changes_no_byte(make_project):
    """The same rows spread otherwise over files, in another order, give the same rows, sides and digests."""
    digests = []
    for spread in ((range(120), range(120, 200)), (range(199, 60, -1), range(60, -1, -1))):
        project = make_project()
        project.data["sources"] = [{"name": "r", "path": "landing", "id": "id"}]
        for name, numbers in zip("ab", spread, strict=True):
            project.write_rows(f"landing/{name}.csv", numbers)
        manifest = project.validate()
        digests.append((manifest.rows_digest, manifest.holdout_digest))
    assert digests[0] == digests[1]


def test_the_same_files_in_another_place_give_the_same_bytes(make_project):
    """Two workspaces make the same manifest and the same rows.parquet."""
    found = []
    for _ in range(2):
        project = make_project()
        project.write_rows("reviews.csv")
        manifest = project.validate()
        found.append((manifest.digest, (project.workspace.store.root / manifest.key / "rows.parquet").read_bytes()))
    assert found[0] == found[1]


def test_a_stored_manifest_is_found_without_heavy_imports(project):
    """The same input again returns the same manifest in a process that never imports pandas, pandera or numpy."""
    project.write_rows("reviews.csv")
    digest = project.validate().digest
    code = f"""
import sys
from pathlib import Path
from graftwork.data.manifest import validate_data
from graftwork.recipe import load_recipe
from graftwork.settings import Settings
from graftwork.workspace import Workspace
home = Path({str(project.root)!r})
print(validate_data(load_recipe(home / "recipe.yaml"), Workspace.open(Settings(home=home / ".graftwork"))).digest)
print([name for name in ("pandas", "pandera", "numpy", "pyarrow") if name in sys.modules])
"""
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown.split("\n")[:2] == [digest, "[]"]
    assert count_entries(project) == 1


def test_a_damaged_manifest_is_made_again(project):
    """An altered stored folder is replaced by an equal one, under the same digest."""
    project.write_rows("reviews.csv")
    before = project.validate()
    (project.workspace.store.root / before.key / "rows.parquet").write_bytes(b"altered")
    assert project.validate() == before == open_manifest(project.workspace.store, before.digest)
    assert count_entries(project) == 1


def test_a_lost_parent_is_named(project):
    """Without the parent's sides new data can't be placed; the message says what to restore."""
    project.land()
    parent = project.validate()
    (project.workspace.store.root / parent.key / "memory.parquet").unlink()
    project.write_rows("landing/b.csv", range(200, 300))
    with pytest.raises(DataError, match=f"dataset {parent.digest[:12]} is not in the store"):
        project.validate()


def test_processes_that_validate_at_once_make_one_lineage(project):
    """Two that start together end with the same manifest, recorded once."""
    project.write_rows("reviews.csv")
    expected = project.validate()
    with project.workspace.database.begin() as connection:
        connection.execute(manifests.delete())
    found, recipe = [], load_recipe(project.root / "recipe.yaml")
    threads = [
        threading.Thread(target=lambda: found.append(validate_data(recipe, project.workspace))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected, expected] and count_entries(project) == 1


def test_a_limited_run_has_a_lineage_of_its_own(project):
    """It looks at so many rows, of both classes, and leaves the lineage of the whole data alone."""
    project.write_rows("reviews.csv", extra="short,row\n")
    limited = project.validate(limit_rows=120)
    assert limited.lineage == "sentiment-limit-120"
    assert (limited.counts.kept, limited.counts.quarantined, limited.counts.not_taken) == (120, 1, 80)
    assert limited.counts.read == 121
    assert all(min(by_class.values()) > 0 for by_class in limited.sides.values())
    assert project.validate().parent is None


def test_pairs_of_texts_are_one_row(project, sentence):
    """With two text columns both are kept, and a repeated first text alone makes no duplicate."""
    rows = "".join(f"the same question,{sentence(n)},{('bad', 'good')[n % 2]}\n" for n in range(200))
    project.write("reviews.csv", f"question,answer,label\n{rows}")
    project.text = ["question", "answer"]
    row = project.rows(project.validate())["reviews/reviews.csv:9"]
    assert (row["text"], row["text_b"]) == ("the same question", sentence(7))


def test_labels_are_mapped_or_compared(project, sentence):
    """A map gives the class of each raw label; a number above the threshold is of the second class."""
    project.write("reviews.csv", "text,label\n" + "".join(f"{sentence(n)},{n % 4}\n" for n in range(200)))
    project.data["label"] = {
        "from": "label",
        "map": {"0": "low", "1": "low", "2": "mid", "3": "top"},
        "classes": ["low", "mid", "top"],
    }
    assert [row["label"] for row in project.rows(project.validate()).values()].count(0) == 100
    project.data["label"] = {"from": "label", "threshold": 2, "classes": ["low", "top"]}
    rows = project.rows(project.validate())
    assert [rows[f"reviews/reviews.csv:{line}"]["label"] for line in (2, 3, 4, 5)] == [0, 0, 0, 1]


@pytest.mark.parametrize("raw", ["x", "nan", "inf", "1e999"])
def test_a_rating_that_is_no_number_is_set_aside(project, raw, sentence):
    """A threshold needs a finite number."""
    project.write(
        "reviews.csv", "text,label\n" + "".join(f"{sentence(n)},{n % 2}\n" for n in range(200)) + f"t,{raw}\n"
    )
    project.data["label"] = {"from": "label", "threshold": 0, "classes": ["low", "high"]}
    assert f"202,label,not a number,{raw}" in project.report(project.validate())


def test_a_contract_sets_rows_aside_by_its_checks(project, sentence):
    """Each check of the contract is named in the quarantine, and one bad number hides no other check."""
    project.write("contract.yaml", (REPOSITORY / "contracts/reviews.yaml").read_text())
    good = "".join(f"{sentence(n)},{n % 2 - 0.5}\n" for n in range(200))
    project.write("reviews.csv", f"text,rating\n{good}t,9\nu,many\n{'x' * 5001},1\n")
    project.data |= {
        "label": {"from": "rating", "threshold": 0, "classes": ["low", "high"]},
        "contract": "contract.yaml",
    }
    report = project.report(project.validate())
    assert '202,rating,"breaks in_range(-4, 4)",9' in report
    assert "203,rating,not a number,many" in report
    assert '204,text,"breaks str_length(1, 5000)",xxx' in report


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        ("columns: {}", "a contract needs `columns:`"),
        ("columns: {text: {checks: {no_such_check: 1}}}", "not a pandera schema"),
        ("columns: {label: {checks: {in_range: {min_value: 0, max_value: 1}}}}", "can't be checked on 'label'"),
        ("columns: {text: {dtype: str}, text: {dtype: str}}", "contract.yaml:1"),
    ],
)
def test_a_contract_that_says_nothing_checkable_is_refused(project, contract, message):
    """The contract's file is named, and what is wrong with it."""
    project.write_rows("reviews.csv")
    project.write("contract.yaml", contract)
    project.data["contract"] = "contract.yaml"
    with pytest.raises(RecipeError, match=message):
        project.validate()
