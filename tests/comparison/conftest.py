"""A real registry, and models in it by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from breakhis_search.settings import read_settings
from breakhis_search.tracking.store import open_store

NAME = "breakhis-binary"


@pytest.fixture
def client(
    tmp_path: Path, with_stores: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A client of a store of its own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return open_store(read_settings(home=with_stores(tmp_path)))


@pytest.fixture
def registry(client: Any, tmp_path: Path) -> Any:
    """The client of a registry with three versions of one model."""
    client.create_registered_model(NAME)
    for _ in range(3):
        client.create_model_version(NAME, source=str(tmp_path / "model"))
    return client
