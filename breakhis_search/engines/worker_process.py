"""The whole life of a worker process."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from breakhis_search.engines import messages as m
from breakhis_search.engines.assignment import Assignment
from breakhis_search.errors import BreakhisSearchError, EngineError
from breakhis_search.settings import without_secrets
from breakhis_search.study.progress import SearchObserver
from breakhis_search.tracking.delivery import Delivery
from breakhis_search.tracking.journal import Journal
from breakhis_search.workflow.preparation import PreparedRun, Watcher, prepare_run


def work(pipe: Connection, assignment: Assignment) -> None:
    """Do what there is to do of a study, and say how it ended."""
    listen_to_the_supervisor_only()
    with suppress(OSError):  # a folder that cannot be written is told by who needs it
        _write_to(assignment)
    os.environ.update(assignment.environment)
    supervisor = Supervisor(pipe)
    try:
        ending: Any = _run(assignment, supervisor)
    except KeyboardInterrupt:
        ending = m.Interrupted()
    except (BreakhisSearchError, OSError) as error:
        ending = m.Failed(error)
    except Exception as error:  # noqa: BLE001 - in full in the log, in one line on the screen
        print(without_secrets(traceback.format_exc()), file=sys.stderr, flush=True)  # noqa: T201
        ending = m.Broken(without_secrets(f"{type(error).__name__}: {error}"))
    supervisor.end(ending)


def listen_to_the_supervisor_only() -> None:
    """Leave the terminal's session, and heed SIGINT however this process was started.

    Ctrl-C is for the supervisor, which passes it on once; what runs in the background of a shell or
    under ``nohup`` inherits that it is ignored.
    """
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _write_to(assignment: Assignment) -> None:
    """Let everything that is printed here, also by C++ code, go to the worker's log."""
    assignment.log.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(assignment.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    if not (sys.warnoptions or assignment.is_verbose):
        warnings.simplefilter("ignore")
    print(f"--- worker {assignment.number}, process {os.getpid()}", flush=True)  # noqa: T201


def _run(assignment: Assignment, supervisor: Supervisor) -> m.Ended | m.Tired:
    settings = assignment.settings
    watcher = Watcher(
        say=lambda text: supervisor.send(m.Said(text)),
        progress=lambda *so_far: supervisor.send(m.Progressed(*so_far)),
        search=Forwarded(supervisor.send),
        confirm_slow=supervisor.confirm if assignment.asks_before_hours else None,
        opened=lambda version: supervisor.send(m.Ready(version)),
    )
    prepared = prepare_run(
        assignment.request, settings, watcher, version=assignment.version, leads=assignment.leads
    )
    watcher.say("starting Keras …")
    from breakhis_search.training.devices import import_keras

    import_keras()
    from breakhis_search.study.worker import WorkerIsTired, WorkerLimits
    from breakhis_search.workflow.search import search_and_register

    carrier = RemoteCarrier(supervisor, prepared)
    limits = WorkerLimits(assignment.trials, assignment.memory_gb, assignment.began)
    try:
        outcome = search_and_register(
            prepared, watcher, carrier, leads=assignment.leads, limits=limits
        )
    except WorkerIsTired:
        return m.Tired()
    return m.Ended(outcome)


class Supervisor:
    """The supervisor, seen from a worker.

    A thread listens, so that the worker learns of its supervisor's end at once: it then stops as
    on Ctrl-C, and leaves its work to the next run.

    Args:
        pipe: To the supervisor.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._sending = threading.Lock()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._is_over = self._is_alone = False
        threading.Thread(target=self._listen, name="supervisor", daemon=True).start()

    def _listen(self) -> None:
        try:
            while True:
                self._answers.put(self._pipe.recv())
        except (EOFError, OSError):
            self._is_alone = True
            self._answers.put(_nobody_answers())  # to who is waiting for one
            if not self._is_over:
                os.kill(os.getpid(), signal.SIGINT)

    def send(self, message: Any) -> None:
        """Say something; where nobody is there to hear it, the listener knows already."""
        with self._sending, suppress(OSError):
            self._pipe.send(message)

    def ask(self, question: Any) -> Any:
        """Return the answer to a question."""
        if self._is_alone:
            return _nobody_answers()
        self.send(question)
        return self._answers.get()

    def confirm(self, hours: float, basis: str) -> None:
        """Wait until the user wants it all the same; who does not ends this process."""
        self.ask(m.Slow(hours, basis))

    def end(self, ending: Any) -> None:
        """Say how it ended, and nothing more."""
        self._is_over = True
        self.send(ending)


def _nobody_answers() -> m.NotFlushed:
    return m.NotFlushed(
        EngineError("the supervisor has ended", remedy="run the same command again: it goes on")
    )


class Forwarded:
    """A :class:`SearchObserver` that tells another process.

    Args:
        send: Sends a message.
    """

    def __init__(self, send: Callable[[Any], None]) -> None:
        self._send = send

    def __getattr__(self, event: str) -> Any:
        """Return what tells of an event of the search."""
        if not hasattr(SearchObserver, event):
            raise AttributeError(event)

        def tell(*positional: Any, **named: Any) -> None:
            self._send(m.Observed(event, positional, named))

        return tell


class RemoteCarrier:
    """Has journals carried by the one process that the supervisor keeps for all its workers.

    Args:
        supervisor: Passes it on.
        run: Whose runs are looked up.
    """

    def __init__(self, supervisor: Supervisor, run: PreparedRun) -> None:
        self._supervisor = supervisor
        self._run = run
        self._delivery: Delivery | None = None

    def deliver(self, journal: Journal) -> bool:
        """Ask for what is new of a journal to be brought over, and go on."""
        self._supervisor.send(m.Deliver(journal.uid))
        return True

    def flush(self) -> None:
        """Wait until all that was asked for is brought over."""
        answer = self._supervisor.ask(m.Flush())
        if isinstance(answer, m.NotFlushed):
            raise answer.error

    def run_id(self, uid: str) -> str | None:
        """Return the MLflow run of a journal once it is delivered."""
        self.flush()
        if self._delivery is None:
            self._delivery = Delivery(self._run.client, self._run.settings)
        return self._delivery.run_id(uid)

    def close(self) -> None:
        """Do nothing: the supervisor ends it."""
