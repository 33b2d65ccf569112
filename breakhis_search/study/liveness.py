"""Which running trials are at work, and which were cut off. Light: ``status`` reads it, too."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

from breakhis_search.study.budget import UID
from breakhis_search.study.leases import Leases


def cut_off_trials(trials: Iterable[FrozenTrial], leases: Leases) -> list[int]:
    """Return the numbers of running trials that no living process is at.

    Optuna calls them running: they keep their number, their values and their place in the budget,
    and whoever looks for work next goes on with them.
    """
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    living = leases.living(str(trial.user_attrs.get(UID)) for trial in running)
    return [trial.number for trial in running if str(trial.user_attrs.get(UID)) not in living]
