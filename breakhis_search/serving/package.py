"""Packs a refitted Keras model as the MLflow pyfunc that is registered."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from breakhis_search.data import images as images_module
from breakhis_search.data import stain as stain_module
from breakhis_search.data.stain import StainReference
from breakhis_search.errors import RegistryError
from breakhis_search.evaluation.calibration import Calibration
from breakhis_search.evaluation.predictions import is_binary
from breakhis_search.evaluation.thresholds import Thresholds
from breakhis_search.serving.digest import folder_digest
from breakhis_search.tracking.models import keras_requirements

CLASSIFIER = Path(__file__).with_name("classifier.py")


@dataclass(frozen=True)
class Packaged:
    """A packed model.

    Attributes:
        folder: The MLflow model folder.
        model_sha256: Digest of ``model.keras`` inside: what the sealed test will score.
        sha256: Digest of the whole folder.
    """

    folder: Path
    model_sha256: str
    sha256: str


def package_classifier(
    model: Any,
    folder: Path,
    *,
    class_names: tuple[str, ...],
    height_px: int,
    width_px: int,
    metadata: Mapping[str, Any],
    stain: StainReference | None = None,
    calibration: Calibration | None = None,
    thresholds: Thresholds | None = None,
) -> Packaged:
    """Write the pyfunc folder: classifier code, preparation code and ``model.keras``.

    Args:
        model: Keras model, RGB float32 [n, h, w, 3] in 0–255 → logits [n, K].
        folder: Target, must not exist.
        class_names: The K classes.
        height_px: Height the model was trained at.
        width_px: Width the model was trained at.
        metadata: What a reader of the model folder should know; ``calibration`` and ``thresholds``
            (all rules, not only the one that decides) are added to it.
        stain: What the stains of every image are brought to, as they were in training; by default
            images are left as they are.
        calibration: How logits become probabilities; by default by softmax alone.
        thresholds: Of the calibrated probability of *malignant*, in the binary task; by default the
            class with the largest logit is the label.

    Raises:
        RegistryError: There are thresholds without a calibration, or without the binary task.
    """
    import mlflow.pyfunc

    answers = _answers(class_names, calibration, thresholds)
    with tempfile.TemporaryDirectory() as workshop:
        keras_file = Path(workshop) / "model.keras"
        model.save(keras_file)
        code = _write_code(Path(workshop))
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(CLASSIFIER),
            artifacts={"model": str(keras_file)},
            code_paths=[str(code)],
            model_config={
                "package": code.name,
                "class_names": list(class_names),
                "height_px": height_px,
                "width_px": width_px,
                "stain": None if stain is None else stain.to_dict(),
                **answers,
            },
            signature=_signature(class_names),
            pip_requirements=[*keras_requirements(), *_own_requirements()],
            metadata={**metadata, **_locked(calibration, thresholds)},
        )
        digest = hashlib.sha256(keras_file.read_bytes()).hexdigest()
    return Packaged(folder, digest, folder_digest(folder))


def _answers(
    class_names: tuple[str, ...], calibration: Calibration | None, thresholds: Thresholds | None
) -> dict[str, Any]:
    """What the classifier is told about probabilities and labels, as YAML values."""
    chosen = calibration or Calibration((0.0,) * len(class_names), 1.0)
    return {**chosen.to_dict(), "decision": _decision(class_names, calibration, thresholds)}


def _decision(
    class_names: tuple[str, ...], calibration: Calibration | None, thresholds: Thresholds | None
) -> dict[str, Any]:
    if thresholds is None:
        return {"rule": "argmax"}
    if calibration is None or not is_binary(class_names):
        raise RegistryError(
            "thresholds cannot be packed with this model",
            expected="the binary task, and the calibration they were locked after",
            received=f"{len(class_names)} classes, {'a' if calibration else 'no'} calibration",
        )
    return {
        "rule": thresholds.decision,
        "class": class_names[1],
        "image": thresholds.value("image"),
        "patient": thresholds.value("patient"),
    }


def _locked(calibration: Calibration | None, thresholds: Thresholds | None) -> dict[str, Any]:
    facts = {"calibration": calibration, "thresholds": thresholds}
    return {name: fact.to_dict() for name, fact in facts.items() if fact is not None}


def _write_code(workshop: Path) -> Path:
    """Copy the preparation code under a name that no installed package can have."""
    sources = [Path(str(module.__file__)) for module in (images_module, stain_module)]
    content = b"".join(source.read_bytes() for source in sources)
    package = workshop / f"breakhis_classifier_{hashlib.sha256(content).hexdigest()[:12]}"
    package.mkdir()
    (package / "__init__.py").write_text('"""Image preparation of a registered classifier."""\n')
    for source in sources:
        shutil.copyfile(source, package / source.name)
    return package


def _own_requirements() -> list[str]:
    return [f"{n}=={version(n)}" for n in ("opencv-python-headless", "pandas")]


def _signature(class_names: tuple[str, ...]) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    def doubles(prefix: str, *, required: bool = True) -> list[Any]:
        names = [f"{prefix}_{c}" for c in class_names]
        return [ColSpec(DataType.double, name, required=required) for name in names]

    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(DataType.binary, "image"),
                ColSpec(DataType.string, "patient", required=False),
            ]
        ),
        outputs=Schema(
            [
                ColSpec(DataType.string, "label"),
                *doubles("probability"),
                ColSpec(DataType.string, "patient_label", required=False),
                *doubles("patient_probability", required=False),
                *doubles("logit", required=False),
            ]
        ),
        params=ParamSchema([ParamSpec("logits", DataType.boolean, False)]),
    )
