"""What a worker process and its supervisor say to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from breakhis_search.errors import BreakhisSearchError
from breakhis_search.study.storage import StudyVersion
from breakhis_search.workflow.outcome import RunOutcome


@dataclass(frozen=True)
class Said:
    """A sentence for the user."""

    text: str


@dataclass(frozen=True)
class Progressed:
    """So much of some preparation is done."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Observed:
    """Something happened in the search: a call of a :class:`SearchObserver`."""

    event: str
    positional: tuple[Any, ...]
    named: Mapping[str, Any]


@dataclass(frozen=True)
class Slow:
    """The search would take so many hours here; the worker waits for :class:`GoOn`."""

    hours: float
    basis: str


@dataclass(frozen=True)
class Ready:
    """The study is open: others may join it."""

    version: StudyVersion


@dataclass(frozen=True)
class Deliver:
    """There is something new in a journal."""

    uid: str


@dataclass(frozen=True)
class Flush:
    """The worker waits until all is in MLflow, for :class:`Flushed` or :class:`NotFlushed`."""


@dataclass(frozen=True)
class Ended:
    """The worker has done what there was to do.

    Attributes:
        outcome: What the study came to, from the worker that led it to its end.
    """

    outcome: RunOutcome | None


@dataclass(frozen=True)
class Tired:
    """The worker has run for long enough; a fresh one should take its place."""


@dataclass(frozen=True)
class Interrupted:
    """The worker was asked to stop, and has left its work for the next run."""


@dataclass(frozen=True)
class Failed:
    """The worker cannot go on, for a reason that the user can do something about."""

    error: BreakhisSearchError | OSError


@dataclass(frozen=True)
class Broken:
    """The worker ran into a defect of this program, or of a model that is searched."""

    what: str


@dataclass(frozen=True)
class GoOn:
    """The user wants it all the same."""


@dataclass(frozen=True)
class Flushed:
    """All is in MLflow."""


@dataclass(frozen=True)
class NotFlushed:
    """MLflow has refused for too long."""

    error: BreakhisSearchError
