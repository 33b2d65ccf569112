"""Loads registered models, after checking that they are what was registered."""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from breakhis_search.errors import RegistryError
from breakhis_search.serving.digest import folder_digest
from breakhis_search.serving.verification import no_pickle
from breakhis_search.tracking import keys
from breakhis_search.training.devices import import_keras

_LOADED = ExitStack()
"""Copies of what this process has loaded. They stay until it ends: Python goes on importing from
the first copy of a package, whichever version is loaded next."""

atexit.register(_LOADED.close)


def load_verified(version: Any) -> Any:
    """Return the pyfunc of a version, after checking that it is the artifact that was registered.

    Raises:
        RegistryError: It is not, or cannot be loaded.
    """
    import mlflow.pyfunc

    import_keras()  # without the start-up messages of its backend
    folder = _LOADED.enter_context(verified_copy(version))
    with no_pickle(), _loading_errors(version):
        return mlflow.pyfunc.load_model(str(folder))


def verify(version: Any) -> None:
    """Check that the artifact of a version is the one that was registered.

    Raises:
        RegistryError: It is not, or cannot be read.
    """
    with verified_copy(version):
        pass


@contextmanager
def verified_copy(version: Any) -> Iterator[Path]:
    """Yield a folder with the files of a version, which are those that were registered.

    It is a copy of our own, with no compiled code in it: what is loaded is what was checked.

    Raises:
        RegistryError: They are others, or cannot be read.
    """
    import mlflow.artifacts

    with tempfile.TemporaryDirectory(prefix="breakhis-model-") as place:
        folder = Path(place) / "model"
        with _loading_errors(version):
            # A local store gives its own files, wherever it is asked to put them.
            found = mlflow.artifacts.download_artifacts(
                f"models:/{version.name}/{version.version}", dst_path=place
            )
            shutil.copytree(found, folder, ignore=shutil.ignore_patterns("*.pyc", "__pycache__"))
            _verify(folder, version)
        yield folder


@contextmanager
def _loading_errors(version: Any) -> Iterator[None]:
    """Turn what the artifact store and MLflow raise into one :class:`RegistryError`."""
    from mlflow.exceptions import MlflowException

    try:
        yield
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
