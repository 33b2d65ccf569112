"""Fixtures shared by all tests: real data where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("BREAKHIS_DELIVERY", "inline")  # a process more for each of many runs is slow

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
