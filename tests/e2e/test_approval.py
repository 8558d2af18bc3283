"""A policy that wants a person's word, from the run to the champion, as its people see it."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from projects import RECIPE, make_project

pytestmark = pytest.mark.e2e

MODEL = "review-sentiment"


def make_key(path: Path) -> str:
    """A private key file, as ssh-keygen makes one; the line of its public half."""
    key = Ed25519PrivateKey.generate()
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(*form))
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return public.decode()


def test_a_candidate_waits_until_somebody_signs(tmp_path: Path) -> None:
    """It is challenger after the run; who wrote the recipe may not approve it, who may makes it champion."""
    project = make_project(tmp_path / "project")
    keys = {name: tmp_path / name for name in ("alice", "bob")}
    policy = project.folder / "policies/standard.yaml"
    approvers = "".join(f"    {name}: {make_key(path)}\n" for name, path in keys.items())
    policy.write_text(f"{policy.read_text()}\napproval:\n  approvers:\n{approvers}")
    recipe = project.folder / RECIPE
    recipe.write_text(f"author: bob\n{recipe.read_text()}")

    summary, told = project.run_and_log()
    assert (summary["verdict"]["outcome"], summary["alias"]) == ("promote", "challenger")
    assert "It waits for an approval until" in told
    (waiting,) = project.json("approvals", MODEL)
    assert waiting["state"] == "open"
    assert project.json("history", MODEL) == []

    def decide(what: str, name: str, *more: str, code: int = 0) -> str:
        words = ("--reason", "checked on tickets", "--approver", name, "--key", str(keys[name]))
        done = project.call(what, MODEL, "1", *words, *more, code=code)
        return done.stdout + done.stderr

    assert "bob wrote the recipe" in decide("approve", "bob", code=6)
    digest = waiting["request"]["nomination"]["bundle_digest"]
    assert digest == summary["bundle"]
    signed = json.loads(decide("reject", "alice", "--request", "0" * 64))
    assert (signed["request"], signed["outcome"]) == ("0" * 64, "reject")
    assert "version 1 is the champion" in decide("approve", "alice")
    (entry,) = project.json("history", MODEL)
    assert (entry["actor"], entry["rule"], entry["to_version"]) == ("alice (signed)", "baselines", 1)
    assert [each["state"] for each in project.json("approvals", MODEL)] == ["approved"]
    assert project.json("audit")["problems"] == []
    assert project.run()["alias"] == "champion"
