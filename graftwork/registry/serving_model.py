"""The face that a registered model shows to MLflow: texts in, a table with a label and a probability per class out.

This file travels with the model (MLflow's models-from-code) and runs where Graftwork is not installed, so it imports
nothing of it: the model itself is the bundle's own `serving.py`.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow.models
import mlflow.pyfunc
import pandas as pd

MODULE = "graftwork_bundle_serving"


class BundleModel(mlflow.pyfunc.PythonModel):
    """A serving bundle behind MLflow's `predict`."""

    def load_context(self, context: Any) -> None:
        """Load the bundle that was logged as the artifact `bundle`."""
        folder = Path(context.artifacts["bundle"])
        self.model = import_file(folder / "serving.py").load(folder)

    def predict(
        self,
        context: Any,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """One row per input row, in order: label, p_<class> for each class.

        model_input: a DataFrame with the model's text columns, or a list of texts (of pairs, if it reads two columns).
        """
        texts = rows_of(model_input, self.model.columns)
        probabilities = self.model.probabilities(texts).reshape(len(texts), len(self.model.classes))
        table = pd.DataFrame(probabilities, columns=[f"p_{name}" for name in self.model.classes])
        table.insert(0, "label", [self.model.classes[index] for index in probabilities.argmax(axis=1)])
        return table


def rows_of(model_input: Any, columns: tuple[str, ...]) -> list[Any]:
    """The texts, or the pairs of texts, that the model is asked about."""
    if not isinstance(model_input, pd.DataFrame):
        return list(model_input)
    missing = [column for column in columns if column not in model_input]
    if missing:
        raise ValueError(f"missing text columns {missing}: expected {list(columns)}, found {list(model_input)}")
    if len(columns) == 1:
        return model_input[columns[0]].tolist()
    return list(model_input[list(columns)].itertuples(index=False, name=None))


def import_file(path: Path) -> ModuleType:
    """The module in that file; no bytecode is written beside it, since the folder's digest is checked later."""
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module  # dataclasses look their module up by name
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


mlflow.models.set_model(BundleModel())
