"""``ui``: the MLflow UI on the store in use."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable

from breakhis_search.errors import TrackingError
from breakhis_search.settings import Settings, mask_password
from breakhis_search.tracking.store import open_store

HOST = "127.0.0.1"


def serve_ui(settings: Settings, *, port: int, say: Callable[[str], None]) -> None:
    """Serve MLflow's UI on loopback until it is interrupted.

    Raises:
        TrackingError: The port is taken, the store cannot be opened, or the server does not start.
    """
    open_store(settings)
    if not settings.has_local_store:
        say(f"Runs are kept by a server: open {mask_password(settings.tracking_uri)}")
        return
    _require_free(port)
    say(f"MLflow UI on http://{HOST}:{port} (Ctrl-C ends it)")
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    command += ["--workers", "1", "--default-artifact-root", settings.artifacts_dir.as_uri()]
    # By environment: an address may hold a password, and everybody can read a command line.
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": settings.tracking_uri}
    with subprocess.Popen(command, env=environment) as server:
        try:
            code = server.wait()
        except KeyboardInterrupt:
            server.terminate()
            return
    if code:
        raise TrackingError(
            f"the MLflow server ended with exit code {code}", remedy="see its messages above"
        )


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise TrackingError(
                f"port {port} cannot be used ({error.strerror})",
                expected="a free port",
                remedy=f"try --port {port + 1 if port < 65535 else 5000}",
            ) from error
