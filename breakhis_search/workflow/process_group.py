"""A server and all it starts, as one: it ends whole, however this process is asked to end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

from breakhis_search.errors import TrackingError

_LOOK_EVERY_S = 0.2
_LAST_CHARACTERS = 2000  # of what a server that did not start had written
_GRACE_S = 8.0
"""How long the processes of a server have to end by themselves before they are killed."""

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve_group(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    is_up: Callable[[], bool],
    when_up: Callable[[], None],
    start_timeout_s: float,
) -> None:
    """Run a server until it ends or this process gets SIGINT, SIGTERM or SIGHUP; leave nothing.

    It has a session of its own, so that a Ctrl-C in the terminal reaches this process alone, and
    what it writes is kept back and shown only where it fails.

    Args:
        command: The server.
        environment: All its environment variables.
        is_up: Tells whether it answers.
        when_up: Called once when it does.
        start_timeout_s: How long it has for that.

    Raises:
        TrackingError: It did not start or ended by itself; with its last words.
    """
    with tempfile.TemporaryFile() as log, _stops_noted() as asked:
        server = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + start_timeout_s
            up = False
            while not asked and server.poll() is None and (up or time.monotonic() < deadline):
                if not up and is_up():
                    up = True
                    when_up()
                time.sleep(_LOOK_EVERY_S)
            code = server.poll()
        finally:
            _end(server)
        if not asked:
            raise _failure(code, log, start_timeout_s)


def answers(url: str) -> bool:
    """Tell whether a server of this machine answers at an address."""
    try:
        with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - http on loopback
            return True
    except OSError:
        return False


def require_free(host: str, port: int) -> None:
    """Raise unless a server can be started there.

    Raises:
        TrackingError: The port is taken, or this user may not use it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise TrackingError(
                f"port {port} cannot be used ({error.strerror})",
                expected="a free port",
                remedy=f"try --port {port + 1 if port < 65535 else 5000}",
            ) from error


@contextmanager
def _stops_noted() -> Iterator[list[int]]:
    """Collect the signals that ask this process to end, instead of ending by them.

    A signal that the process was told to ignore (``nohup``) stays ignored.
    """
    asked: list[int] = []
    heeded = [s for s in _STOPS if signal.getsignal(s) != signal.SIG_IGN]
    before = {s: signal.signal(s, lambda number, _: asked.append(number)) for s in heeded}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(server: subprocess.Popen[bytes]) -> None:
    """Ask every process of the group to end, wait for them, and kill those that stay."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not _signal_group(server.pid, number):
            break
        deadline = time.monotonic() + _GRACE_S
        while time.monotonic() < deadline and _signal_group(server.pid, 0):
            server.poll()  # an ended child stays in its group until somebody asks
            time.sleep(0.05)
    server.wait()


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to a group of processes; tell whether there is one."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS refuses where only dead ones are left
        return False
    return True


def _failure(code: int | None, log: IO[bytes], start_timeout_s: float) -> TrackingError:
    log.seek(0)
    words = log.read().decode(errors="replace").strip()[-_LAST_CHARACTERS:]
    what = (
        f"the server did not answer within {start_timeout_s:.0f} s"
        if code is None
        else f"the server ended with exit code {code}"
    )
    return TrackingError(
        what,
        received=f"these last words from it:\n{words}\n" if words else None,
        remedy="mend what it names, then try again",
    )
