"""A registered model where Graftwork is not: an environment with nothing but the model's own requirements."""

import json
import pickletools
import shlex
import shutil
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from projects import make_project
from servers import call, environment_for, free_port, serving

pytestmark = pytest.mark.install

TEXTS = [
    "A warm, clever film.",
    "Two hours of my life that I want back.",
    "NA",
    "?",
    "Ein Film über nichts – großartig!",
]
COLUMNS = ["p_negative", "p_positive"]
SCRIPT = """
import importlib.util, sys
import mlflow.pyfunc, pandas as pd
assert importlib.util.find_spec("graftwork") is None
model = mlflow.pyfunc.load_model(sys.argv[1])
print(model.predict(pd.DataFrame({"text": sys.argv[2:]})).to_json(orient="records"))
"""


@dataclass(frozen=True)
class Saved:
    """A copy of what the registry holds, and what `graftwork predict` says of TEXTS."""

    folder: Path
    predicted: pd.DataFrame


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The champion of a small run."""
    project = make_project(tmp_path_factory.mktemp("project"))
    project.run()
    (card,) = (project.home / "mlartifacts").rglob("MLmodel")
    folder = tmp_path_factory.mktemp("elsewhere") / "model"
    shutil.copytree(card.parent, folder)
    texts, output = project.folder / "texts.jsonl", project.folder / "predicted.parquet"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    project.call("predict", "review-sentiment@champion", str(texts), "-o", str(output))
    return Saved(folder, pd.read_parquet(output))


@pytest.fixture(scope="module")
def environment(saved: Saved, make_environment: Callable[..., Path]) -> dict[str, str]:
    """That of a process which has the model's own requirements, and refuses pickles."""
    programs = make_environment("--requirement", str(saved.folder / "requirements.txt"))
    return environment_for(programs, MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false")


def test_no_file_of_the_model_is_a_pickle(saved: Saved) -> None:
    """Weights are safetensors, everything else is text that no unpickler would take."""
    files = [path for path in saved.folder.rglob("*") if path.is_file()]
    assert [path.name for path in files if path.suffix == ".safetensors"] == ["model.safetensors"]
    for path in files:
        if path.suffix != ".safetensors":
            assert path.read_text(encoding="utf-8")
            assert not zipfile.is_zipfile(path)
            with pytest.raises(ValueError):
                list(pickletools.genops(path.read_bytes()))


def test_model_predicts_with_its_own_requirements_alone(saved: Saved, environment: dict[str, str]) -> None:
    """Loaded by MLflow where Graftwork can't be imported, it gives the probabilities that `graftwork predict` gives."""
    command = shlex.join(["python", "-c", SCRIPT, str(saved.folder), *TEXTS])
    told = call(command, saved.folder.parent, environment)
    expect_the_same(json.loads(told.stdout.splitlines()[-1]), saved.predicted)


def test_model_is_served_with_its_own_requirements_alone(saved: Saved, environment: dict[str, str]) -> None:
    """`mlflow models serve` answers each text with its label and a probability for each class."""
    server = f"http://127.0.0.1:{(port := free_port())}"
    command = f"mlflow models serve --env-manager local --host 127.0.0.1 --port {port} --model-uri {saved.folder}"
    body = json.dumps({"dataframe_split": {"columns": ["text"], "data": [[text] for text in TEXTS]}}).encode()
    headers = {"Content-Type": "application/json"}
    with serving(command, saved.folder.parent / "serve", environment, f"{server}/ping"):
        request = urllib.request.Request(f"{server}/invocations", body, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            expect_the_same(json.load(answer)["predictions"], saved.predicted)


def expect_the_same(rows: list[dict], predicted: pd.DataFrame) -> None:
    """The rows hold the labels and probabilities of the table."""
    table = pd.DataFrame(rows)
    assert list(table) == ["label", *COLUMNS]
    assert table["label"].tolist() == predicted["label"].tolist()
    np.testing.assert_allclose(table[COLUMNS], predicted[COLUMNS], atol=1e-6)
    np.testing.assert_allclose(table[COLUMNS].sum(axis=1), 1, atol=1e-6)
