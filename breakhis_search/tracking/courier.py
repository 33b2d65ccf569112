"""Delivery off the path: a process of its own carries journals while training goes on.

It also makes the pages of trials, and imports no TensorFlow. It knows nothing that is not on the
disk: whatever becomes of it, the journals hold everything, and the next run delivers the rest.

A store that refuses is asked again, at longer and longer intervals, while training goes on; only
who waits for everything to be there (:meth:`Courier.flush`) is told when that takes too long, and
at once where the disk is full.
"""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Protocol

from breakhis_search import processes
from breakhis_search.errors import DiskError, NotDeliveredError, TrackingError
from breakhis_search.settings import Settings, without_secrets
from breakhis_search.tracking.delivery import Delivery, MakeReport
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.store import open_store

_END_WITHIN_S = 10.0


class Carrier(Protocol):
    """Brings journals to MLflow, at once or soon."""

    def deliver(self, journal: Journal) -> bool:
        """Bring over what is new of a journal; ``False`` where another process writes it.

        Raises:
            TrackingError: MLflow refuses, where it is asked at once.
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
class Flushed:
    """Everything that was asked for before is in MLflow."""


@dataclass(frozen=True)
class Refused:
    """MLflow has refused for so long that who waits for it should not wait any more."""

    error: TrackingError


@dataclass(frozen=True)
class Delayed:
    """MLflow refuses; records are kept, and brought over when it answers again."""

    why: str


@dataclass(frozen=True)
class Recovered:
    """MLflow answers again."""


@dataclass(frozen=True)
class Complained:
    """Something of one run could not be delivered; the others are."""

    what: str


@dataclass(frozen=True)
class Broken:
    """The process ran into a defect of this program."""

    traceback: str


Answer = Flushed | Refused | Delayed | Recovered | Complained | Broken

_FLUSH = "flush"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
PATIENCE_S = 300.0
"""How long MLflow may refuse before who waits for everything to be there is told so."""


class Courier:
    """Carries journals in a process of its own, which starts now and is ready some seconds later.

    Args:
        settings: Where things are.
        make_report: Makes pages; a function of a module, because the process imports it.
        delivery: To look runs up with, in this process.
        patience_s: How long MLflow may refuse before a flush fails.
        say: Told in words when MLflow goes away and comes back.
    """

    def __init__(
        self,
        settings: Settings,
        make_report: MakeReport,
        *,
        delivery: Delivery | None = None,
        patience_s: float = PATIENCE_S,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._delivery = delivery
        self._say = say
        self.connection, other = processes.CONTEXT.Pipe()
        self._process = processes.CONTEXT.Process(
            target=_carry,
            args=(other, settings, make_report, patience_s),
            name="courier",
            daemon=True,
        )
        self._process.start()
        other.close()

    def deliver(self, journal: Journal) -> bool:
        """Ask for what is new of a journal to be brought over, and go on."""
        try:
            while self.connection.poll():
                self._heard(self.connection.recv())
        except (EOFError, OSError):
            raise self.ended() from None
        self.ask_for(journal.uid)
        return True

    def flush(self) -> None:
        """Wait until all that was asked for is brought over."""
        self.ask_for_all()
        try:
            while True:
                answer = self.connection.recv()
                if isinstance(answer, Flushed):
                    return
                if isinstance(answer, Refused):
                    raise answer.error
                self._heard(answer)
        except (EOFError, ConnectionResetError):
            raise self.ended() from None

    def _heard(self, answer: Answer) -> None:
        text = in_words(answer)
        if text:
            self._say(text)

    def run_id(self, uid: str) -> str | None:
        """Return the MLflow run of a journal once it is delivered."""
        self.flush()
        return self._delivery.run_id(uid) if self._delivery else None

    def ask_for(self, uid: str) -> None:
        """Ask for what is new of a journal, and wait for nothing."""
        self._send(uid)

    def ask_for_all(self) -> None:
        """Ask to be told, with :class:`Flushed` or :class:`Refused`, when all is brought over."""
        self._send(_FLUSH)

    def ended(self) -> TrackingError:
        """Return the error that says that the process has ended by itself."""
        return TrackingError(
            "the process that brings records to MLflow has ended",
            received=f"exit code {self._process.exitcode}",
            remedy="run the same command again; nothing recorded so far is lost",
        )

    def close(self) -> None:
        """End the process after what it is doing now."""
        self.connection.close()
        self._process.join(_END_WITHIN_S)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def _send(self, message: str) -> None:
        try:
            self.connection.send(message)
        except OSError:
            raise self.ended() from None


def in_words(answer: Answer) -> str | None:
    """Return what a user should know of an answer.

    Raises:
        RuntimeError: The process ran into a defect of this program.
    """
    if isinstance(answer, Broken):
        message = f"the courier failed:\n{answer.traceback}"
        raise RuntimeError(message)  # noqa: TRY004 - no question of types
    if isinstance(answer, Delayed):
        return f"{answer.why}; the search goes on, and its records are delivered later"
    if isinstance(answer, Complained):
        return answer.what
    if isinstance(answer, Recovered):
        return "MLflow answers again: what waited is delivered"
    return None


def _carry(
    pipe: Connection, settings: Settings, make_report: MakeReport, patience_s: float
) -> None:
    """Deliver what is asked for until the other end is closed. The courier's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the business of the run
    processes.give_way()  # training goes first
    try:
        _Round(pipe, settings, make_report, patience_s).go_on()
    except Exception:  # noqa: BLE001 - told in full, and raised again on the other side
        _answer(pipe, Broken(without_secrets(traceback.format_exc())))


