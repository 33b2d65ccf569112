"""The MLflow model itself (models-from-code): this file is copied into every registered version.

It must run where breakhis_search is not installed or is another version, so it imports nothing of
it: the image preparation it was trained with lies beside it, in a package of a name of its own.
"""

from __future__ import annotations

import base64
import importlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

BATCH_SIZE = 32


class BreastHistologyClassifier(PythonModel):  # type: ignore[misc]  # mlflow has no types
    """Answers a table with a column ``image`` with a label and the probability of every class.

    ``image`` holds the bytes of an image file, or their base64 (as over HTTP).
    """

    def load_context(self, context: Any) -> None:
        """Load the Keras model (safe mode) and the preparation code it was made with."""
        import keras

        config = context.model_config
        self._classes: list[str] = list(config["class_names"])
        self._size_px = (int(config["height_px"]), int(config["width_px"]))
        self._images = importlib.import_module(f"{config['package']}.images")
        self._model = keras.models.load_model(
            context.artifacts["model"], compile=False, safe_mode=True
        )

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return one row per image: ``label`` and ``probability_<class>``."""
        del context, params
        logits = np.concatenate([self._score(b) for b in _batches(list(model_input["image"]))])
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = shifted / shifted.sum(axis=1, keepdims=True)
        answer = pd.DataFrame(probabilities, columns=[f"probability_{c}" for c in self._classes])
        answer.insert(0, "label", [self._classes[i] for i in probabilities.argmax(axis=1)])
        return answer

    def _score(self, images: list[Any]) -> Any:
        """Logits of up to ``BATCH_SIZE`` images, float64 [n, K]."""
        prepared = [self._images.prepare(_bytes_of(image), *self._size_px) for image in images]
        batch = np.stack(prepared).astype(np.float32)
        return np.asarray(self._model.predict_on_batch(batch), dtype=np.float64)


def _batches(images: list[Any]) -> Iterable[list[Any]]:
    if not images:
        message = "no image was sent: the column 'image' is empty"
        raise ValueError(message)
    return (images[i : i + BATCH_SIZE] for i in range(0, len(images), BATCH_SIZE))


def _bytes_of(image: Any) -> bytes:
    """Bytes of an image given as bytes or as base64 text."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, str):
        try:
            return base64.b64decode(image, validate=True)
        except ValueError as error:
            message = "a text in column 'image' must be the base64 of an image file"
            raise ValueError(message) from error
    message = f"column 'image' must hold bytes or base64 text, received {type(image).__name__}"
    raise ValueError(message)


set_model(BreastHistologyClassifier())
