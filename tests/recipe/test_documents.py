import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from graftwork.documents import MAX_BYTES, MAX_DEPTH, override_document, parse_document, read_document
from graftwork.errors import RecipeError

BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "doc:3:1", r"duplicate key 'a' \(first at doc:1:1\)"),
        (BOMB, "doc:2:8", r"the alias \*a is not allowed"),
        ("a: 1\nb: !!python/object:os.system x\n", "doc:2:4", "the tag .* is not allowed"),
        ("a: " + "[" * 200 + "]" * 200, f"doc:1:{MAX_DEPTH + 3}", "nested deeper than 16 levels"),
        ("a: [1, 2\nb: 3\n", "doc:2:2", "not YAML: expected"),
        ("a: 1\n---\nb: 2\n", "doc:2:1", "not YAML"),
        ("[a]: 1\n", "doc:1:1", "a key must be a single word"),
        ("a: 1\nb: \x00\n", "doc:2:4", "not YAML: the character U\\+0000 is not allowed"),
    ],
)
def test_a_trick_is_refused_where_it_stands(text, place, message):
    """What would blow up, run or be read two ways is an error with line and column."""
    with pytest.raises(RecipeError, match=f"^{place}: {message}"):
        parse_document(text, "doc")


def test_a_huge_document_is_refused_before_it_is_parsed(tmp_path):
    """A document no hand wrote is not even decoded."""
    path = tmp_path / "big.yaml"
    path.write_text("a: " + "x" * MAX_BYTES)
    with pytest.raises(RecipeError, match=r"big\.yaml:1:1: more than 256 KiB"):
        read_document(path)


def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path):
    """A wrong encoding is told with its line, not guessed."""
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(RecipeError, match=r"latin\.yaml:2: byte 11 is not UTF-8"):
        read_document(path)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("1e-3", 0.001), ("2", 2), ("-7", -7), ("007", "007"), ("0x1f", "0x1f"), ("9" * 5000, "9" * 5000),
     ("true", True), ("yes", "yes"), ("null", None), ("2024-01-01", "2024-01-01"), ("'3'", "3"), ("1.5", 1.5),
     ("._", "._"), ("-.inf", float("-inf"))],
)  # fmt: skip
def test_a_scalar_means_what_it_looks_like(written, meant):
    """1e-3 is a number, 007 is an id, yes is a word; a number of 5000 digits costs nothing."""
    found = parse_document(f"a: {written}", "doc").data["a"]
    assert found == meant
    assert type(found) is type(meant)


@given(st.text(st.sampled_from("ab01.:-+[]{},#!&*%\"'|>\n \t\x07eE_~<=?"), max_size=30))
def test_any_text_is_a_document_or_a_recipe_error(text):
    """No text, however odd, ends in another error than one with a place."""
    try:
        parse_document(text, "doc")
    except RecipeError as error:
        assert all(re.match(r"doc:\d+:\d+$", problem.where) for problem in error.problems)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.floats(allow_nan=False)
    | st.text("abc xyz", max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcxyz", min_size=1), inner, max_size=3),
    max_leaves=12,
)


@given(value=plain)
def test_what_yaml_writes_is_read_back(value):
    """Any plain value survives the way through YAML text, and every key of it has a place."""
    from io import StringIO

    stream = StringIO()
    YAML(typ="safe", pure=True).dump({"a": value}, stream)
    document = parse_document(stream.getvalue(), "doc")
    assert document.data == {"a": value}
    assert all(re.fullmatch(r"doc:\d+:\d+", place) for place in document.places.values())


def test_overrides_reach_into_lists_and_new_keys():
    """An override replaces an item of a list, adds a key to a mapping, and is YAML itself."""
    document = parse_document("stages: [{epochs: 1}, {epochs: 1}]\ntrain:\n", "doc")
    changed = override_document(document, ["stages.1.epochs=3", "train.seed=9", "names=[a, b]", "x.y.z=1e-3"])
    assert changed.data == {
        "stages": [{"epochs": 1}, {"epochs": 3}],
        "train": {"seed": 9},
        "names": ["a", "b"],
        "x": {"y": {"z": 0.001}},
    }
    assert changed.place(("stages", 1, "epochs")) == "--set stages.1.epochs"
    assert document.data == {"stages": [{"epochs": 1}, {"epochs": 1}], "train": None}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("stages.5.epochs=3", r"--set stages\.5\.epochs: stages has no item '5' \(it holds 1, from 0 on\)"),
        ("stages.one.epochs=3", "stages has no item 'one'"),
        ("name.first=x", "name is 'n' and has no key 'first'"),
        ("stages", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("name=*x", "--set name:1:1: the alias"),
        ("name=[1", "--set name:1:3: not YAML"),
    ],
)
def test_an_override_that_misses_is_named(assignment, message):
    """An override that reaches nothing is an error that shows it, and changes nothing."""
    document = parse_document("name: n\nstages: [{epochs: 1}]\n", "doc")
    with pytest.raises(RecipeError, match=message):
        override_document(document, [assignment])
