"""Loads registered models, after checking that they are what was registered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from breakhis_search.errors import RegistryError
from breakhis_search.serving.digest import folder_digest
from breakhis_search.tracking import keys
from breakhis_search.training.devices import import_keras


def load_verified(version: Any) -> Any:
    """Return the pyfunc of a version, after checking that it is the artifact that was registered.

    Raises:
        RegistryError: It is not, or cannot be loaded.
    """
    import mlflow.pyfunc

    import_keras()  # without the start-up messages of its backend
    with _loading(version) as folder:
        return mlflow.pyfunc.load_model(str(folder))


def verify(version: Any) -> None:
    """Check that the artifact of a version is the one that was registered.

    Raises:
        RegistryError: It is not, or cannot be read.
    """
    with _loading(version):
        pass


@contextmanager
def _loading(version: Any) -> Iterator[Path]:
    """The verified folder of a version's model."""
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    try:
        folder = Path(
            mlflow.artifacts.download_artifacts(f"models:/{version.name}/{version.version}")
        )
        _verify(folder, version)
        yield folder
    except (MlflowException, OSError, ValueError) as error:
        raise RegistryError(
            f"version {version.version} of {version.name} cannot be loaded",
            received=str(error).splitlines()[0][:300],
            remedy="check the artifact store",
        ) from error


def _verify(folder: Path, version: Any) -> None:
    """Compare the digests that were registered: of the network, and of all that comes with it."""
    [model_file] = (folder / "artifacts").glob("*.keras")
    found = {
        keys.MODEL_SHA256: hashlib.sha256(model_file.read_bytes()).hexdigest(),
        keys.PACKAGE_SHA256: folder_digest(folder),
    }
    for name, digest in found.items():
        if digest != version.tags.get(name):
            raise RegistryError(
                f"version {version.version} of {version.name} is not what was registered",
                expected=f"{name} {version.tags.get(name)}",
                received=digest,
                remedy="do not use it; bring back the files of the artifact store, or run the study"
                " again",
            )
