"""The models that their trainer keeps in parts, and how who brings them to MLflow makes them whole.

Keras and MLflow take as long to write a model as several steps of training do; its weights alone
are written in a fraction of that (:mod:`breakhis_search.tracking.model_writer`). Who delivers puts
the model together, while the next trial trains, and imports no Keras for it.
"""

from __future__ import annotations

import io
import shutil
import uuid
import zipfile
from pathlib import Path

import numpy as np

from breakhis_search.durability import sync_tree
from breakhis_search.errors import JournalError
from breakhis_search.tracking.models import KERAS_FILE

# What lies in the file of the parts: a folder's files, one array a variable, the weights' file
# without values, the time of saving.
FOLDER, ARRAYS, LAYOUT, TIME = "folder/", "arrays/", "layout.h5", "time"
# The names inside of a .keras file, see `keras.saving`.
CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"


def parts_of(folder: Path) -> Path:
    """Return where the parts of a model are kept whose folder is not made yet."""
    return beside(folder, "parts")


def beside(path: Path, kind: str) -> Path:
    """Return the place beside a model's folder for something of it that is not whole."""
    return path.with_name(f"{path.name}.{kind}")


def put_together(folder: Path) -> None:
    """Make the folder of a model from its parts, unless it is there; as if written whole.

    Args:
        folder: Target; there or not, never half of it.

    Raises:
        JournalError: The parts are damaged.
    """
    if folder.is_dir():
        return
    making = beside(folder, "making")
    shutil.rmtree(making, ignore_errors=True)  # of a process that was killed
    parts = parts_of(folder)
    try:
        with zipfile.ZipFile(parts) as archive:
            _unpack(archive, making)
    except (zipfile.BadZipFile, EOFError, KeyError, RuntimeError, ValueError) as error:
        raise JournalError(
            f"the model {parts} is damaged ({error})",
            remedy="delete that file: the run is in MLflow without its model then",
        ) from error
    sync_tree(making)
    making.rename(folder)
    parts.unlink()


def _unpack(parts: zipfile.ZipFile, folder: Path) -> None:
    for name in parts.namelist():
        if name.startswith(FOLDER):
            file = folder / name.removeprefix(FOLDER)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(parts.read(name))
    weights = _weights_in(parts)
    (folder / KERAS_FILE).parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / KERAS_FILE, "w") as archive:
        archive.writestr(METADATA, parts.read(METADATA))
        archive.writestr(CONFIG, parts.read(CONFIG))
        archive.writestr(WEIGHTS, weights)
    _sign(folder, parts.read(TIME).decode())


def _weights_in(parts: zipfile.ZipFile) -> bytes:
    """Return the HDF5 file of the weights; made in memory, where no disk can be full."""
    import h5py

    filled = io.BytesIO(parts.read(LAYOUT))
    try:
        with h5py.File(filled, "r+") as file:
            for name in parts.namelist():
                if name.startswith(ARRAYS):
                    with parts.open(name) as array:
                        values = np.lib.format.read_array(array, allow_pickle=False)
                    file[name.removeprefix(ARRAYS)][...] = values
    except OSError as error:
        raise ValueError(str(error)) from error
    return filled.getvalue()


def _sign(folder: Path, time: str) -> None:
    """Give an MLflow model an identity, a time and a size of its own."""
    from mlflow.models import Model

    meta = Model.load(str(folder))
    meta.model_uuid = uuid.uuid4().hex
    meta.utc_time_created = time
    data = (folder / KERAS_FILE).parent  # all that is there when MLflow asks for the size
    meta.model_size_bytes = sum(f.stat().st_size for f in data.rglob("*") if f.is_file())
    meta.save(str(folder / "MLmodel"))
