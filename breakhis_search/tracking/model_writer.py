"""The models of one process: of a graph that comes again, only its weights are written.

All but the weights is the same for models of one graph, or nearly: it is taken from one that was
written whole. What the parts are and who puts them together is
:mod:`breakhis_search.tracking.model_parts`.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
import numpy.typing as npt

from breakhis_search.durability import sync
from breakhis_search.tracking.model_parts import (
    ARRAYS,
    CONFIG,
    FOLDER,
    LAYOUT,
    METADATA,
    TIME,
    WEIGHTS,
    beside,
    parts_of,
)
from breakhis_search.tracking.models import KERAS_FILE, save_keras_model

_COUNTING = ("float32", "float64", "int32", "int64", "uint32", "uint64")
"""Types that hold the numbers of millions of variables exactly."""


class ModelWriter:
    """Writes the models of one process: of a graph that comes again, only what is new."""

    def __init__(self) -> None:
        self._known: WeakSet[Any] = WeakSet()
        self._skeletons: WeakKeyDictionary[Any, Skeleton | None] = WeakKeyDictionary()

    def write(
        self,
        model: Any,
        folder: Path,
        *,
        example: npt.NDArray[np.uint8],
        class_names: tuple[str, ...],
    ) -> None:
        """Write a model to its folder, or the parts that ``put_together`` makes that folder from.

        Whoever looks meanwhile sees nothing, or all of it.

        Args:
            model: As for :func:`breakhis_search.tracking.models.save_keras_model`; the same object
                with other weights is a graph that comes again.
            folder: Target, must not exist.
            example: As there; of a graph that comes again, the first one is kept.
            class_names: As there; the same for all models of a graph.
        """
        skeleton = self._skeletons.get(model)
        if skeleton is not None:
            skeleton.keep(model, parts_of(folder))
            return
        new = beside(folder, "new")
        save_keras_model(model, new, example=example, class_names=class_names)
        # A graph that comes a second time may come often; finding out takes as long as writing.
        if model in self._known and model not in self._skeletons:
            self._skeletons[model] = Skeleton.of(model, new)
        self._known.add(model)
        new.rename(folder)


@dataclass(frozen=True)
class Skeleton:
    """All of a model folder but what differs between models of one graph.

    Attributes:
        files: Content by path in the folder, without the Keras file.
        metadata: Of the Keras file, without the time.
        layout: The HDF5 file of the weights, without values.
        datasets: Path in that file by variable, in the order of ``model.variables``; ``None`` where
            Keras does not save the variable.
    """

    files: Mapping[str, bytes]
    metadata: Mapping[str, str]
    layout: bytes
    datasets: Sequence[str | None]

    @classmethod
    def of(cls, model: Any, folder: Path) -> Skeleton | None:
        """Take one from a model and the folder it was just written to.

        Returns:
            ``None`` where the file holds more than a configuration and the variables, such as an
            optimizer's or the vocabulary of a layer: such models are written whole.
        """
        with zipfile.ZipFile(folder / KERAS_FILE) as archive:
            if set(archive.namelist()) != {CONFIG, METADATA, WEIGHTS}:
                return None
            config = json.loads(archive.read(CONFIG), object_hook=_without_shared_policy)
            if config != json.loads(_config_of(model)):
                return None
            metadata = json.loads(archive.read(METADATA))
            weights = archive.read(WEIGHTS)
        datasets = _datasets_of(model, folder)
        if datasets is None:
            return None
        names = [str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()]
        files = {n: (folder / n).read_bytes() for n in names if n != KERAS_FILE}
        return cls(files, metadata, _without_values(weights), datasets)

    def keep(self, model: Any, parts: Path) -> None:
        """Write one file with all that a model of the graph is put together from."""
        parts.parent.mkdir(parents=True, exist_ok=True)
        new = beside(parts, "new")
        saved = {"date_saved": datetime.now().strftime("%Y-%m-%d@%H:%M:%S")}  # noqa: DTZ005 - as Keras
        with zipfile.ZipFile(new, "w") as archive:
            for name, content in self.files.items():
                archive.writestr(FOLDER + name, content)
            archive.writestr(TIME, datetime.now(UTC).replace(tzinfo=None).isoformat(" "))
            archive.writestr(METADATA, json.dumps({**self.metadata, **saved}))
            archive.writestr(CONFIG, _config_of(model))
            archive.writestr(LAYOUT, self.layout)
            for dataset, variable in zip(self.datasets, model.variables, strict=True):
                if dataset is not None:
                    with archive.open(ARRAYS + dataset, "w", force_zip64=True) as file:
                        np.lib.format.write_array(file, np.array(variable), allow_pickle=False)
        sync(new)
        new.replace(parts)


def _without_shared_policy(node: dict[str, Any]) -> dict[str, Any]:
    """Leave out that layers share the object that says "float32"; shared layers are another matter.

    Only ``model.save`` knows of objects that are shared.
    """
    if node.get("class_name") == "DTypePolicy":
        node.pop("shared_object_id", None)
    return node


def _config_of(model: Any) -> str:
    import keras

    return json.dumps(keras.saving.serialize_keras_object(model))


def _datasets_of(model: Any, folder: Path) -> list[str | None] | None:
    """Find out where Keras saves every variable: save it with the number of each as its values.

    Returns:
        ``None`` where something that is saved is none of the variables.
    """
    kept = [np.array(variable) for variable in model.variables]
    if any(value.dtype not in _COUNTING for value in kept):
        return None
    # From 1: there are other things that are all zero.
    numbered = [np.full_like(value, number) for number, value in enumerate(kept, start=1)]
    marked = beside(folder, "marked.keras")
    try:
        for variable, number in zip(model.variables, numbered, strict=True):
            variable.assign(number)
        model.save(marked)
        with zipfile.ZipFile(marked) as archive:
            content = archive.read(WEIGHTS)
    finally:
        for variable, value in zip(model.variables, kept, strict=True):
            variable.assign(value)
        marked.unlink(missing_ok=True)
    found: list[str | None] = [None] * len(kept)
    for path, values in _values_in(content).items():
        place = _place_of(values, numbered)
        if place is None or found[place] is not None:
            return None
        found[place] = path
    return found


def _place_of(values: npt.NDArray[Any], numbered: Sequence[npt.NDArray[Any]]) -> int | None:
    """Which of the numbered arrays this is."""
    if values.dtype not in _COUNTING or values.size == 0:
        return None
    number = values.flat[0]
    if not 1 <= number <= len(numbered):
        return None
    there = numbered[int(number) - 1]
    is_it = values.dtype == there.dtype and np.array_equal(values, there)
    return int(number) - 1 if is_it else None


def _values_in(content: bytes) -> dict[str, npt.NDArray[Any]]:
    import h5py

    values: dict[str, npt.NDArray[Any]] = {}

    def note(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            values[path] = item[()]

    with h5py.File(io.BytesIO(content), "r") as file:
        file.visititems(note)
    return values


def _without_values(content: bytes) -> bytes:
    """Return an HDF5 file with the groups, datasets and attributes of another one."""
    import h5py

    emptied = io.BytesIO()
    with h5py.File(io.BytesIO(content), "r") as old, h5py.File(emptied, "w") as new:
        new.attrs.update(old.attrs)

        def copy(path: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                made = new.create_dataset(path, item.shape, item.dtype)
            else:
                made = new.require_group(path)
            made.attrs.update(item.attrs)

        old.visititems(copy)
    return emptied.getvalue()
