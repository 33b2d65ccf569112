"""Passwords that reach no screen, log or tag."""

from __future__ import annotations

import http.server
import threading

import pytest

from breakhis_search.errors import StudyError, TrackingError
from breakhis_search.settings import mask_password, without_secrets
from breakhis_search.study.storage import open_storage
from breakhis_search.tracking.store import _require_server


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql+psycopg2://me:p@ss@host/db", "postgresql+psycopg2://me:***@host/db"),
        (
            "postgresql://host/db?user=me&password=secret",
            "postgresql://host/db?user=me&password=***",
        ),
        ("https://TOKEN@host/x", "https://***@host/x"),
        ("http://:tok@h:5000", "http://:***@h:5000"),
        ("host=h user=me password=secret", "host=h user=me password=***"),
        ("http://h/x?access_token=abc&b=1", "http://h/x?access_token=***&b=1"),
        ("sqlite:////tmp/a@b.db", "sqlite:////tmp/a@b.db"),
        ("postgresql://breakhis@db/studies", "postgresql://breakhis@db/studies"),
    ],
)
def test_an_address_is_told_without_its_secret(address, masked):
    assert mask_password(address) == masked
    assert mask_password(f"request to {address} failed") == f"request to {masked} failed"


def test_a_password_of_the_environment_is_told_nowhere():
    told = without_secrets("FATAL: 'hunter22' wrong", {"MLFLOW_TRACKING_PASSWORD": "hunter22"})
    assert told == "FATAL: '***' wrong"
    assert without_secrets("abc", {"PGPASSWORD": "a"}) == "abc", "too short to be looked for"
    address = {"MLFLOW_TRACKING_URI": "http://me:se%2Fcret@host"}
    assert without_secrets("port 'se%2Fcret@host', user se/cret", address) == (
        "port '***@host', user ***"
    )


def test_a_server_that_is_away_is_told_without_its_secret():
    with pytest.raises(TrackingError) as error:
        _require_server("http://me:secret@127.0.0.1:1")
    assert "secret" not in str(error.value)
    assert "http://me:***@127.0.0.1:1 does not answer" in str(error.value)


def test_a_database_that_is_away_is_told_without_its_secret():
    with pytest.raises(StudyError) as error:
        open_storage("postgresql+psycopg2://me:secret@127.0.0.1:1/db")
    assert "secret" not in str(error.value)


def test_who_is_named_in_an_address_logs_in():
    seen: list[str | None] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers.get("Authorization"))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args):
            return

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.handle_request, daemon=True).start()
    _require_server(f"http://me:s%40cret@127.0.0.1:{server.server_address[1]}/mlflow/")
    server.server_close()
    assert seen == ["Basic bWU6c0BjcmV0"]  # me:s@cret
