"""Projects around the files that a test writes."""

from collections.abc import Callable

import pytest
from data_projects import Project, make_sentence


@pytest.fixture
def make_project(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Project]:
    """Makes empty projects, each in a folder of its own."""
    return lambda: Project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def project(make_project: Callable[[], Project]) -> Project:
    """An empty project with a recipe for reviews.csv (id, text, label)."""
    return make_project()


@pytest.fixture
def sentence() -> Callable[[int], str]:
    """Texts by number, none near another."""
    return make_sentence
