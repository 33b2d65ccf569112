"""Worker processes on this machine: started, watched, replaced when they die, stopped as one.

The supervisor loads neither Keras nor MLflow. It keeps one courier for all workers, passes on what
they say, and starts another process where one died; a trial that died with it goes on there, from
its last epoch.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from breakhis_search import processes
from breakhis_search.engines import messages as m
from breakhis_search.engines.assignment import Assignment
from breakhis_search.engines.worker_process import work
from breakhis_search.errors import (
    BreakhisSearchError,
    DiskError,
    EngineError,
    NotDeliveredError,
    StorageLostError,
    TrackingError,
)
from breakhis_search.study.report import make_report
from breakhis_search.tracking.courier import Courier, Flushed, Refused, in_words
from breakhis_search.tracking.journals import open_journals
from breakhis_search.workflow.outcome import RunOutcome
from breakhis_search.workflow.preparation import Watcher

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
DEATHS_THAT_STOP = 5
"""So many deaths of a worker in a row, with no trial finished in between, end the run."""

STORE_PAUSE_S, STORE_PATIENCE_S = 10.0, 600.0
"""A database or an MLflow server that went away is tried again this often, and waited for this
long."""

_STOP_WITHIN_S = 60.0
_COURIER_DEATHS, _WITHIN_S = 5, 3600.0
"""So many deaths of the process that delivers, within so many seconds, end the run."""

_LOOK_EVERY_S = 0.5


@dataclass
class _Worker:
    """A place for a worker process, and the process that has it now.

    Attributes:
        assignment: What a process in this place is to do.
        process: The process; ``None`` while none runs.
        pipe: To it.
        ending: The last thing it said.
        deaths: In a row.
        not_before: When the next one may be started.
    """

    assignment: Assignment
    process: Any = None
    pipe: Connection | None = None
    ending: Any = None
    deaths: int = 0
    not_before: float = 0.0

    @property
    def name(self) -> str:
        return f"worker {self.assignment.number}"

    @property
    def is_done(self) -> bool:
        return self.process is None and isinstance(self.ending, m.Ended)


@dataclass
class _Crew:
    """What the supervisor knows at some moment.

    Attributes:
        workers: The places.
        waiting_for_flush: Who is to be told that all is delivered, in the order of asking: pipes of
            workers, ``None`` for the supervisor itself.
        outcome: What the study came to.
    """

    workers: list[_Worker]
    waiting_for_flush: deque[Connection | None] = field(default_factory=deque)
    outcome: RunOutcome | None = None


class Supervisor:
    """Runs a study with worker processes.

    Args:
        assignments: One per worker; the first one finds or makes the study and leads it.
        watcher: Whoever watches.
        target: What a worker process does.
    """

    def __init__(
        self,
        assignments: Sequence[Assignment],
        watcher: Watcher,
        target: Callable[[Connection, Assignment], None] = work,
    ) -> None:
        self._crew = _Crew([_Worker(assignment) for assignment in assignments])
        self._settings = assignments[0].settings
        self._watcher = watcher
        self._target = target
        self._courier: Courier | None = None
        self._courier_deaths: deque[float] = deque(maxlen=_COURIER_DEATHS)
        self._is_open = False
        self._lost_since: float | None = None
        self._is_to_stop = threading.Event()

    def ask_to_stop(self) -> None:
        """Have :meth:`run`, in another thread, stop as on Ctrl-C."""
        self._is_to_stop.set()

    def run(self) -> RunOutcome | None:
        """Run until the study has been led to its end, or nothing is left to train.

        Returns:
            What it came to; ``None`` where no worker here leads it.

        Raises:
            KeyboardInterrupt: The user stopped it; what was at work is left for the next run.
            BreakhisSearchError: What a worker could not go on for.
        """
        with _stops_as_interrupts():
            try:
                while not self._is_over():
                    self._stop_if_asked()
                    self._start_due()
                    self._hear()
                self._have_all_delivered()
            except BaseException:  # a Ctrl-C too: no worker outlives its supervisor
                self._stop()
                raise
            finally:
                if self._courier is not None:
                    self._courier.close()
        return self._crew.outcome

    def _have_all_delivered(self) -> None:
        """Wait for MLflow where nobody here leads: who leads a study has waited for it."""
        if self._courier is None or self._crew.outcome is not None:
            return
        self._crew.waiting_for_flush.append(None)
        self._courier.ask_for_all()
        while self._crew.waiting_for_flush:
            self._stop_if_asked()
            if self._courier.connection.poll(_LOOK_EVERY_S):
                self._hear_courier()

    def _stop_if_asked(self) -> None:
        if self._is_to_stop.is_set():
            raise KeyboardInterrupt

    def _is_over(self) -> bool:
        """Whether every worker that was ever needed has ended as it should."""
        return all(w.is_done for w in self._crew.workers)

    def _start_due(self) -> None:
        """Start the first worker, and the others once there is a study to join."""
        for worker in self._crew.workers[: None if self._is_open else 1]:
            waits = worker.process is None and not worker.is_done
            if waits and time.monotonic() >= worker.not_before:
                self._start(worker)

    def _start(self, worker: _Worker) -> None:
        pipe, other = processes.CONTEXT.Pipe()
        worker.process = processes.CONTEXT.Process(
            target=self._target, args=(other, worker.assignment), name=worker.name, daemon=False
        )
        worker.pipe, worker.ending = pipe, None
        worker.process.start()
        other.close()

    def _hear(self) -> None:
        """Hear what comes within a moment."""
        by_pipe = {w.pipe: w for w in self._crew.workers if w.pipe is not None}
        courier = [] if self._courier is None else [self._courier.connection]
        for pipe in wait([*by_pipe, *courier], timeout=_LOOK_EVERY_S):
            worker = by_pipe.get(pipe)  # type: ignore[call-overload]
            if worker is None:
                self._hear_courier()
            else:
                self._hear_worker(worker)

    def _hear_worker(self, worker: _Worker) -> None:
        try:
            message = worker.pipe.recv()  # type: ignore[union-attr]
        except (EOFError, OSError):
            self._ended(worker)
            return
        handle: dict[type, Callable[[_Worker, Any], None]] = {
            m.Said: lambda w, said: self._watcher.say(self._labelled(w, said.text)),
            m.Progressed: lambda _, p: self._watcher.progress(p.what, p.done, p.total),
            m.Observed: self._observe,
            m.Slow: self._confirm,
            m.Ready: self._opened,
            m.Deliver: self._deliver,
            m.Flush: self._flush,
        }
        known = handle.get(type(message))
        if known is None:
            worker.ending = message  # the last one; its pipe ends next
        else:
            known(worker, message)

    def _labelled(self, worker: _Worker, text: str) -> str:
        return text if len(self._crew.workers) == 1 else f"{worker.name}: {text}"

    def _observe(self, worker: _Worker, seen: m.Observed) -> None:
        observer = self._watcher.search
        observer.of_worker(worker.assignment.number)
        getattr(observer, seen.event)(*seen.positional, **seen.named)
        if _goes_on(seen):
            self._lost_since = None
        if seen.event == "trial_finished":
            worker.deaths = 0

    def _confirm(self, worker: _Worker, slow: m.Slow) -> None:
        if self._watcher.confirm_slow is not None:
            self._watcher.confirm_slow(slow.hours, slow.basis)
        _reply(worker.pipe, m.GoOn())

    def _opened(self, _: _Worker, ready: m.Ready) -> None:
        """There is a study: whoever starts from now on joins it."""
        self._is_open = True
        self._watcher.opened(ready.version)
        for worker in self._crew.workers:
            worker.assignment = worker.assignment.joining(ready.version)

    def _ended(self, worker: _Worker) -> None:
        """A process has ended: as it said, or without a word."""
        worker.process.join()
        code, worker.process, worker.pipe = worker.process.exitcode, None, None
        match worker.ending:
            case m.Ended(outcome):
                self._crew.outcome = outcome or self._crew.outcome
            case m.Tired():
                worker.not_before = 0.0
            case m.Interrupted():
                raise KeyboardInterrupt
            case m.Failed(BreakhisSearchError() as error) if self._is_open and _may_heal(error):
                self._lost_store(worker, error)
            case m.Failed(error):
                raise error
            case m.Broken(what):
                raise EngineError(
                    f"{worker.name} ran into a defect: {what}",
                    remedy=f"see the traceback in {worker.assignment.log}",
                )
            case _:
                self._died(worker, code)

    def _lost_store(self, worker: _Worker, error: BreakhisSearchError) -> None:
        """A database or MLflow went away: the trial waits at its last epoch meanwhile."""
        now = time.monotonic()
        if self._lost_since is None:
            self._lost_since = now
        if now - self._lost_since > STORE_PATIENCE_S:
            raise error
        worker.not_before = now + STORE_PAUSE_S
        self._watcher.say(f"{error.what}; {worker.name} tries again in {STORE_PAUSE_S:.0f} s")

    def _died(self, worker: _Worker, code: int | None) -> None:
        how = in_words_of_exit(code)
        worker.deaths += 1
        if worker.deaths >= DEATHS_THAT_STOP:
            raise EngineError(
                f"{worker.name} died {worker.deaths} times in a row and finished no trial",
                received=how,
                remedy=f"see {worker.assignment.log}, then run the same command again",
            )
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (worker.deaths - 1))
        worker.not_before = time.monotonic() + pause_s
        self._watcher.say(
            f"{worker.name} died ({how}); another one takes its place, and its trial goes on from"
            f" its last epoch"
        )

    def _deliver(self, _: _Worker, deliver: m.Deliver) -> None:
        with suppress(TrackingError):  # it has ended, which its connection says next
            self._carries().ask_for(deliver.uid)

    def _flush(self, worker: _Worker, _: m.Flush) -> None:
        self._crew.waiting_for_flush.append(worker.pipe)
        with suppress(TrackingError):
            self._carries().ask_for_all()

    def _carries(self) -> Courier:
        """The courier, started when there is something to carry."""
        if self._courier is None:
            self._courier = Courier(self._settings, make_report)
        return self._courier

    def _hear_courier(self) -> None:
        try:
            answer = self._carries().connection.recv()
        except (EOFError, OSError):
            self._replace_courier()
            return
        if isinstance(answer, Flushed | Refused):
            pipe = self._crew.waiting_for_flush.popleft()
            if pipe is None and isinstance(answer, Refused):
                raise answer.error
            _reply(pipe, m.Flushed() if isinstance(answer, Flushed) else m.NotFlushed(answer.error))
            return
        text = in_words(answer)
        if text:
            self._watcher.say(text)

    def _replace_courier(self) -> None:
        """Start another courier: the journals say what the one that died had not brought over."""
        courier = self._carries()
        courier.close()
        deaths, now = self._courier_deaths, time.monotonic()
        deaths.append(now)
        if len(deaths) == _COURIER_DEATHS and now - deaths[0] < _WITHIN_S:
            raise courier.ended()
        self._courier = None
        for journal in open_journals(self._settings.journal_dir):
            self._carries().ask_for(journal.uid)
        for _ in self._crew.waiting_for_flush:
            self._carries().ask_for_all()

    def _stop(self) -> None:
        """Let every worker leave its work for the next run; kill those that do not."""
        deadline = time.monotonic() + _STOP_WITHIN_S
        running = [w for w in self._crew.workers if w.process is not None]
        for worker in running:
            _signal(worker.process.pid, signal.SIGINT)
        while running and time.monotonic() < deadline:
            self._hear_last_words(running)
            running = [w for w in running if w.process.is_alive()]
        for worker in running:
            worker.process.kill()
            worker.process.join()

    def _hear_last_words(self, running: Sequence[_Worker]) -> None:
        """Pass on what still is to be delivered; an end is an end, whatever is said of it."""
        pipes = {w.pipe: w for w in running if w.pipe is not None}
        if not pipes:
            time.sleep(0.05)
            return
        for pipe in wait(list(pipes), timeout=_LOOK_EVERY_S):
            worker = pipes[pipe]  # type: ignore[index]
            try:
                message = worker.pipe.recv()  # type: ignore[union-attr]
            except (EOFError, OSError):
                worker.pipe = None
                continue
            if isinstance(message, m.Deliver):
                self._deliver(worker, message)
            elif isinstance(message, m.Observed):
                self._observe(worker, message)
            elif isinstance(message, m.Flush):
                # The next run delivers the rest: who stops does not wait for a server.
                _reply(worker.pipe, m.Flushed())


def _may_heal(error: Exception) -> bool:
    """Whether a store is away that may come back while a worker waits."""
    if isinstance(error, DiskError | NotDeliveredError):
        return False  # waiting does not help, or was long enough
    return isinstance(error, StorageLostError | TrackingError)


def _goes_on(seen: m.Observed) -> bool:
    """Whether something was trained: a worker that only began may meet the same store again."""
    if seen.event == "trial_finished":
        return all(summary.state != "interrupted" for summary in seen.positional)
    return seen.event in ("epoch_finished", "features_computed")


@contextmanager
def _stops_as_interrupts() -> Iterator[None]:
    """Let who asks this process to end do what Ctrl-C does: a scheduler, a closed terminal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    stops = [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in stops}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _reply(pipe: Connection | None, message: Any) -> None:
    if pipe is not None:
        with suppress(OSError):  # the worker died; its end is heard next
            pipe.send(message)


def _signal(pid: int | None, number: int) -> None:
    try:
        if pid:
            os.kill(pid, number)
    except ProcessLookupError:
        return


def in_words_of_exit(code: int | None) -> str:
    """Return what an exit code of a process says.

    >>> in_words_of_exit(-9)
    'killed by SIGKILL: often for want of memory'
    >>> in_words_of_exit(3)
    'exit code 3'
    """
    if code is None or code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"killed by {name}" + (": often for want of memory" if name == "SIGKILL" else "")


def assignments(
    first: Assignment, shares: Sequence[dict[str, str]], log_of: Callable[[int], Any]
) -> list[Assignment]:
    """Return what each worker is to do.

    Args:
        first: What all of them are to do.
        shares: The environment of each, as :func:`share_out` returns them.
        log_of: Gives the log file of each.
    """
    return [
        replace(first, number=i, environment=share, log=log_of(i), leads=first.leads and i == 0)
        for i, share in enumerate(shares)
    ]
