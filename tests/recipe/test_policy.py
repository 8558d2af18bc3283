import pytest

from graftwork.errors import RecipeError
from graftwork.policy import load_policy


def test_the_digest_follows_the_rules_not_the_writing(tmp_path):
    """Comments and order keep a policy's digest, a looser margin changes it."""
    texts = ["level: 0.95\nmargin: 0.01\n", "# strict\nmargin: 0.01\nlevel: 0.95\n", "level: 0.95\nmargin: 0.02\n"]
    digests = []
    for number, text in enumerate(texts):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        digests.append(load_policy(path).digest)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("level: 1.0\n", r"p\.yaml:1:1: level: .* less than 1, found 1\.0"),
        ("margin: -0.1\n", "greater than or equal to 0"),
        ("metric: acc\n", "found 'acc'"),
        (
            "guards:\n  - {metric: brier, max_dorp: 1}\n",
            r"p\.yaml:2:21: unknown key guards\.0\.max_dorp \(did you mean",
        ),
        ("baselines: [svm]\n", "found 'svm'"),
        ("", "should be a valid dictionary"),
    ],
)
def test_a_wrong_policy_is_refused_with_its_place(tmp_path, text, message):
    """A policy that says something that can't be is an error before anything is judged."""
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_policy(path)


def test_a_missing_policy_is_named(tmp_path):
    """No policy is no gate: an error, not a default."""
    with pytest.raises(RecipeError, match=r"none\.yaml: can't be read: No such file"):
        load_policy(tmp_path / "none.yaml")
