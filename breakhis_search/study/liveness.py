"""Which running trials are at work, and which were cut off. Light: ``status`` reads it, too."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from optuna.trial import FrozenTrial, TrialState

from breakhis_search.study.budget import UID
from breakhis_search.study.leases import Leases

UNMARKED_FOR = timedelta(minutes=1)
"""How long a trial may run without its uid; giving it one takes moments."""


def cut_off_trials(trials: Iterable[FrozenTrial], leases: Leases) -> list[int]:
    """Return the numbers of running trials that no living process is at.

    Optuna calls them running: they keep their number, their values and their place in the budget,
    and whoever looks for work next goes on with them. One that has no uid was queued and begun a
    moment ago, or its process ended before it gave it one: only time tells.
    """
    running = [t for t in trials if t.state == TrialState.RUNNING and not _is_being_marked(t)]
    living = leases.living(str(trial.user_attrs.get(UID)) for trial in running)
    return [trial.number for trial in running if str(trial.user_attrs.get(UID)) not in living]


def _is_being_marked(trial: FrozenTrial) -> bool:
    started = trial.datetime_start
    is_young = started is not None and datetime.now() - started <= UNMARKED_FOR  # noqa: DTZ005 - as Optuna
    return is_young and UID not in trial.user_attrs
