"""Delivery off the path: a process of its own carries journals while training goes on.

It also makes the pages of trials, and imports no TensorFlow. It knows nothing that is not on the
disk: whatever becomes of it, the journals hold everything, and the next run delivers the rest.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn, Protocol

from breakhis_search.errors import TrackingError
from breakhis_search.settings import Settings
from breakhis_search.tracking.delivery import Delivery, MakeReport
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.store import open_store

_END_WITHIN_S = 10.0


class Carrier(Protocol):
    """Brings journals to MLflow, at once or soon."""

    def deliver(self, journal: Journal) -> bool:
        """Bring over what is new of a journal; ``False`` where another process writes it.

        Raises:
            TrackingError: MLflow refuses, or refused something brought to it before.
        """

    def flush(self) -> None:
        """Wait until everything is there.

        Raises:
            TrackingError: MLflow refuses.
        """

    def run_id(self, uid: str) -> str | None:
        """Return the MLflow run of a journal, or ``None``."""

    def close(self) -> None:
        """End; nothing is lost that is not delivered."""


@dataclass(frozen=True)
class _Refused:
    """MLflow refused, in the words of a :class:`TrackingError`."""

    what: str
    expected: str | None
    received: str | None
    remedy: str | None


@dataclass(frozen=True)
class _Broken:
    """The process ran into a defect of this program."""

    traceback: str


_FLUSH, _FLUSHED = "flush", "flushed"


class Courier:
    """Carries journals in a process of its own, which starts now and is ready some seconds later.

    Args:
        delivery: To look runs up with, in this process.
        settings: Where things are.
        make_report: Makes pages; a function of a module, because the process imports it.
    """

    def __init__(self, delivery: Delivery, settings: Settings, make_report: MakeReport) -> None:
        self._delivery = delivery
        context = multiprocessing.get_context("spawn")  # threads and CUDA do not survive a fork
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=_carry, args=(other, settings, make_report), name="courier", daemon=True
        )
        self._process.start()
        other.close()
        self._error: TrackingError | None = None

    def deliver(self, journal: Journal) -> bool:
        """Ask for what is new of a journal to be brought over, and go on."""
        self._hear(wait=False)
        self._send(journal.uid)
        return True

    def flush(self) -> None:
        """Wait until all that was asked for is brought over."""
        self._send(_FLUSH)
        self._hear(wait=True)

    def run_id(self, uid: str) -> str | None:
        """Return the MLflow run of a journal once it is delivered."""
        self.flush()
        return self._delivery.run_id(uid)

    def close(self) -> None:
        """End the process after what it is doing now."""
        self._pipe.close()
        self._process.join(_END_WITHIN_S)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def _send(self, message: str) -> None:
        if self._error:
            raise self._error
        try:
            self._pipe.send(message)
        except OSError:
            self._raise_ended()

    def _hear(self, *, wait: bool) -> None:
        """Read what the process has to say, with ``wait`` until everything is delivered."""
        if self._error:  # the run is ending: do not wait for the same server again
            raise self._error
        try:
            while wait or self._pipe.poll():
                answer = self._pipe.recv()
                if answer == _FLUSHED:
                    return
                self._raise(answer)
        except (EOFError, ConnectionResetError):
            self._raise_ended()

    def _raise(self, answer: _Refused | _Broken) -> NoReturn:
        if isinstance(answer, _Broken):
            message = f"the courier failed:\n{answer.traceback}"
            raise RuntimeError(message)  # noqa: TRY004 - no question of types
        self._error = TrackingError(
            answer.what, expected=answer.expected, received=answer.received, remedy=answer.remedy
        )
        raise self._error

    def _raise_ended(self) -> NoReturn:
        self._error = TrackingError(
            "the process that brings records to MLflow has ended",
            received=f"exit code {self._process.exitcode}",
            remedy="run the same command again; nothing recorded so far is lost",
        )
        raise self._error


def _carry(pipe: Connection, settings: Settings, make_report: MakeReport) -> None:
    """Deliver what is asked for until the other end is closed. The courier's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the business of the run
    try:
        _serve(pipe, settings, make_report)
    except EOFError:
        return
    except TrackingError as error:
        refusal = _Refused(error.what, error.expected, error.received, error.remedy)
        _answer(pipe, refusal)
    except Exception:  # noqa: BLE001 - told in full, and raised again on the other side
        _answer(pipe, _Broken(traceback.format_exc()))


def _serve(pipe: Connection, settings: Settings, make_report: MakeReport) -> NoReturn:
    delivery = Delivery(open_store(settings), settings, make_report, for_others=True)
    while True:
        asked = [pipe.recv()]
        with suppress(EOFError):  # the other end is closed: what it asked for is done first
            while pipe.poll():
                asked.append(pipe.recv())
        for uid in dict.fromkeys(asked):  # many epochs of a quick trial are one delivery
            if uid != _FLUSH:
                delivery.deliver(Journal(settings.journal_dir / uid))
        for _ in range(asked.count(_FLUSH)):
            pipe.send(_FLUSHED)


def _answer(pipe: Connection, answer: Any) -> None:
    try:
        pipe.send(answer)
    except OSError:  # nobody is there to hear it any more
        return
