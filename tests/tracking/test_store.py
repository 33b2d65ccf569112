"""The MLflow store, and what it says when it refuses."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from breakhis_search.errors import TrackingError
from breakhis_search.settings import read_settings
from breakhis_search.tracking.store import open_store, tracking_errors


def test_what_a_database_refuses_is_told_once_and_without_a_traceback(
    tmp_path, with_stores, capfd
) -> None:
    settings = read_settings({}, home=with_stores(tmp_path))
    client = open_store(settings)
    with closing(sqlite3.connect(settings.state_dir / "mlflow.db")) as database:
        database.execute("DROP TABLE experiments")
    capfd.readouterr()
    with (
        pytest.raises(TrackingError, match="no such table"),
        tracking_errors(settings.tracking_uri),
    ):
        client.create_experiment("any")
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")
