"""Worker processes that load no Keras and do as they are told by a file."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from breakhis_search.engines import messages as m
from breakhis_search.engines.assignment import Assignment
from breakhis_search.engines.worker_process import Supervisor, listen_to_the_supervisor_only
from breakhis_search.errors import StorageLostError, StudyError, TrackingError
from breakhis_search.study.progress import SearchSize, TrialSummary
from breakhis_search.study.storage import StudyVersion
from breakhis_search.workflow.outcome import RunOutcome

OUTCOME = RunOutcome("binary@v1", "auroc", True, None, "because", "image.png")
VERSION = StudyVersion("binary@v1", "digest", False, ())


def starts(assignment: Assignment) -> int:
    """Count how often a process was started in this place, this one included."""
    file = Path(assignment.settings.home) / f"starts-{assignment.number}"
    count = int(file.read_text()) + 1 if file.exists() else 1
    file.write_text(str(count))
    return count


def _begin(pipe: Connection, assignment: Assignment) -> tuple[Supervisor, int]:
    listen_to_the_supervisor_only()
    return Supervisor(pipe), starts(assignment)


def _end(supervisor: Supervisor, assignment: Assignment) -> None:
    supervisor.end(m.Ended(OUTCOME if assignment.leads else None))


def obedient(pipe: Connection, assignment: Assignment) -> None:
    """Open the study, say what it is at, and end."""
    supervisor, _ = _begin(pipe, assignment)
    supervisor.send(m.Ready(VERSION))
    version = assignment.version.name if assignment.version else "its own"
    supervisor.send(m.Said(f"at {version}, leads: {assignment.leads}"))
    supervisor.send(m.Observed("trial_finished", (summary(assignment.number),), {}))
    _end(supervisor, assignment)


def summary(number: int) -> TrialSummary:
    """A trial that has ended."""
    return TrialSummary(number, "complete", 0.5, 1.0)


def dies_twice(pipe: Connection, assignment: Assignment) -> None:
    """Be killed twice; the third process ends as it should."""
    supervisor, count = _begin(pipe, assignment)
    supervisor.send(m.Ready(VERSION))
    if count < 3:
        os.kill(os.getpid(), signal.SIGKILL)
    _end(supervisor, assignment)


def always_dies(pipe: Connection, assignment: Assignment) -> None:
    """Crash, again and again."""
    starts(assignment)
    os.kill(os.getpid(), signal.SIGSEGV)


def tires(pipe: Connection, assignment: Assignment) -> None:
    """Ask to be replaced once."""
    supervisor, count = _begin(pipe, assignment)
    supervisor.send(m.Ready(VERSION))
    if count == 1:
        supervisor.end(m.Tired())
    else:
        _end(supervisor, assignment)


def refuses(pipe: Connection, assignment: Assignment) -> None:
    """Fail for a reason that the user can do something about, while others would go on."""
    supervisor, _ = _begin(pipe, assignment)
    supervisor.send(m.Ready(VERSION))
    if assignment.number == 1:
        supervisor.end(m.Failed(StudyError("all trials failed", remedy="mend the cause")))
    else:
        _wait_for_the_end()
        supervisor.end(m.Interrupted())


def has_a_defect(pipe: Connection, assignment: Assignment) -> None:
    """Run into a defect."""
    supervisor, _ = _begin(pipe, assignment)
    supervisor.end(m.Broken("ZeroDivisionError: planted"))


def works_for_ever(pipe: Connection, assignment: Assignment) -> None:
    """Never end by itself; note the end in a file."""
    supervisor, _ = _begin(pipe, assignment)
    supervisor.send(m.Ready(VERSION))
    Path(assignment.settings.home, f"working-{assignment.number}").write_text(str(os.getpid()))
    _wait_for_the_end()
    # Before the end is told: whoever hears of it may look at once.
    Path(assignment.settings.home, f"gave-back-{assignment.number}").touch()
    supervisor.end(m.Interrupted())


def ignores_everything(pipe: Connection, assignment: Assignment) -> None:
    """Hang, whatever it is asked."""
    supervisor, _ = _begin(pipe, assignment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    supervisor.send(m.Ready(VERSION))
    Path(assignment.settings.home, f"working-{assignment.number}").write_text(str(os.getpid()))
    while True:
        time.sleep(1)


def _wait_for_the_end() -> None:
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(0.05)


def delivers(pipe: Connection, assignment: Assignment) -> None:
    """Have a journal delivered, and wait for it."""
    supervisor, _ = _begin(pipe, assignment)
    supervisor.send(m.Ready(VERSION))
    supervisor.send(m.Deliver("the-run"))
    answer: Any = supervisor.ask(m.Flush())
    supervisor.send(m.Said(type(answer).__name__))
    _end(supervisor, assignment)


def only_joins(pipe: Connection, assignment: Assignment) -> None:
    """Have a journal delivered, and end without waiting for it or leading anything."""
    supervisor, _ = _begin(pipe, assignment)
    supervisor.send(m.Ready(VERSION))
    supervisor.send(m.Deliver("the-run"))
    supervisor.end(m.Ended(None))


def asks_first(pipe: Connection, assignment: Assignment) -> None:
    """Ask before hours on a CPU."""
    supervisor, _ = _begin(pipe, assignment)
    if assignment.asks_before_hours:
        supervisor.confirm(30.0, "as measured")
    Path(assignment.settings.home, "went-on").touch()
    supervisor.send(m.Ready(VERSION))
    _end(supervisor, assignment)


def loses_the_storage(pipe: Connection, assignment: Assignment) -> None:
    """Find the database gone, twice; then it answers again."""
    supervisor, count = _begin(pipe, assignment)
    supervisor.send(m.Ready(VERSION))
    if count < 3:
        supervisor.end(m.Failed(StorageLostError("the study storage cannot be used")))
    else:
        _end(supervisor, assignment)


def never_finds_the_storage(pipe: Connection, assignment: Assignment) -> None:
    """Find no database from the beginning."""
    supervisor, _ = _begin(pipe, assignment)
    supervisor.end(m.Failed(StorageLostError("the study storage cannot be used")))


def ends_at_the_second_start(pipe: Connection, assignment: Assignment) -> None:
    """Work for ever, until what started it has been killed and started it again."""
    supervisor, count = _begin(pipe, assignment)
    supervisor.send(m.Ready(VERSION))
    version = assignment.version.name if assignment.version else "its own"
    supervisor.send(m.Said(f"start {count} at {version}"))
    if count == 1:
        Path(assignment.settings.home, f"working-{assignment.number}").touch()
        _wait_for_the_end()
        supervisor.end(m.Interrupted())
        return
    _end(supervisor, assignment)


def loses_mlflow(pipe: Connection, assignment: Assignment) -> None:
    """Find MLflow away once, after the study was opened; the next process finds it again."""
    supervisor, count = _begin(pipe, assignment)
    if count != 2:
        supervisor.send(m.Ready(VERSION))
    if count == 3:
        _end(supervisor, assignment)
    else:
        supervisor.end(m.Failed(TrackingError("the MLflow server does not answer")))


def is_refused_for_ever(pipe: Connection, assignment: Assignment) -> None:
    """Begin to search, and find a store that refuses, whichever process it is."""
    supervisor, _ = _begin(pipe, assignment)
    supervisor.send(m.Ready(VERSION))
    size = SearchSize(trials=3, finished=0, folds=2, epochs=2, best=None, repetitions=1)
    supervisor.send(m.Observed("search_started", (size,), {}))
    supervisor.end(m.Failed(TrackingError("the store refuses")))
