"""The MLflow store in use: reached once, with errors a user can act on."""

from __future__ import annotations

import base64
import errno
import http.client
import logging
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from breakhis_search.errors import DiskError, ServerAwayError, TrackingError
from breakhis_search.settings import Settings, environment_kept, mask_password, without_secrets
from breakhis_search.tracking.ownership import one_at_a_time

_REACH_TIMEOUT_S = 5
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"""How an address begins that MLflow takes for that of a database."""

_SQLITE = "sqlite:///"
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_OF_THE_DISK_IN_SQLITE = ("database or disk is full", "attempt to write a readonly database")
"""From SQLite's list of result codes: SQLITE_FULL and SQLITE_READONLY."""


def open_store(settings: Settings) -> Any:
    """Return an ``mlflow.MlflowClient`` on the store in use, after checking that it answers.

    Raises:
        ServerAwayError: The server is down.
        TrackingError: The database cannot be written, or the address is none.
    """
    uri = settings.tracking_uri
    if uri.startswith(("http://", "https://")):
        _require_server(uri)
    elif "://" not in uri or uri.startswith("file:"):
        raise TrackingError(
            f"MLFLOW_TRACKING_URI is a folder ({uri})",
            expected="sqlite:///…, postgresql://… or http://…",
            remedy="unset it to use mlruns/mlflow.db",
        )
    elif uri.startswith(_SQLITE):
        _require_writable(_folder_of(uri))
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # With a server MLflow would print two addresses at the end of every run.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # Fail within seconds when a server goes away, not after MLflow's minutes of retries.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
    import mlflow
    from mlflow import MlflowClient

    # The first connection creates the tables and would log every migration step; MLflow sets its
    # own level when it is imported.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # What the database raises is told once, in words (`tracking_errors`), without a traceback.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # Everything here names its client and ids, but MLflow itself resolves a `models:/` address
    # (when a version is created or loaded) by these two process-wide settings only.
    with environment_kept("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
    with tracking_errors(uri), _tables_created_once(uri):
        if uri.startswith(DATABASES):
            _require_database(uri)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    return client


def read_store(settings: Settings) -> Any:
    """Return :func:`open_store`'s client for who only reads: nothing is created for it.

    Raises:
        TrackingError: As there; or nothing was ever kept in this folder.
    """
    if settings.is_unused:
        raise TrackingError(
            f"nothing was searched in {settings.home} yet",
            expected="a folder in which a study was run (with mlruns/), or MLFLOW_TRACKING_URI",
            remedy="go to that folder, or search here first: python -m breakhis_search run",
        )
    return open_store(settings)


@contextmanager
def _tables_created_once(uri: str) -> Iterator[None]:
    """Keep two processes that start at once from creating the same tables in SQLite."""
    if not uri.startswith(_SQLITE):
        yield
        return
    with one_at_a_time(_folder_of(uri)):
        yield


def _folder_of(uri: str) -> Path:
    return Path(uri.removeprefix(_SQLITE)).parent


def _require_server(uri: str) -> None:
    try:
        with urllib.request.urlopen(_health_of(uri), timeout=_REACH_TIMEOUT_S):  # noqa: S310 - http(s) only, checked by the caller
            return
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):  # a proxy may ask for a password, or hide /health
            return
        raise _unreachable(uri, f"HTTP {error.code}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = without_secrets(str(getattr(error, "reason", error)))
        raise _unreachable(uri, why) from error


def _require_database(uri: str) -> None:
    """Connect once: MLflow would try again for minutes, and not say so."""
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    except ImportError as error:
        raise TrackingError(
            f"MLFLOW_TRACKING_URI is {mask_password(uri)}, whose driver is not installed",
            received=str(error),
            remedy="install it; for PostgreSQL: pip install 'breakhis-search[postgres]'",
        ) from error
    engine.connect().close()
    engine.dispose()


def _health_of(uri: str) -> urllib.request.Request:
    """The question whether a server is up; who is named in its address is told apart."""
    parts = urllib.parse.urlsplit(uri)
    who, at, host = parts.netloc.rpartition("@")
    address = parts._replace(netloc=host, path=f"{parts.path.rstrip('/')}/health").geturl()
    request = urllib.request.Request(address)  # noqa: S310 - as above
    if at:
        login = base64.b64encode(urllib.parse.unquote(who).encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
    return request


def _unreachable(uri: str, why: str) -> ServerAwayError:
    return ServerAwayError(
        f"the MLflow server {mask_password(uri)} does not answer",
        expected="a running server",
        received=why,
        remedy="start it, correct MLFLOW_TRACKING_URI, or unset it to use mlruns/mlflow.db",
    )


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise TrackingError(
            f"{folder} cannot be written ({error.strerror})",
            expected="a writable folder for runs and studies",
            remedy="make it writable, free space, or run from another folder",
        ) from error


@contextmanager
def tracking_errors(uri: str) -> Iterator[None]:
    """Turn what MLflow and its database raise into one :class:`TrackingError`.

    Raises:
        DiskError: The disk under a local store is full or read-only.
        TrackingError: Anything else.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, RequestException, OSError) as error:
        told = without_secrets(str(error).strip() or type(error).__name__)
        first_line = told.splitlines()[0]
        if _wants_login(error):
            raise TrackingError(
                f"the MLflow server {mask_password(uri)} does not let you in",
                received=first_line[:200],
                remedy="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
            ) from error
        kind = DiskError if _is_of_the_disk(error) else TrackingError
        raise kind(
            f"MLflow at {mask_password(uri)} refused ({first_line[:300]})",
            remedy="check the server or the disk, then run the same command again;"
            " records wait in mlruns/journal",
        ) from error


def _wants_login(error: Exception) -> bool:
    """Whether a server asked for a user and a password, or for others than were given."""
    code = getattr(error, "error_code", "")
    return code in ("UNAUTHENTICATED", "PERMISSION_DENIED") or "error code 401" in str(error)


def _is_of_the_disk(error: BaseException) -> bool:
    """Whether a disk of this machine is full or read-only, as the system or SQLite says it.

    MLflow wraps errors of its database in its own, sometimes with their text alone.
    """
    causes = [error, error.__cause__, error.__context__]
    return any(
        getattr(cause, "errno", None) in _OF_THE_DISK
        or any(words in str(cause) for words in _OF_THE_DISK_IN_SQLITE)
        for cause in causes
        if cause is not None
    )


def ensure_experiment(client: Any, name: str, settings: Settings) -> str:
    """Return the id of an experiment, created if need be.

    With a local store its artifacts go to ``mlruns/artifacts``; a server decides for itself.
    """
    with tracking_errors(settings.tracking_uri):
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        place = settings.artifacts_dir.as_uri() + f"/{name}" if settings.has_local_store else None
        return str(client.create_experiment(name, artifact_location=place))
