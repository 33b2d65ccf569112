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
from breakhis_search.tracking.models import keras_requirements

CLASSIFIER = Path(__file__).with_name("classifier.py")


@dataclass(frozen=True)
class Packaged:
    """A packed model.

    Attributes:
        folder: The MLflow model folder.
        model_sha256: Digest of ``model.keras`` inside: what the sealed test will score.
    """

    folder: Path
    model_sha256: str


def package_classifier(
    model: Any,
    folder: Path,
    *,
    class_names: tuple[str, ...],
    height_px: int,
    width_px: int,
    metadata: Mapping[str, Any],
) -> Packaged:
    """Write the pyfunc folder: classifier code, preparation code and ``model.keras``.

    Args:
        model: Keras model, RGB float32 [n, h, w, 3] in 0–255 → logits [n, K].
        folder: Target, must not exist.
        class_names: The K classes.
        height_px: Height the model was trained at.
        width_px: Width the model was trained at.
        metadata: What a reader of the model folder should know.
    """
    import mlflow.pyfunc

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
            },
            signature=_signature(class_names),
            pip_requirements=[*keras_requirements(), *_own_requirements()],
            metadata=dict(metadata),
        )
        digest = hashlib.sha256(keras_file.read_bytes()).hexdigest()
    return Packaged(folder, digest)


def _write_code(workshop: Path) -> Path:
    """Copy the preparation code under a name that no installed package can have."""
    source = Path(images_module.__file__)
    name = f"breakhis_classifier_{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    package = workshop / name
    package.mkdir()
    (package / "__init__.py").write_text('"""Image preparation of a registered classifier."""\n')
    shutil.copyfile(source, package / "images.py")
    return package


def _own_requirements() -> list[str]:
    return [f"{n}=={version(n)}" for n in ("opencv-python-headless", "pandas")]


def _signature(class_names: tuple[str, ...]) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    answers = [ColSpec(DataType.double, f"probability_{c}") for c in class_names]
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "image")]),
        outputs=Schema([ColSpec(DataType.string, "label"), *answers]),
    )
