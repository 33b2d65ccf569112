"""``predict``: image files through a registered model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from breakhis_search.comparison.history import CHAMPION
from breakhis_search.data.images import ImageDecodeError, decode_rgb
from breakhis_search.errors import DataError, RegistryError, TrackingError
from breakhis_search.settings import Settings
from breakhis_search.study_file import find_study_file, load_study
from breakhis_search.tracking import keys
from breakhis_search.tracking.store import open_store, tracking_errors
from breakhis_search.training.devices import import_keras

_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}
_BATCH = 64


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        model: Registered model, version and alias, in words.
        table: ``image``, ``label`` and ``probability_<class>`` of every image that was scored.
        bad: Why, by path, for every image that was not.
    """

    model: str
    table: pd.DataFrame
    bad: dict[str, str]


def model_name_of(study: str, settings: Settings, *, demo: bool) -> str:
    """Return the registered model a study's winners go to."""
    config = load_study(find_study_file(study, settings.home / "experiments"))
    return keys.registered_name(config.task, demo=demo)


def predict_images(
    study: str,
    places: Sequence[Path],
    settings: Settings,
    *,
    version: str | None = None,
    demo: bool = False,
) -> Answer:
    """Score image files, and all images in folders, with the champion (or a named version).

    Raises:
        RegistryError: There is no such model or version.
        DataError: A path does not exist, or there is no image.
    """
    name = model_name_of(study, settings, demo=demo)
    files = list(_files(places))
    if not files:
        raise DataError("there is no image to score", expected=", ".join(sorted(_SUFFIXES)))
    good, bad = _readable(files)
    model, label = _load(name, version, settings)
    parts = [
        model.predict(pd.DataFrame({"image": [f.read_bytes() for f in good[i : i + _BATCH]]}))
        for i in range(0, len(good), _BATCH)
    ]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"label": []})
    table.insert(0, "image", [str(f) for f in good])
    return Answer(label, table, bad)


def _files(places: Sequence[Path]) -> Iterator[Path]:
    for place in places:
        if place.is_dir():
            yield from sorted(p for p in place.rglob("*") if p.suffix.lower() in _SUFFIXES)
        elif place.exists():
            yield place
        else:
            raise DataError(f"{place} does not exist", remedy="name image files or folders")


def _readable(files: Sequence[Path]) -> tuple[list[Path], dict[str, str]]:
    good, bad = [], {}
    for file in files:
        try:
            decode_rgb(file.read_bytes())
            good.append(file)
        except (ImageDecodeError, OSError) as error:
            bad[str(file)] = str(error)
    return good, bad


def _load(name: str, version: str | None, settings: Settings) -> tuple[Any, str]:
    client = open_store(settings)
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException

    try:
        found = (
            client.get_model_version(name, version)
            if version
            else client.get_model_version_by_alias(name, CHAMPION)
        )
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise TrackingError(f"MLflow refused ({str(error).splitlines()[0]})") from error
        raise RegistryError(
            f"{name} has no {'version ' + version if version else 'champion'}",
            expected="a registered model (`status` lists them)",
            remedy="run the study, or `promote` a version",
        ) from error
    import_keras()  # without the start-up messages of its backend
    with tracking_errors(settings.tracking_uri):
        model = mlflow.pyfunc.load_model(f"models:/{name}/{found.version}")
    return model, f"{name} version {found.version}"
