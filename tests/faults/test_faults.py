"""The points at which a process may be killed: each is one of the list, is in the code, and is killed at by a test."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import graftwork
from graftwork.faults import POINTS

Node = TypeVar("Node", bound=ast.AST)
TESTS = Path(__file__).parents[1]
# Each of these fails if a process that was to die at one of its points did not.
KILLERS = (
    "support/torture.py",
    "support/landing_torture.py",
    "e2e/test_kill.py",
    "registry/test_versions.py",
    "promotion/test_ledger.py",
    "monitoring/test_landing.py",
    "flows/test_cli.py",
)


def test_the_list_is_what_the_code_passes() -> None:
    """No point that nothing passes, and none that the list does not know."""
    calls = [node for path in Path(graftwork.__file__).parent.rglob("*.py") for node in _nodes(path, ast.Call)]
    passed = [call.args[0] for call in calls if getattr(call.func, "id", "") == "fault"]
    assert {point.value for point in passed if isinstance(point, ast.Constant)} == POINTS
    assert all(isinstance(point, ast.Constant) for point in passed)


def test_a_test_kills_at_each_point() -> None:
    """A point without a kill proves nothing."""
    texts = {str(node.value).partition(":")[0] for name in KILLERS for node in _nodes(TESTS / name, ast.Constant)}
    assert POINTS - texts == set()


def _nodes(path: Path, kind: type[Node]) -> Iterator[Node]:
    return (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, kind))
