"""Aliases follow the ledger, also where a process was killed between the two or the champion is judged again."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from graftwork.errors import RegistryError
from graftwork.promotion.gate import Verdict
from graftwork.promotion.ledger import Ledger
from graftwork.registry.aliases import nominate, person, roll_back
from graftwork.registry.contenders import references
from graftwork.registry.versions import ModelVersion, move_alias, read_aliases
from graftwork.training.bundle import ServingBundle
from graftwork.workspace import Workspace

MODEL = "review-sentiment"


@pytest.fixture
def version(register: Callable[[], ModelVersion]) -> ModelVersion:
    return register()


def test_the_champion_judged_again_is_no_challenger(
    workspace: Workspace, version: ModelVersion, bundle: ServingBundle, verdict: Verdict
) -> None:
    """A stricter policy does not make it a challenger of itself."""
    first = nominate(workspace, version, bundle, verdict, None)
    again = nominate(workspace, version, bundle, replace(verdict, outcome="inconclusive"), None)
    assert again == first
    assert read_aliases(workspace, MODEL) == {"champion": 1}


def test_a_promotion_that_was_cut_off_can_be_rolled_back(
    workspace: Workspace, version: ModelVersion, bundle: ServingBundle, verdict: Verdict, register_other: ModelVersion
) -> None:
    """The ledger says version 2, the alias still 1: what is left is version 2, and once."""
    nominate(workspace, version, bundle, verdict, None)
    other = replace(bundle, digest=register_other.bundle)
    nominate(workspace, register_other, other, replace(verdict, rule="superiority"), 1)
    move_alias(workspace, MODEL, "champion", 1)
    assert roll_back(workspace, MODEL, "complaints").to_version == 1
    assert read_aliases(workspace, MODEL) == {"champion": 1}
    assert Ledger.of(workspace).is_revoked(MODEL, register_other.bundle)


def test_a_champion_that_reads_other_columns_is_named(
    workspace: Workspace, version: ModelVersion, bundle: ServingBundle, verdict: Verdict
) -> None:
    """It would be judged on texts that it was never meant to read."""
    nominate(workspace, version, bundle, verdict, None)
    candidate = replace(bundle, digest="9" * 64, columns=("title", "text"))
    with pytest.raises(RegistryError, match="it reads text; the data has title, text"):
        references(workspace, candidate)["champion"].open_model()


def test_a_person_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number of its own."""

    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", unknown)
    assert person().startswith("uid ")
