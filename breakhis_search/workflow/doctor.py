"""``doctor``: versions, devices, stores, data and weights; what works and what to do."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from breakhis_search.errors import BreakhisSearchError
from breakhis_search.settings import Settings, mask_password

_ENOUGH_DISK_GB = 10  # decoded cache of the full set at 224 x 336 is 1.8 GB; models take the rest


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What.
        state: ``ok``; ``note`` (worth knowing); ``error`` (a run would fail).
        detail: What was found, and what to do.
    """

    subject: str
    state: Literal["ok", "note", "error"]
    detail: str


def examine(settings: Settings, *, data: Path | None, weights_dir: Path | None) -> list[Finding]:
    """Look at everything a run needs; nothing is changed but empty databases are created."""
    return [
        *_versions(),
        _guarded("device", _device),
        _guarded("MLflow store", lambda: _store(settings)),
        _guarded("study storage", lambda: _studies(settings)),
        _guarded("disk", lambda: _disk(settings)),
        _guarded("data", lambda: _data(settings, data)),
        *_weights(weights_dir, settings),
    ]


def _guarded(subject: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except (BreakhisSearchError, OSError) as error:
        return Finding(subject, "error", str(error))


def _versions() -> Iterator[Finding]:
    yield Finding("Python", "ok", platform.python_version())
    for text in requires("breakhis-search") or []:
        needed = Requirement(text)
        if needed.marker and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(needed.name)
        except PackageNotFoundError:
            yield Finding(needed.name, "error", "absent; to do: pip install breakhis-search again")
            continue
        fits = needed.specifier.contains(found, prereleases=True)
        detail = found if fits else f"{found}; expected {needed.specifier}; to do: reinstall it"
        yield Finding(needed.name, "ok" if fits else "error", detail)


def _device() -> Finding:
    from breakhis_search.training.devices import prepare_device

    device = prepare_device("auto")
    text = f"{device.name}, Keras on {device.backend}, {device.precision}"
    if device.kind == "cpu":
        return Finding("device", "note", f"CPU only ({text}): use --profile quick")
    return Finding("device", "ok", f"GPU {text}")


def _store(settings: Settings) -> Finding:
    from breakhis_search.tracking.store import open_store

    open_store(settings)
    return Finding("MLflow store", "ok", mask_password(settings.tracking_uri))


def _studies(settings: Settings) -> Finding:
    from breakhis_search.study.storage import open_storage

    open_storage(settings.studies_uri)
    return Finding("study storage", "ok", mask_password(settings.studies_uri))


def _disk(settings: Settings) -> Finding:
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    free_gb = shutil.disk_usage(settings.state_dir).free / 1e9
    state: Literal["ok", "note"] = "ok" if free_gb > _ENOUGH_DISK_GB else "note"
    return Finding("disk", state, f"{free_gb:.0f} GB free in {settings.state_dir}")


def _data(settings: Settings, data: Path | None) -> Finding:
    from breakhis_search.workflow.dataset import open_catalog

    catalog, choice = open_catalog(data, settings)
    errors = sum(p.severity == "error" for p in catalog.problems)
    text = f"{len(catalog.table)} images in {catalog.root} ({choice.source})"
    if errors:
        return Finding("data", "error", f"{text}, {errors} problems; to do: data check")
    catalog.require_usable("skip")
    if choice.is_demo:
        return Finding("data", "note", f"{text}: the SYNTHETIC demo; to do: --data DIR")
    return Finding("data", "ok", text)


def _weights(weights_dir: Path | None, settings: Settings) -> Iterator[Finding]:
    """Which architectures could start from pretrained weights now, without a download."""
    from breakhis_search.models.architectures import ARCHITECTURES
    from breakhis_search.models.weights import find_local_weights

    for architecture in ARCHITECTURES.values():
        if architecture.family != "transfer":
            continue
        subject = f"weights of {architecture.name}"
        try:
            file = find_local_weights(
                architecture.name, weights_dir=weights_dir, keras_home=settings.keras_home
            )
        except BreakhisSearchError as error:
            yield Finding(subject, "note", str(error))
            continue
        if file:
            yield Finding(subject, "ok", str(file))
        else:
            yield Finding(subject, "note", "not on this machine; a run would download them")
