"""A serving bundle as a model folder that MLflow can load: its code and its safetensors, no pickle, no path of ours."""

import importlib.metadata
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.models.serving.config import TOKENS, ServingConfig
from graftwork.models.serving.outputs import OUTPUTS
from graftwork.training.bundle import BUNDLE_RECORD, MODEL, ServingBundle

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature

SERVING_MODEL = Path(__file__).with_name("serving_model.py")
REQUIRED = ("mlflow", "numpy", "pandas", "safetensors", "torch", "transformers")
READERS = {"text": (), "image": ("pillow",), "audio": ("soundfile", "soxr")}
EXAMPLE = "Write the text here."


def save_model(stored: Path, bundle: ServingBundle, folder: Path, mlflow_run: str, model_id: str) -> None:
    """Write the bundle, stored in the folder `stored`, to a new folder as an MLflow pyfunc model."""
    import mlflow.pyfunc
    from mlflow.models import Model

    config = ServingConfig.read(stored / MODEL)
    model = Model(run_id=mlflow_run, model_id=model_id, model_uuid=model_id)
    mlflow.pyfunc.save_model(
        path=str(folder),
        mlflow_model=model,
        python_model=str(SERVING_MODEL),
        artifacts={"bundle": str((stored / MODEL).resolve())},
        signature=_signature(config),
        input_example=_example(bundle.columns) if config.modality == "text" else None,
        pip_requirements=requirements(config.modality),
    )
    shutil.copyfile(stored / BUNDLE_RECORD, folder / BUNDLE_RECORD)
    # MLflow notes where it copied from; that is a path of this machine and nobody else's business.
    flavor = model.flavors["python_function"]
    flavor["model_code_path"] = SERVING_MODEL.name
    flavor["artifacts"]["bundle"]["uri"] = flavor["artifacts"]["bundle"]["path"]
    model.save(str(folder / "MLmodel"))


def requirements(modality: str = "text") -> list[str]:
    """What a registered model needs, pinned to what judged it; a build suffix such as +cpu is no part of a release."""
    names = [*REQUIRED, *READERS[modality]]
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names]


def _signature(config: ServingConfig) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    inputs = [ColSpec("string" if config.modality == "text" else "binary", column) for column in config.columns]
    told = OUTPUTS[config.target].names(config.classes)
    texts = {"label", "labels", "written"}
    outputs = [ColSpec("string" if place == 0 and name in texts else "double", name) for place, name in enumerate(told)]
    if config.target == TOKENS:
        outputs = [ColSpec(kind, name) for kind, name in zip(_of_words(), told, strict=True)]
    return ModelSignature(Schema(inputs), Schema(outputs))


def _of_words() -> "list[Any]":
    """The types of words' tags, of their scores, and of entities."""
    from mlflow.types import DataType
    from mlflow.types.schema import Array, Object, Property

    facts = {"type": DataType.string, "start": DataType.long, "end": DataType.long, "score": DataType.double}
    entity = Object([Property(name, kind) for name, kind in facts.items()])
    return [Array(DataType.string), Array(DataType.double), Array(entity)]


def _example(columns: Sequence[str]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame({column: [EXAMPLE] for column in columns})
