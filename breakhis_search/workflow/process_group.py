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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO

from breakhis_search.errors import TrackingError

_LOOK_EVERY_S = 0.2
_LAST_CHARACTERS = 2000  # of what a server that did not start had written
_GRACE_S = 8.0
"""How long the processes of a server have to end by themselves before they are killed."""

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Server:
    """A server to run.

    Attributes:
        name: What it is called in messages.
        command: Starts it.
        environment: All its environment variables.
        is_up: Tells whether it answers.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    is_up: Callable[[], bool]


def serve_group(
    servers: Sequence[Server], *, when_up: Callable[[], None], start_timeout_s: float
) -> None:
    """Run servers until one ends or this process gets SIGINT, SIGTERM or SIGHUP; leave nothing.

    Each has a session of its own, so that a Ctrl-C in the terminal reaches this process alone, and
    what they write is kept back and shown only where one fails.

    Args:
        servers: One or more.
        when_up: Called once when all of them answer.
        start_timeout_s: How long they have for that.

    Raises:
        TrackingError: One did not start or ended by itself; with its last words.
    """
    with ExitStack() as stack:
        asked = stack.enter_context(_stops_noted())
        running = [stack.enter_context(_started(server)) for server in servers]
        deadline = time.monotonic() + start_timeout_s
        up = False
        while not asked and all(r.process.poll() is None for r in running):
            if not up and time.monotonic() > deadline:
                break
            if not up and all(server.is_up() for server in servers):
                up = True
                when_up()
            time.sleep(_LOOK_EVERY_S)
        if asked:
            return
        ended = [r for r in running if r.process.poll() is not None]
        silent = [r for r in running if not r.server.is_up()]
        raise _failure((ended or silent or running)[0], start_timeout_s)


@dataclass(frozen=True)
class _Running:
    server: Server
    process: subprocess.Popen[bytes]
    log: IO[bytes]


@contextmanager
def _started(server: Server) -> Iterator[_Running]:
    """A server that runs; at the end nothing of it does."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            server.command,
            env=dict(server.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield _Running(server, process, log)
        finally:
            _end(process)


def answers(url: str) -> bool:
    """Tell whether a server of this machine answers at an address."""
    try:
        with without_proxy().open(url, timeout=1):
            return True
    except OSError:
        return False


def without_proxy() -> urllib.request.OpenerDirector:
    """Return what opens addresses of this machine: no proxy of the user's knows them."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def require_free(host: str, port: int, *, option: str = "--port") -> None:
    """Raise unless a server can be started there.

    Args:
        host: Address to listen on.
        port: On it.
        option: What names another port.

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
                remedy=f"try {option} {port + 1 if port < 65535 else 5000}",
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


def _failure(failed: _Running, start_timeout_s: float) -> TrackingError:
    code = failed.process.poll()
    failed.log.seek(0)
    words = failed.log.read().decode(errors="replace").strip()[-_LAST_CHARACTERS:]
    what = (
        f"{failed.server.name} did not answer within {start_timeout_s:.0f} s"
        if code is None
        else f"{failed.server.name} ended with exit code {code}"
    )
    return TrackingError(
        what,
        received=f"these last words from it:\n{words}\n" if words else None,
        remedy="mend what it names, then try again",
    )