class _Inbox:
    """What is asked for, taken in by a thread of its own: who asks never waits for a delivery.

    Args:
        pipe: To who asks.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._changed = threading.Condition()
        self._due: dict[str, None] = {}  # in the order asked for
        self._flushes = 0
        self._is_over = False
        threading.Thread(target=self._listen, name="inbox", daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                asked = self._pipe.recv()
            except (EOFError, OSError):
                asked = None
            with self._changed:
                if asked is None:
                    self._is_over = True
                elif asked == _FLUSH:
                    self._flushes += 1
                else:
                    self._due[asked] = None  # many epochs of a quick trial are one delivery
                self._changed.notify()
            if asked is None:
                return

    def take(self, timeout_s: float | None) -> tuple[list[str], int, bool]:
        """Wait until something is asked for; return it: journals, flushes, whether all is over.

        Args:
            timeout_s: How long to wait; ``None`` for as long as it takes.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._due or self._flushes or self._is_over, timeout=timeout_s
            )
            found = list(self._due), self._flushes, self._is_over
            self._due, self._flushes = {}, 0
        return found


class _Round:
    """What is owed, and how long the store has refused.

    Args:
        pipe: To who asks.
        settings: Where things are.
        make_report: Makes pages.
        patience_s: How long the store may refuse before a flush fails.
    """

    def __init__(
        self, pipe: Connection, settings: Settings, make_report: MakeReport, patience_s: float
    ) -> None:
        self._pipe = pipe
        self._inbox = _Inbox(pipe)
        self._settings = settings
        self._make_report = make_report
        self._patience_s = patience_s
        self._delivery: Delivery | None = None
        self._due: dict[str, None] = {}
        self._flushes = 0
        self._refused_since: float | None = None
        self._pause_s = FIRST_PAUSE_S
        self._next_at = 0.0
        self._is_over = False

    def go_on(self) -> None:
        """Carry until the other end is closed, and then what it had asked for, once."""
        while not self._is_over:
            self._hear()
            if time.monotonic() < self._next_at and not (self._flushes or self._is_over):
                continue
            try:
                self._bring()
            except TrackingError as error:
                self._was_refused(error)
            else:
                self._was_taken()

    def _hear(self) -> None:
        """Wait for a question, or for the next attempt where something is owed."""
        is_owed = self._due or self._flushes
        wait_s = max(0.0, self._next_at - time.monotonic()) if is_owed else None
        asked, flushes, self._is_over = self._inbox.take(wait_s)
        self._due |= dict.fromkeys(asked)
        self._flushes += flushes

    def _bring(self) -> None:
        """Deliver what is due; what another process is delivering stays due."""
        if self._delivery is None:
            client = open_store(self._settings)
            self._delivery = Delivery(
                client,
                self._settings,
                self._make_report,
                complain=lambda complaint: _answer(self._pipe, Complained(complaint)),
            )
        for uid in list(self._due):
            journal = Journal(self._settings.journal_dir / uid)
            try:
                if self._delivery.deliver(journal):
                    del self._due[uid]
            except TrackingError:
                # Where the store refuses what is of this run alone, the others get by next time;
                # but a run that is not there yet may be the parent of others.
                if not journal.is_new_to_mlflow:
                    del self._due[uid]
                    self._due[uid] = None
                raise

    def _was_taken(self) -> None:
        if self._refused_since is not None:
            _answer(self._pipe, Recovered())
        self._refused_since, self._pause_s = None, FIRST_PAUSE_S
        self._next_at = time.monotonic() + self._pause_s if self._due else 0.0
        if self._due:
            return
        for _ in range(self._flushes):
            _answer(self._pipe, Flushed())
        self._flushes = 0

    def _was_refused(self, error: TrackingError) -> None:
        self._delivery = None  # it remembers that it was refused
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since = now
            _answer(self._pipe, Delayed(error.what))
        else:
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._next_at = now + self._pause_s
        is_hopeless = isinstance(error, DiskError)
        if is_hopeless or now - self._refused_since >= self._patience_s:
            refused = Refused(error if is_hopeless else _not_delivered(error))
            for _ in range(self._flushes):
                _answer(self._pipe, refused)
            self._flushes = 0


def _not_delivered(error: TrackingError) -> NotDeliveredError:
    return NotDeliveredError(
        f"what was recorded could not be delivered: {error.what}",
        remedy="make MLflow reachable, then `status --deliver` brings it over, and the same command"
        " again goes on; nothing recorded is lost",
    )


def _answer(pipe: Connection, answer: Answer) -> None:
    try:
        pipe.send(answer)
    except OSError:  # nobody is there to hear it any more
        return
