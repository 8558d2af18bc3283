"""The face that a registered model shows to MLflow: inputs in, a table of what it says of each out.

This file travels with the model (MLflow's models-from-code) and runs where Graftwork is not installed, so it imports
nothing of it: the model itself is the bundle's own `serving`.
"""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
        with without_bytecode():
            self.model = import_code(folder).load(folder)

    def predict(
        self,
        context: Any,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """One row per input row, in order: label, or labels, and p_<class> for each class; or a number, or a text.

        Where words have tags, lists: the words' tags, their scores, and the entities that they are.

        model_input: a DataFrame with the model's columns, or a list of texts, pairs of texts, or encoded files.
        """
        rows = rows_of(model_input, self.model.columns)
        if hasattr(self.model, "answer"):
            return pd.DataFrame(self.model.answer(rows))
        # The code of earlier bundles tells no more than values.
        values = self.model.probabilities(rows).reshape(len(rows), len(self.model.classes))
        if hasattr(self.model, "table"):
            return pd.DataFrame(self.model.table(values))
        # The code of an earlier bundle tells one class, and leaves that to us.
        table = pd.DataFrame(values, columns=[f"p_{name}" for name in self.model.classes])
        table.insert(0, "label", [self.model.classes[index] for index in values.argmax(axis=1)])
        return table


def rows_of(model_input: Any, columns: tuple[str, ...]) -> list[Any]:
    """The texts, pairs of texts, pictures or sounds that the model is asked about."""
    if not isinstance(model_input, pd.DataFrame):
        return list(model_input)
    missing = [column for column in columns if column not in model_input]
    if missing:
        raise ValueError(f"missing columns {missing}: expected {list(columns)}, found {list(model_input)}")
    if len(columns) == 1:
        return model_input[columns[0]].tolist()
    return list(model_input[list(columns)].itertuples(index=False, name=None))


def import_code(bundle: Path) -> ModuleType:
    """What loads a bundle: its folder `serving`, or the one file `serving.py` that earlier bundles carry.

    Its name is its own, as others may be loaded beside it.
    """
    folder = bundle / "serving"
    name = f"{MODULE}_{hashlib.sha256(str(bundle.resolve()).encode()).hexdigest()[:16]}"
    path, places = (folder / "__init__.py", [str(folder)]) if folder.is_dir() else (bundle / "serving.py", None)
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=places)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return importlib.import_module(f"{name}.model") if places else module


@contextmanager
def without_bytecode() -> Iterator[None]:
    """Nothing is written beside the code that is imported: its folder's digest is checked later."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


mlflow.models.set_model(BundleModel())
