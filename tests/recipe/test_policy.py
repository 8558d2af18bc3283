import pytest

from graftwork.errors import RecipeError
from graftwork.fingerprint import digest
from graftwork.policy import Policy, load_policy

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"


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
        ("approval: {approvers: {}}\n", "at least 1 item"),
        ("approval: {approvers: {alice: ssh-rsa AAAAB3Nz}}\n", r"p\.yaml:1:24: .*ssh-ed25519 AAAA… name"),
        (f"approval: {{approvers: {{alice: {KEY}}}, valid: 1 week}}\n", "as in 10m"),
        ("approval: {approvers: {alice: ssh-ed25519 AAAA}}\n", "ssh-ed25519 AAAA… name"),
    ],
)
def test_a_wrong_policy_is_refused_with_its_place(tmp_path, text, message):
    """A policy that says something that can't be is an error before anything is judged."""
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_policy(path)


def test_approvals_count_only_where_they_are_asked_for(tmp_path):
    """Not asked for, they change no digest; asked for, all that is said of them does, but no key's comment."""
    texts = ["", "  valid: 1d\n", " # of the platform team\n"]
    policies = []
    for number, text in enumerate(texts):
        path = tmp_path / f"{number}.yaml"
        name = "alice@laptop" if number == 2 else ""
        path.write_text(f"level: 0.95\napproval:\n  approvers: {{alice: {KEY} {name}}}\n{text}")
        policies.append(load_policy(path))
    digests = [policy.digest for policy in policies]
    assert digests[0] == digests[2] != digests[1]
    assert Policy().digest == digest(Policy().model_dump(mode="json", exclude={"approval", "forgetting"}))
    assert Policy.model_validate(policies[1].model_dump(mode="json")) == policies[1]


def test_a_missing_policy_is_named(tmp_path):
    """No policy is no gate: an error, not a default."""
    with pytest.raises(RecipeError, match=r"none\.yaml: can't be read: No such file"):
        load_policy(tmp_path / "none.yaml")
