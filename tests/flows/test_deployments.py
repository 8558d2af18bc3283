"""What is deployed elsewhere says the same as the Procfile and Prefect do."""

import json
import os
import re
import shlex
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any
from unittest.mock import patch

import prefect.server.api.collections_data.views as views
from prefect.utilities.templating import apply_values, find_placeholders
from projects import ROOT
from ruamel.yaml import YAML

from flows.postgres import DATABASES
from flows.stack import Ports, environment_of, read_procfile
from graftwork.settings import Settings

HERE = ROOT / "deployments"
TEMPLATE = json.loads((HERE / "kubernetes.json").read_text())
COMPOSE: Any = YAML(typ="safe").load((HERE / "compose.yaml").read_text())
# Variables of `graftwork up` that have no place in a container: where things lie on one machine, or who asks.
READ_BY = {
    "PREFECT_SERVER_": "prefect",
    "MLFLOW_TRACKING": "cpu",
    "MLFLOW_": "mlflow",
    "PREFECT_": "cpu",
    "GRAFTWORK_": "cpu",
}
LOCAL = {"PATH", "PREFECT_HOME", "GRAFTWORK_HOME", "PREFECT_CLI_PROMPT", "PREFECT_SERVER_DATABASE_TIMEOUT"}


def prefects_template() -> Any:
    """The job template of Prefect's Kubernetes workers, as Prefect ships it."""
    text = (resources.files(views) / "aggregate-worker-metadata.json").read_text(encoding="utf-8")
    return json.loads(text)["prefect-kubernetes"]["kubernetes"]["default_base_job_configuration"]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that holds no other, by where it is."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield path, value
        return
    for key, each in inner:
        yield from leaves(each, f"{path}/{key}")


def test_a_job_on_kubernetes_is_prefects_and_more() -> None:
    """Whatever Prefect's worker puts into a job is put into ours, by variables of the same names and types."""
    known, ours = prefects_template(), dict(leaves(TEMPLATE["job_configuration"]))
    assert {path: ours.get(path) for path, _ in leaves(known["job_configuration"])} == dict(
        leaves(known["job_configuration"])
    )
    types = {name: each.get("type") for name, each in TEMPLATE["variables"]["properties"].items()}
    for name, each in known["variables"]["properties"].items():
        assert types[name] == each.get("type"), name
    assert {place.name for place in find_placeholders(TEMPLATE["job_configuration"])} == types.keys()


def test_a_job_on_kubernetes_has_a_gpu_the_store_and_time_to_save() -> None:
    defaults = {name: each.get("default") for name, each in TEMPLATE["variables"]["properties"].items()}
    job = apply_values(TEMPLATE["job_configuration"], defaults | {"image": "graftwork@sha256:0"})
    pod = job["job_manifest"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert (job["job_manifest"]["spec"]["backoffLimit"], pod["restartPolicy"]) == (0, "Never")
    assert pod["terminationGracePeriodSeconds"] >= 20  # within which a training saves its state
    assert container["volumeMounts"][0]["mountPath"] in (HERE / "Dockerfile").read_text()
    assert container["workingDir"] == "/project"


def test_containers_run_what_the_procfile_says(tmp_path: Path) -> None:
    """Each line of it is a service with the same command, but for where things listen and lie."""
    for service in read_procfile(Settings(home=tmp_path), Ports()):
        command = re.sub(r"127\.0\.0\.1(?=:)", "mlflow", shlex.join(service.command)).replace("127.0.0.1", "0.0.0.0")
        command = command.replace(str(tmp_path / "mlartifacts"), "/srv/mlflow")
        command = re.sub(r"--name (\w+)-\S+", r"--name \1-1", command)
        assert shlex.join(shlex.split(COMPOSE["services"][service.name]["command"])) == command


def test_containers_are_told_what_graftwork_up_tells(tmp_path: Path) -> None:
    """Each server and worker its own, with the same value unless that is an address; three databases on PostgreSQL."""
    with patch.dict(os.environ, clear=True):
        told_by_up = environment_of(Settings(home=tmp_path), Ports(), {})
    for name, value in told_by_up.items():
        who = next((who for prefix, who in READ_BY.items() if name.startswith(prefix)), None)
        if who is not None and name not in LOCAL:
            told = COMPOSE["services"][who]["environment"][name]
            assert told == value or "://" in value, name
    made = re.findall(r"CREATE DATABASE (\w+);", COMPOSE["configs"]["databases"]["content"])
    assert set(made) == DATABASES.keys()
    for name, (variable, driver) in DATABASES.items():
        addresses = {service.get("environment", {}).get(variable) for service in COMPOSE["services"].values()} - {None}
        assert addresses == {f"{driver}://postgres:${{POSTGRES_PASSWORD:?}}@postgres/{name}"}


def test_the_image_holds_what_the_wheel_is_built_from() -> None:
    """A package that is not copied would be missing in the container alone."""
    copied = set(re.findall(r"^COPY (\w+) /src/\1$", (HERE / "Dockerfile").read_text(), re.MULTILINE))
    assert copied == {"graftwork", "tasks", "flows", "deployments"}
