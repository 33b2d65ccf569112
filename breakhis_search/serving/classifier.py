"""The MLflow model itself (models-from-code): this file is copied into every registered version.

It must run where breakhis_search is not installed or is another version, so it imports nothing of
it: the image preparation it was trained with lies beside it, in a package of a name of its own.
"""

from __future__ import annotations

import base64
import importlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import INVALID_PARAMETER_VALUE, MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

BATCH_SIZE = 32


class UnusableInputError(MlflowException, ValueError):  # type: ignore[misc]  # mlflow has no types
    """What was sent cannot be scored; over HTTP only errors of MLflow's kind keep their words."""

    def __init__(self, message: str) -> None:
        MlflowException.__init__(self, message, error_code=INVALID_PARAMETER_VALUE)


class BreastHistologyClassifier(PythonModel):  # type: ignore[misc]  # mlflow has no types
    """Answers a table of images with a label and the probability of every class.

    Columns asked for: ``image`` and, if wanted, ``patient`` (text, for all rows or none). An image
    is the bytes of a file, or their base64 as text, as over HTTP; in Python also a ``pathlib.Path``
    (not a text: nobody may have a server read its own files) or pixels, uint8 [height, width, 3]
    RGB of any size. What is no 8-bit RGB image is an error that names its row.

    Columns answered, one row per image:

    * ``probability_<class>``: calibrated, softmax((logits + prior correction) / temperature). They
      follow the share that each class has among the images of the development patients.
    * ``label``: two classes are told apart by a threshold of the calibrated probability that was
      locked on out-of-fold predictions (``decision`` in the model's configuration names it), so
      that *malignant* may stand beside a probability below 0.5. Of more classes it is the one with
      the largest uncalibrated logit: the decision that the model was scored and selected by
      (balanced accuracy, where every class counts equally). The most probable class may be another,
      more common one.
    * ``patient_label`` and ``patient_probability_<class>``, if ``patient`` was given: the mean of
      the calibrated probabilities over the patient's images in this request, and the label by the
      threshold that was locked for such means (of more classes: by the mean uncalibrated
      probabilities).
    * ``logit_<class>``, with the parameter ``logits=True``: what the network itself says, to
      evaluate the model by.
    """

    def load_context(self, context: Any) -> None:
        """Load the Keras model (safe mode) and the preparation code it was made with."""
        import keras

        config = context.model_config
        self.classes: list[str] = list(config["class_names"])
        self._size_px = (int(config["height_px"]), int(config["width_px"]))
        self._correction = np.array(config["prior_correction"], dtype=np.float64)
        self._temperature = float(config["temperature"])
        self._decision: dict[str, Any] = dict(config["decision"])
        self._images = importlib.import_module(f"{config['package']}.images")
        self._stain: Any = None
        if config["stain"] is not None:
            self._stain = importlib.import_module(f"{config['package']}.stain")
            self._reference = self._stain.StainReference.from_dict(config["stain"])
        self.network = keras.models.load_model(
            context.artifacts["model"], compile=False, safe_mode=True
        )

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return one row per image; the class describes the columns."""
        del context
        patients = _patients_of(model_input)
        prepared = self._prepared(list(model_input["image"]))
        logits = np.concatenate([self._score(batch) for batch in prepared])
        calibrated = _softmax((logits + self._correction) / self._temperature)
        parts = [self._answer("", calibrated, self._decide("image", calibrated, logits))]
        if patients is not None:
            means = _mean_by(patients, calibrated)
            decided = self._decide("patient", means, _mean_by(patients, _softmax(logits)))
            parts.append(self._answer("patient_", means, decided))
        if params and params.get("logits"):
            parts.append(pd.DataFrame(logits, columns=[f"logit_{c}" for c in self.classes]))
        return pd.concat(parts, axis=1)

    def _prepared(self, images: list[Any]) -> Iterator[Any]:
        """Yield batches, float32 [n, height, width, 3]; the next one is decoded meanwhile."""
        if not images:
            message = "no image was sent: the column 'image' is empty"
            raise UnusableInputError(message)
        rows = list(enumerate(images))
        parts = [rows[i : i + BATCH_SIZE] for i in range(0, len(rows), BATCH_SIZE)]
        if len(parts) == 1:  # no threads for a few images: they would only cost time
            yield _stacked(map(self._prepare_row, parts[0]))
            return
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # OpenCV releases the interpreter lock
            coming = pool.map(self._prepare_row, parts[0])
            for part in parts[1:]:
                ready = _stacked(coming)
                coming = pool.map(self._prepare_row, part)
                yield ready
            yield _stacked(coming)

    def _prepare_row(self, numbered: tuple[int, Any]) -> Any:
        row, image = numbered
        try:
            return self.prepare(image)
        except (ValueError, OSError) as error:
            message = f"row {row} of column 'image': {error}"
            raise UnusableInputError(message) from error

    def _score(self, batch: Any) -> Any:
        """Logits of up to ``BATCH_SIZE`` images, float64 [n, K]."""
        return np.asarray(self.network.predict_on_batch(batch), dtype=np.float64)

    def prepare(self, image: Any) -> Any:
        """Pixels of an image as the model was trained on them, [height, width, 3] in 0-255.

        Raises:
            ValueError: It is no 8-bit RGB image.
            OSError: A path cannot be read.
        """
        pixels = self._images.resize_rgb(self._pixels_of(image), *self._size_px)
        return self._stain.normalize_stain(pixels, self._reference) if self._stain else pixels

    def _pixels_of(self, image: Any) -> Any:
        if isinstance(image, np.ndarray):
            return image  # its type and shape are checked where it is resized
        if isinstance(image, os.PathLike):
            return self._images.read_rgb(image)
        return self._images.decode_rgb(_bytes_of(image))

    def _decide(self, level: str, calibrated: Any, uncalibrated: Any) -> Any:
        """Class index of every row, int [n], at level ``image`` or ``patient``."""
        if self._decision["rule"] == "argmax":
            return uncalibrated.argmax(axis=1)
        positive = self.classes.index(self._decision["class"])
        is_positive = calibrated[:, positive] >= float(self._decision[level])
        return np.where(is_positive, positive, 1 - positive)

    def _answer(self, prefix: str, probabilities: Any, decided: Any) -> pd.DataFrame:
        columns = [f"{prefix}probability_{c}" for c in self.classes]
        answer = pd.DataFrame(probabilities, columns=columns)
        answer.insert(0, f"{prefix}label", [self.classes[i] for i in decided])
        return answer


def _stacked(images: Iterable[Any]) -> Any:
    """A batch for the network, float32 [n, height, width, 3]."""
    return np.stack(list(images)).astype(np.float32)


def _softmax(logits: Any) -> Any:
    """Probabilities, float64 [n, K]."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _patients_of(model_input: pd.DataFrame) -> Any:
    """Index of the patient of each row, int [n], or ``None`` where none is named."""
    if "patient" not in model_input or model_input["patient"].isna().all():
        return None
    if model_input["patient"].isna().any():
        message = "the column 'patient' must name the patient of every image, or be left out"
        raise UnusableInputError(message)
    return pd.factorize(model_input["patient"])[0]


def _mean_by(patients: Any, values: Any) -> Any:
    """Mean over the rows of a patient, for every row of the patient, float64 [n, K]."""
    sums = np.zeros((patients.max() + 1, values.shape[1]))
    np.add.at(sums, patients, values)
    return (sums / np.bincount(patients)[:, None])[patients]


def _bytes_of(image: Any) -> bytes:
    """Bytes of an image given as bytes or as base64 text."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, str):
        try:
            return base64.b64decode(image, validate=True)
        except ValueError as error:
            message = "a text must be the base64 of an image file (a path: give a pathlib.Path)"
            raise ValueError(message) from error
    message = (
        "expected bytes, base64 text, a pathlib.Path or pixels (uint8 [height, width, 3]), received"
        f" {type(image).__name__}"
    )
    raise ValueError(message)


set_model(BreastHistologyClassifier())
