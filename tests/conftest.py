"""Fixtures shared by all tests: real data where it is at hand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from breakhis_search.settings import read_settings
from breakhis_search.training.devices import BACKEND_VARIABLES

os.environ.setdefault("BREAKHIS_DELIVERY", "inline")  # a process more for each of many runs is slow
for _name, _value in BACKEND_VARIABLES.items():  # before any test loads Keras by itself
    os.environ.setdefault(_name, _value)

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder that holds real BreaKHis images (a sample will do)."""
    for place in (os.environ.get("BREAKHIS_TEST_DATA"), SHARED / "data"):
        if place and (Path(place) / "BreaKHis_v1").is_dir():
            return Path(place)
    pytest.skip(
        "no real BreaKHis images: set BREAKHIS_TEST_DATA to a folder that holds BreaKHis_v1"
    )


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """Folder that holds the two real ImageNet weight files."""
    place = Path(os.environ.get("BREAKHIS_TEST_WEIGHTS", SHARED / "weights"))
    if place.is_dir():
        return place
    pytest.skip("no real ImageNet weights: set BREAKHIS_TEST_WEIGHTS to a folder that holds them")


@pytest.fixture(scope="session")
def names_7909() -> list[str]:
    """File names of the full data set."""
    file = SHARED / "data" / "breakhis_v1_all_7909_filenames.txt"
    if not file.is_file():
        pytest.skip(f"the list of all file names is not at hand ({file.name})")
    return file.read_text().split()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a folder that one of the processes of a test run fills, and all of them read."""
    from breakhis_search.tracking.ownership import one_at_a_time

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        place = shared / name
        place.mkdir(exist_ok=True)
        with one_at_a_time(place):
            if not (place / "ready").exists():
                fill(place)
                (place / "ready").touch()
        return place

    return make


@pytest.fixture(scope="session")
def empty_stores(made_once: Callable[..., Path]) -> Path:
    """The ``mlruns`` of a folder in which nothing was searched yet but both databases have tables.

    Making the tables takes seconds, copying them none.
    """
    from breakhis_search.study.storage import open_storage
    from breakhis_search.tracking.store import open_store

    def fill(place: Path) -> None:
        settings = read_settings({}, home=place)
        open_store(settings)
        open_storage(settings.studies_uri)

    return made_once("empty-stores", fill) / "mlruns"


@pytest.fixture(scope="session")
def with_stores(empty_stores: Path) -> Callable[[Path], Path]:
    """Give a folder stores of its own, with nothing in them; return it."""

    def give(folder: Path) -> Path:
        (folder / "mlruns").mkdir(parents=True)
        for database in empty_stores.glob("*.db"):
            shutil.copy(database, folder / "mlruns")
        return folder

    return give
