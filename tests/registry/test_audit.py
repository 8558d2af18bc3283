"""An audit finds what was moved, deleted or edited by hand in ledger and registry, and changes nothing."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import text

from graftwork.promotion.gate import Verdict
from graftwork.registry.aliases import nominate
from graftwork.registry.audit import Audit, audit
from graftwork.registry.client import reach_mlflow
from graftwork.registry.versions import BUNDLE, ModelVersion, move_alias, read_aliases
from graftwork.training.bundle import ServingBundle
from graftwork.workspace import Workspace

MODEL = "review-sentiment"


@pytest.fixture
def promoted(
    workspace: Workspace,
    bundle: ServingBundle,
    verdict: Verdict,
    register: Callable[[], ModelVersion],
    register_other: ModelVersion,
) -> Workspace:
    """A workspace in which version 1 was champion, and version 2 is."""
    nominate(workspace, register(), bundle, verdict, None)
    other = replace(bundle, digest=register_other.bundle)
    nominate(workspace, register_other, other, replace(verdict, rule="superiority"), 1)
    return workspace


def found_in(workspace: Workspace) -> list[str]:
    return [str(problem) for problem in audit(workspace).problems]


def test_what_is_in_order_is_counted(promoted: Workspace) -> None:
    done = audit(promoted)
    assert (done.models, done.entries, done.problems) == ((MODEL,), 2, ())


def test_nothing_at_all_is_in_order(workspace: Workspace) -> None:
    assert audit(workspace).problems == ()


@pytest.mark.parametrize(("alias", "version"), [("champion", None), ("challenger", 1)])
def test_an_alias_moved_by_hand_is_found_and_left(promoted: Workspace, alias: str, version: int | None) -> None:
    """Taken away, or set where the ledger has no entry."""
    move_alias(promoted, MODEL, alias, version)
    (problem,) = found_in(promoted)
    assert problem.startswith(f"{MODEL}@{alias}: the registry has version {version or 'none'}, the ledger ")
    assert "moved by hand" in problem
    assert read_aliases(promoted, MODEL).get(alias) == version


def test_a_promotion_that_was_cut_off_is_told_apart(promoted: Workspace) -> None:
    """The alias is still where the last entry moved it from: the next run finishes that, the audit does not."""
    move_alias(promoted, MODEL, "champion", 1)
    (problem,) = found_in(promoted)
    assert "cut off" in problem
    assert read_aliases(promoted, MODEL) == {"champion": 1}


def test_a_deleted_champion_is_found(promoted: Workspace) -> None:
    """With it MLflow drops its alias, silently."""
    with reach_mlflow(promoted.settings) as client:
        client.delete_model_version(MODEL, "2")
    alias, lost = found_in(promoted)
    assert "the registry has version none" in alias
    assert lost.startswith(f"{MODEL}, version 2: the champion was deleted")


def test_the_version_to_go_back_to_counts_too(promoted: Workspace) -> None:
    with reach_mlflow(promoted.settings) as client:
        client.delete_model_version(MODEL, "1")
    (problem,) = found_in(promoted)
    assert "the one to go back to was deleted" in problem


def test_another_bundle_under_the_champions_number_is_found(promoted: Workspace) -> None:
    with reach_mlflow(promoted.settings) as client:
        client.set_model_version_tag(MODEL, "2", BUNDLE, "f" * 64)
    (problem,) = found_in(promoted)
    assert "is bundle ffffffffffff in the registry" in problem


def test_a_cut_off_tail_is_found(promoted: Workspace) -> None:
    """By the witness, and by the alias that the ledger knows nothing of any more."""
    with promoted.database.begin() as connection:
        connection.execute(text("DROP TRIGGER ledger_no_delete"))
        connection.execute(text("DELETE FROM ledger WHERE sequence = 2"))
    told = "\n".join(found_in(promoted))
    assert "entry 2: it was taken out of the ledger" in told
    assert f"{MODEL}@champion: the registry has version" in told


def test_a_champion_without_an_entry_is_found(workspace: Workspace, register: Callable[[], ModelVersion]) -> None:
    """Set by hand before Graftwork promoted anything."""
    move_alias(workspace, MODEL, "champion", register().version)
    (problem,) = found_in(workspace)
    assert "the ledger none" in problem


def test_models_of_others_are_left_alone(workspace: Workspace) -> None:
    with reach_mlflow(workspace.settings) as client:
        client.create_registered_model("theirs")
        client.create_model_version("theirs", "file:///nowhere")
        client.set_registered_model_alias("theirs", "champion", "1")
    assert audit(workspace) == Audit((), 0, ())
