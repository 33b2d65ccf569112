"""Which trials of a study used up a place of its budget. Light: ``status`` reads it, too."""

from __future__ import annotations

import re
from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

from breakhis_search.config import SearchConfig

UID = "trial_uid"
"""User attribute of a trial: its identity, the same in MLflow, and the name of its lease."""

SECONDS = "seconds"
"""User attribute of a trial: how long it trained, on its device, by all processes that were at it.
Of one that was killed, what it had spent by its last epoch, where its checkpoint can be read."""

REASON = "reason"
"""User attribute of a trial: why it failed."""

CAUSE = "cause"
"""User attribute of a trial: the same without the numbers of this one trial, to count by."""

SAME_AS = "same_as"
"""User attribute of a trial: the number of an earlier one of the same values; it has its result."""

INTERRUPTED = "interrupted"
"""User attribute of a trial that was cut off: it waits to go on, or a bug ended it."""


def without_numbers(reason: str) -> str:
    """Return a reason without its numbers, so that the same one of two trials is the same text.

    >>> without_numbers("the loss is nan in fold 1, epoch 12")
    'the loss is nan in fold …, epoch …'
    """
    return re.sub(r"[-+]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?", "…", reason)


def cause_of(trial: FrozenTrial) -> str:
    """Return why a trial failed, to count by."""
    return str(trial.user_attrs.get(CAUSE) or trial.user_attrs.get(REASON))


def counts_towards_budget(trial: FrozenTrial) -> bool:
    """Tell whether a trial used up a place of the budget: it ended, and not by interruption."""
    return trial.state.is_finished() and not trial.user_attrs.get(INTERRUPTED)


def reason_to_stop(trials: Iterable[FrozenTrial], search: SearchConfig) -> str | None:
    """Return why no new trial should be begun though the budget has room; ``None`` to go on.

    Args:
        trials: Of the study.
        search: Its limits.

    >>> import optuna
    >>> done = [optuna.trial.create_trial(value=v) for v in (0.5, 0.9, 0.8, 0.7)]
    >>> reason_to_stop(done, SearchConfig(target=0.85))
    'the target of 0.85 is reached'
    >>> reason_to_stop(done, SearchConfig(patience=2))
    'no better score in 2 trials'
    >>> reason_to_stop(done, SearchConfig(patience=3, target=0.95)) is None
    True
    """
    if search.target is None and search.patience is None and search.device_hours is None:
        return None  # without a look at thousands of trials, for which other workers wait
    counted = [trial for trial in trials if counts_towards_budget(trial)]
    values = [t.value if t.state == TrialState.COMPLETE else None for t in counted]
    known = [value for value in values if value is not None]
    if search.target is not None and known and max(known) >= search.target:
        return f"the target of {search.target:g} is reached"
    if search.patience is not None and known:
        since = len(values) - 1 - values.index(max(known))
        if since >= search.patience:
            return f"no better score in {search.patience} trials"
    hours = sum(float(trial.user_attrs.get(SECONDS, 0.0)) for trial in counted) / 3600
    if search.device_hours is not None and hours >= search.device_hours:
        return f"the trials have trained for {hours:.1f} hours"
    return None


def budget_in_words(trials: Iterable[FrozenTrial], *, budget: int) -> str:
    """Return how far a study is, such as ``2 of 3 trials done, 1 queued``.

    >>> import optuna
    >>> budget_in_words([optuna.trial.create_trial(value=0.5)], budget=3)
    '1 of 3 trials done'
    """
    known = list(trials)
    done = sum(map(counts_towards_budget, known))
    begun = sum(trial.state == TrialState.RUNNING for trial in known)
    queued = sum(trial.state == TrialState.WAITING for trial in known)
    return (
        f"{done} of {max(budget, done)} trials done"
        + (f", {begun} begun" if begun else "")
        + (f", {queued} queued" if queued else "")
    )
