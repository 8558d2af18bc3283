"""Registered versions, loaded to predict: ours in this process, those that others made in one of their own.

The code of an adopted model may be anything, and what it unpickles, too. It runs by the interpreter that the settings
name, and is told nothing of this process's environment but where programs are and what the language is.
"""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graftwork.errors import Problem, RegistryError, shorten
from graftwork.evaluation.predictions import Predictor
from graftwork.models.serving.config import CLASSIFICATION, Input
from graftwork.models.serving.outputs import OUTPUTS, tell
from graftwork.phrases import duration
from graftwork.registry.versions import Adopted, ModelVersion, fetch_bundle
from graftwork.training.precision import resolve_precision
from graftwork.workspace import Workspace

TOLD = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
# Its folder is the store's: nothing may be added there, bytecode neither.
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONDONTWRITEBYTECODE": "1"}
AT_ONCE = 100_000  # a process is started for so many
TOLERANCE = 1e-3  # of a row's probabilities from a sum of 1


@dataclass(frozen=True)
class AdoptedModel:
    """A pyfunc model that others made. folder: of its files. python: an interpreter that has MLflow and what it needs.

    limit_s: seconds that its process may take for AT_ONCE rows, or fewer. It gives a table with a column p_<class> for
    each class, or a column `prediction` of numbers, as ours do. target: which of them, as in OUTPUTS.
    """

    name: str
    folder: Path
    python: Path
    columns: tuple[str, ...]
    classes: tuple[str, ...]
    limit_s: float
    modality: str = "text"
    target: str = CLASSIFICATION

    def probabilities(self, inputs: Sequence[Input], on_progress: Callable[[int], None] | None = None) -> np.ndarray:
        """(inputs, classes), by one process for all of them. Raises RegistryError if it fails or gives other things."""
        if not inputs:
            return np.empty((0, len(self.classes)))
        rows = [list(text) if isinstance(text, tuple) else [text] for text in inputs]
        with tempfile.TemporaryDirectory() as temporary:
            asked, answered = Path(temporary) / "rows.json", Path(temporary) / "predictions.json"
            table = {"dataframe_split": {"columns": list(self.columns), "data": rows}}
            asked.write_text(json.dumps(table), encoding="utf-8")
            self._run(asked, answered, self.limit_s * -(-len(rows) // AT_ONCE))
            found = json.loads(answered.read_text(encoding="utf-8"))["predictions"]
        probabilities = self._read(found, len(rows))
        if on_progress:
            on_progress(len(rows))
        return probabilities

    def _run(self, asked: Path, answered: Path, limit_s: float) -> None:
        """What `mlflow models predict` does with a file of rows, within so many seconds."""
        command = ["-m", "mlflow", "models", "predict", "--env-manager", "local", "-t", "json"]
        files = ["-m", str(self.folder.absolute()), "-i", str(asked), "-o", str(answered)]
        environment = {name: os.environ[name] for name in TOLD if name in os.environ}
        try:
            whole = [str(self.python), *command, *files]
            done = _run_to_its_end(whole, environment | QUIET, asked.parent, limit_s)
        except subprocess.TimeoutExpired as error:
            problem = f"it gave no answer within {duration(limit_s)}, and was ended"
            hint = "GRAFTWORK_ADOPTED_SECONDS says how long it may take"
            raise RegistryError(Problem(problem, self.name, hint)) from error
        except OSError as error:
            problem = f"its interpreter {self.python} can't be run: {error.strerror}"
            raise RegistryError(Problem(problem, self.name, "GRAFTWORK_ADOPTED_PYTHON names it")) from error
        if done.returncode < 0:
            problem = f"its process died of {signal.Signals(-done.returncode).name}"
            raise RegistryError(Problem(problem, self.name, "SIGKILL is most often a want of memory"))
        if done.returncode or not answered.exists():
            said = shorten(done.stderr.strip().rpartition("\n")[2], 300)
            hint = "GRAFTWORK_ADOPTED_PYTHON: the Python of an environment with what its requirements.txt lists"
            raise RegistryError(Problem(f"{self.python} could not run it: {said}", self.name, hint))

    def _read(self, found: Any, rows: int) -> np.ndarray:
        """Its answer as an array. Raises RegistryError if that is not probabilities, or a number, for each text."""
        is_number = self.target == "regression"
        names = OUTPUTS[self.target].names(self.classes)[0 if is_number else 1 :]
        if not isinstance(found, list) or len(found) != rows or not all(isinstance(row, dict) for row in found):
            raise RegistryError(Problem(f"it does not give a row for each of {rows} texts", self.name))
        missing = [name for name in names if name not in found[0]]
        if missing:
            problem = f"it gives {shorten(', '.join(found[0]))}; the data's classes need {', '.join(names)}"
            raise RegistryError(Problem(problem, self.name, "register a pyfunc around it that does"))
        try:
            probabilities = np.array([[row[name] for name in names] for row in found], dtype=np.float64)
        except (KeyError, TypeError, ValueError):
            probabilities = np.full((rows, len(names)), np.nan)
        is_sound, what, hint = self._judge(probabilities)
        if not is_sound.all():
            problem = f"what it gives for {int((~is_sound).sum()):,} of {rows:,} rows are no {what}"
            raise RegistryError(Problem(problem, self.name, hint))
        return probabilities

    def _judge(self, values: np.ndarray) -> tuple[Any, str, str]:
        """Which rows are what they ought to be, what that is, and how it is known."""
        if self.target == "regression":
            return np.isfinite(values).all(axis=1), "numbers", "they are finite"
        if self.target == "multi-label":
            return ((values >= 0) & (values <= 1)).all(axis=1), "probabilities", "each is between 0 and 1"
        is_sound = (values >= 0).all(axis=1) & (abs(values.sum(axis=1) - 1) < TOLERANCE)
        return is_sound, "probabilities", "those of a row are not negative, and have the sum 1"

    def answer(self, inputs: Sequence[Input], on_progress: Callable[[int], None] | None = None) -> dict[str, Any]:
        """What is told of the inputs, as columns by name."""
        return tell(self.target, self.classes, self.probabilities(inputs, on_progress), None)


def _run_to_its_end(
    command: Sequence[str], environment: dict[str, str], folder: Path, limit_s: float
) -> "subprocess.CompletedProcess[str]":
    """The command, finished. Raises subprocess.TimeoutExpired after its time, when it and all it started are killed."""
    with subprocess.Popen(  # noqa: S603 - MLflow's command, under an interpreter that the settings name
        command,
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            told, complained = process.communicate(timeout=limit_s)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, told, complained)


def adopted_model(workspace: Workspace, adopted: Adopted, folder: Path) -> AdoptedModel:
    """The model that others made, whose files are in the folder."""
    python = workspace.settings.adopted_python
    if python.parent != Path():  # a bare name is looked for in PATH; a link stays one, or it would lead out of its venv
        python = python.absolute()
    limit_s = workspace.settings.adopted_seconds
    facts = (adopted.columns, adopted.classes, limit_s)
    return AdoptedModel(adopted.origin, folder, python, *facts, target=adopted.target)


def open_version(workspace: Workspace, version: ModelVersion, precision: str = "float32") -> Predictor:
    """The model of a registered version.

    precision: float32, as it was judged; bfloat16; or auto, which is the latter where the processor multiplies it
    natively, and for a model that others made whatever it is made for. Raises RegistryError as `fetch_bundle`, and if
    bfloat16 is asked of such a model.
    """
    folder = fetch_bundle(workspace, version)
    if version.adopted is not None:
        if precision == "bfloat16":
            problem = f"it was made elsewhere and has a precision of its own: {precision} can't be asked of it"
            raise RegistryError(Problem(problem, f"{version.name}/{version.version}"))
        return adopted_model(workspace, version.adopted, folder)
    from graftwork.models.attention import quicken_attention
    from graftwork.models.serving.model import load

    served = load(folder, precision=resolve_precision(precision))
    quicken_attention(served.model.body)
    return served
