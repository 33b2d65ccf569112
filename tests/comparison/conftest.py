"""A real registry, and models in it by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from breakhis_search.settings import read_settings
from breakhis_search.tracking.store import open_store

NAME = "breakhis-binary"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables: making them takes seconds, copying them none."""
    home = tmp_path_factory.mktemp("store")
    patch = pytest.MonkeyPatch()
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    open_store(read_settings(home=home))
    patch.undo()
    return home / "mlruns" / "mlflow.db"


@pytest.fixture
def client(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of a store of its own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_bytes(empty_store.read_bytes())
    return open_store(read_settings(home=tmp_path))


@pytest.fixture
def registry(client: Any, tmp_path: Path) -> Any:
    """The client of a registry with three versions of one model."""
    client.create_registered_model(NAME)
    for _ in range(3):
        client.create_model_version(NAME, source=str(tmp_path / "model"))
    return client
