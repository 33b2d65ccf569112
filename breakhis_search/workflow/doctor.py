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
from breakhis_search.study_file import (
    available_studies,
    find_study_file,
    load_study,
    profile_names,
)
from breakhis_search.workflow.request import architectures_of

_ENOUGH_DISK_GB = 10  # decoded cache of the full set at 224 x 336 is 1.8 GB; models take the rest

_WITHOUT_WEIGHTS = (
    "a run fetches them where the network lets it; else --weights-dir, or --set model.weights=none"
)


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
    device = _guarded("device", _device)
    return [
        *_versions(),
        device,
        _guarded("MLflow store", lambda: _store(settings)),
        _guarded("study storage", lambda: _studies(settings)),
        _guarded("disk", lambda: _disk(settings)),
        _guarded("data", lambda: _data(settings, data)),
        *_weights(weights_dir, settings, "full" if device.state == "ok" else "quick"),
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
    from breakhis_search.workflow.dataset import is_data_at_hand, open_catalog

    if not is_data_at_hand(data, settings):
        detail = "no BreaKHis was given: a run would draw the SYNTHETIC demo; to do: --data DIR"
        return Finding("data", "note", detail)
    catalog, choice = open_catalog(data, settings)
    errors = sum(p.severity == "error" for p in catalog.problems)
    text = f"{len(catalog.table)} images in {catalog.root} ({choice.source})"
    if errors:
        return Finding("data", "error", f"{text}, {errors} problems; to do: data check")
    catalog.require_usable("skip")
    if choice.is_demo:
        return Finding("data", "note", f"{text}: the SYNTHETIC demo; to do: --data DIR")
    return Finding("data", "ok", text)


def _weights(
    weights_dir: Path | None, settings: Settings, profile: Literal["full", "quick"]
) -> Iterator[Finding]:
    """Which architectures could start from pretrained weights now, without a download.

    Those that the profile searches have a line each, the others one line for all.
    """
    from breakhis_search.models.architectures import ARCHITECTURES

    names = [a.name for a in ARCHITECTURES.values() if a.family == "transfer"]
    try:
        needed = _architectures_of(profile, settings) or set(names)
    except BreakhisSearchError as error:
        yield Finding("study files", "error", str(error))
        needed = set(names)
    others = []
    for name in names:
        file, why = _find_weights(name, weights_dir, settings)
        if name in needed:
            detail = str(file) if file else f"{why}; to do: {_WITHOUT_WEIGHTS}"
            yield Finding(f"weights of {name}", "ok" if file else "note", detail)
        else:
            others.append(f"{name} {'there' if file else 'absent'}")
    if others:
        detail = f"{', '.join(others)}: the profile {profile} does not search them"
        yield Finding("other weights", "ok", detail)


def _find_weights(
    name: str, weights_dir: Path | None, settings: Settings
) -> tuple[Path | None, str]:
    """The weights file of an architecture, or why there is none, in a few words."""
    from breakhis_search.models.weights import find_local_weights

    try:
        file = find_local_weights(name, weights_dir=weights_dir, keras_home=settings.keras_home)
    except BreakhisSearchError as error:
        return None, error.what
    return file, "" if file else "not on this machine"


def _architectures_of(profile: str, settings: Settings) -> set[str]:
    """The architectures that the studies of this folder search with a profile."""
    folder = settings.home / "experiments"
    found: set[str] = set()
    for study in available_studies(folder):
        file = find_study_file(study, folder)
        if profile in profile_names(file):
            found.update(architectures_of(load_study(file, profile=profile)))
    return found
