"""The wheel: what is in it, and that it alone runs the demo's recipe."""

import json
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from projects import RECIPE, ROOT, SMALL_STAGES, make_project
from servers import call, environment_for

pytestmark = pytest.mark.install

DATA = {
    "graftwork/migrations/script.py.mako",
    "graftwork/report/templates/model_card.md.j2",
    "graftwork/report/templates/report.html.j2",
    "graftwork/report/templates/style.css",
    "graftwork/templates/policy.yaml.j2",
    "graftwork/templates/recipe.yaml.j2",
    "deployments/Dockerfile",
    "deployments/Procfile",
    "deployments/automations.yaml",
    "deployments/compose.yaml",
    "deployments/kubernetes.json",
    "deployments/prefect.yaml",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    """Every module of the three packages, their templates and migrations, the deployments; no tests, no examples."""
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if not re.match(r"graftwork-[^/]+\.dist-info/", name)}
    packages = ("graftwork", "tasks", "flows")
    modules = {path.relative_to(ROOT).as_posix() for package in packages for path in (ROOT / package).rglob("*.py")}
    assert found == modules | DATA


def test_wheel_alone_runs_the_demo_recipe(wheel: Path, make_environment: Callable[..., Path], tmp_path: Path) -> None:
    """In a fresh environment and a folder that is no checkout, the recipe ends with a champion and a report."""
    programs = make_environment(f"{wheel}[demo]")
    project = make_project(tmp_path)
    environment = environment_for(programs)
    where = call("python -c 'import graftwork; print(graftwork.__file__)'", project.folder, environment).stdout
    assert Path(where).is_relative_to(programs.parent)
    command = shlex.join(["graftwork", "run", RECIPE, *SMALL_STAGES, "--json"])
    summary = json.loads(call(command, project.folder, environment).stdout)
    assert (summary["verdict"]["outcome"], summary["version"], summary["alias"]) == ("promote", 1, "champion")
    assert Path(summary["report"]).is_file()
    assert "version" in call("graftwork models", project.folder, environment).stdout
