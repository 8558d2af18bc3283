"""A small valid recipe, as a user would write it."""

from pathlib import Path

import pytest

TEXT = """\
name: reviews
problem_type: text-classification
data:
  sources:
    - {name: movies, path: data/movies.tsv, header: [id, rating, text], group: {from: id, before: "_"}}
  label: {from: rating, threshold: 0, classes: [negative, positive]}
input: {text: text}
checkpoint: {source: "pkg://some_package/model", licences: [apache-2.0]}
stages:
  - {name: top, train: [head, "top:2"], epochs: 2, learning_rate: 2e-4}
  - {name: full, train: all, epochs: 1, learning_rate: 2e-5}
policy: policies/standard.yaml
"""


@pytest.fixture(scope="session")
def text() -> str:
    """The recipe's text."""
    return TEXT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project folder with the recipe in it."""
    (tmp_path / ".graftwork").mkdir()
    (tmp_path / "recipe.yaml").write_text(TEXT)
    return tmp_path
