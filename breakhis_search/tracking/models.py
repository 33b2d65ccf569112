"""A Keras model as an MLflow model folder: signature, input example, pinned requirements."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

KERAS_FILE = "data/model.keras"
"""Where MLflow puts a Keras model in its folder."""


def save_keras_model(
    model: Any, folder: Path, *, example: npt.NDArray[np.uint8], class_names: tuple[str, ...]
) -> None:
    """Write a model so that ``mlflow.keras.load_model`` loads it and answers equal logits.

    Args:
        model: A plain Keras graph, RGB float32 [n, h, w, 3] in 0–255 → logits float32 [n, K].
        folder: Target, must not exist.
        example: One or more images, uint8 [n, h, w, 3], kept as the input example.
        class_names: The K classes, in the order of the logits.
    """
    import mlflow.keras
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    height_px, width_px = example.shape[1:3]
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("float32"), (-1, height_px, width_px, 3))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, len(class_names)))]),
    )
    # Without explicit requirements MLflow imports TensorFlow once more to infer them: 15 s a model.
    mlflow.keras.save_model(
        model,
        str(folder),
        signature=signature,
        pip_requirements=keras_requirements(),
        metadata={"class_names": list(class_names)},
    )
    # `input_example=` fails in save_model, which looks for a folder that it has not made yet.
    _add_input_example(Model.load(str(folder)), folder, example)


def keras_requirements() -> list[str]:
    """Return the pinned requirements of a saved Keras model, with the backend it was made with."""
    import keras

    packages = ("mlflow", "keras", keras.backend.backend(), "numpy")
    return [f"{name}=={version(name)}" for name in packages]


def _add_input_example(meta: Any, folder: Path, example: npt.NDArray[np.uint8]) -> None:
    values = example.tolist()
    (folder / "input_example.json").write_text(json.dumps(values))
    (folder / "serving_input_example.json").write_text(json.dumps({"inputs": values}))
    meta.saved_input_example_info = {
        "artifact_path": "input_example.json",
        "type": "ndarray",
        "serving_input_path": "serving_input_example.json",
    }
    meta.save(str(folder / "MLmodel"))
